//! Cells: one value, many pods.

use std::collections::BTreeSet;

use via_backplane::{Backplane, Cell, Expected, Ttl, UpdateError};
use via_inmem::InMemory;

use super::{PATIENCE, measures::Meter, start, stop};

async fn becomes<T: PartialEq + std::fmt::Debug>(cell: &Cell<T>, wanted: &T) {
    let mut changes = cell.changes();
    let reached = async {
        while cell.read().as_deref() != Some(wanted) {
            assert!(changes.changed().await, "the engine lives");
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "{:?} never became {wanted:?}", cell.read());
}

#[tokio::test]
async fn a_cell_nobody_wrote_reads_as_the_default() {
    let engine = start(&InMemory::new());
    let cell = engine.cell::<u32>("count").expect("valid");
    assert_eq!(*cell.loaded().await, 0);
    stop(&engine).await;
}

#[tokio::test]
async fn an_update_is_seen_here_at_once_and_there_soon() {
    let memory = InMemory::new();
    let (here, there) = (start(&memory), start(&memory));
    let cell = here.cell::<String>("theme").expect("valid");
    let other = there.cell::<String>("theme").expect("valid");
    other.loaded().await;
    cell.set("dark".to_owned()).await.expect("memory takes it");
    assert_eq!(cell.read().as_deref().map(String::as_str), Some("dark"));
    becomes(&other, &"dark".to_owned()).await;
    // A cell declared after the watch began its replay is asked for.
    let late = start(&memory);
    late.cell::<u8>("other").expect("valid").loaded().await;
    becomes(&late.cell::<String>("theme").expect("valid"), &"dark".to_owned()).await;
    for engine in [&here, &there, &late] {
        stop(engine).await;
    }
}

#[tokio::test]
async fn racing_updates_all_take_place() {
    let memory = InMemory::new();
    let engines = [start(&memory), start(&memory), start(&memory)];
    let cells = engines.each_ref().map(|engine| engine.cell::<BTreeSet<u32>>("set").expect("valid"));
    let updates = (0..60_u32).map(|n| {
        let cell = &cells[n as usize % 3];
        cell.update(move |set| {
            set.insert(n);
            Ok::<_, ()>(())
        })
    });
    for updated in futures_util::future::join_all(updates).await {
        updated.expect("every race is won in the end");
    }
    for (engine, cell) in engines.iter().zip(&cells) {
        becomes(cell, &(0..60).collect()).await;
        stop(engine).await;
    }
}

#[tokio::test]
async fn a_rejected_update_writes_nothing() {
    let engine = start(&InMemory::new());
    let cell = engine.cell::<u32>("count").expect("valid");
    let error = cell
        .update(|count| {
            *count = 7;
            Err("no")
        })
        .await
        .expect_err("the closure said no");
    assert!(matches!(error, UpdateError::Rejected("no")), "{error:?}");
    assert_eq!(*cell.loaded().await, 0);
    stop(&engine).await;
}

#[tokio::test]
async fn bytes_that_do_not_decode_are_counted_and_not_overwritten() {
    let meter = Meter::default();
    let _here = metrics::set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = start(&memory);
    let cell = engine.cell::<u32>("count").expect("valid");
    cell.set(7).await.expect("memory takes it");
    let rev = memory.store().load(cell.key()).await.expect("memory loads").expect("it was set").rev;
    let garbage = bytes::Bytes::from_static(b"\xff");
    memory.store().cas(cell.key(), Expected::At(rev), garbage, Ttl::Forever).await.expect("memory takes it");
    let error = cell.set(8).await.expect_err("what is there cannot be read");
    assert!(matches!(error, UpdateError::Undecodable(_)), "{error:?}");
    assert_eq!(cell.read().as_deref(), Some(&7), "the last good value is served");
    let late = start(&memory);
    let unreadable = late.cell::<u32>("count").expect("valid");
    // Declared after it, on the same watch: once this one is loaded, that one has been passed over.
    late.cell::<u32>("other").expect("valid").loaded().await;
    assert!(unreadable.read().is_none(), "there is no good value to serve");
    assert!(meter.count("via_cell_undecodable_total") >= 1);
    let named = [cell.key().clone()];
    assert_eq!((engine.health().undecodable, late.health().undecodable), (named.to_vec(), named.to_vec()));
    // A restart of the watch tells it again, and a value that decodes ends it.
    late.cell::<u32>("another").expect("valid").loaded().await;
    assert_eq!(late.health().undecodable, named);
    let rev = memory.store().load(cell.key()).await.expect("memory loads").expect("it is garbage").rev;
    memory.store().delete(cell.key(), rev).await.expect("memory deletes it");
    for cell in [&unreadable, &cell] {
        becomes(cell, &0).await;
    }
    assert_eq!(engine.health().undecodable.len() + late.health().undecodable.len(), 0);
    stop(&late).await;
    stop(&engine).await;
}

#[tokio::test]
async fn a_recreated_store_is_believed() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let cell = engine.cell::<u32>("count").expect("valid");
    for n in 1..=5 {
        cell.set(n).await.expect("memory takes it");
    }
    memory.recreate_store();
    becomes(&cell, &0).await;
    let other = start(&memory);
    other.cell::<u32>("count").expect("valid").set(9).await.expect("memory takes it");
    becomes(&cell, &9).await;
    stop(&engine).await;
    stop(&other).await;
}
