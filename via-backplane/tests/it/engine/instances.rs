//! Instances: loaded when somebody reads them, let go when nobody does.

use std::sync::Arc;

use via_backplane::{Engine, Events, Status, Waited};
use via_inmem::InMemory;

use super::{Noted, Notes, PATIENCE, note, noted, notes, start, stop, until};

/// An engine that keeps this many instances.
fn keeping(memory: &InMemory, most: usize) -> Engine {
    Engine::builder(Arc::new(memory.clone())).with_resident_instances(most).start()
}

fn room(notes: &Events<Noted, Notes>, n: usize) -> Events<Noted, Notes> {
    notes.instance(n.to_string()).expect("a valid name")
}

/// Gives each of these rooms one line.
async fn furnish(memory: &InMemory, rooms: usize) {
    let engine = start(memory);
    let notes = notes(&engine);
    for n in 0..rooms {
        room(&notes, n).append(noted(&format!("of {n}"))).await.expect("memory takes every append");
    }
    stop(&engine).await;
}

/// How many of the rooms have a value here; looking asks for none.
fn resident(notes: &Events<Noted, Notes>, rooms: usize) -> usize {
    (0..rooms).filter(|n| room(notes, *n).status() == Status::Live).count()
}

#[tokio::test]
async fn an_instance_is_loaded_by_the_first_read_and_by_nothing_else() {
    let memory = InMemory::new();
    furnish(&memory, 20).await;
    let engine = start(&memory);
    let notes = notes(&engine);
    notes.loaded().await;
    note(&room(&notes, 0), "more").await;
    room(&notes, 7).append(noted("unread")).await.expect("memory takes every append");
    note(&notes, "the tail is past it").await;
    assert_eq!(resident(&notes, 20), 1, "to append needs no value, to wait for a position does");
    let read = room(&notes, 7);
    assert!(read.read().is_none(), "a read never waits");
    assert_eq!(*read.loaded().await, ["of 7", "unread"]);
    assert_eq!(resident(&notes, 20), 2);
    stop(&engine).await;
}

#[tokio::test]
async fn instances_that_nobody_reads_make_room_for_others() {
    let memory = InMemory::new();
    furnish(&memory, 100).await;
    let engine = keeping(&memory, 10);
    let notes = notes(&engine);
    for n in 0..100 {
        assert_eq!(*room(&notes, n).loaded().await, [format!("of {n}")]);
    }
    assert!(resident(&notes, 100) <= 10, "{} are resident", resident(&notes, 100));
    // A value that was let go is loaded again, with what came meanwhile.
    let first = room(&notes, 0);
    assert_ne!(first.status(), Status::Live);
    let position = first.append(noted("while away")).await.expect("memory takes every append");
    assert_eq!(first.wait_for(&position, PATIENCE).await, Waited::Reached);
    assert_eq!(first.read().as_deref(), Some(&vec!["of 0".to_owned(), "while away".to_owned()]));
    stop(&engine).await;
}

#[tokio::test]
async fn what_somebody_watches_stays_and_its_versions_rise() {
    let memory = InMemory::new();
    furnish(&memory, 50).await;
    let engine = keeping(&memory, 5);
    let notes = notes(&engine);
    let watched = room(&notes, 3);
    let changes = watched.changes();
    let before = watched.loaded().await;
    for n in 4..50 {
        room(&notes, n).loaded().await;
    }
    assert_eq!(watched.status(), Status::Live);
    drop(changes);
    for n in 4..50 {
        room(&notes, n).loaded().await;
    }
    assert_ne!(watched.status(), Status::Live, "nobody watches it any more");
    assert_eq!(*before, ["of 3"], "a view outlives the value");
    let again = watched.loaded().await;
    assert!(again.version() > before.version(), "{} is not above {}", again.version(), before.version());
    stop(&engine).await;
}

#[tokio::test]
async fn a_read_never_sees_an_older_value_than_before() {
    let memory = InMemory::new();
    furnish(&memory, 30).await;
    let engine = keeping(&memory, 4);
    let notes = notes(&engine);
    let mut seen = vec![0; 30];
    for turn in 0..300 {
        let n = turn * 7 % 30;
        let handle = room(&notes, n);
        if turn % 3 == 0 {
            note(&handle, "more").await;
        }
        let lines = handle.loaded().await.len();
        assert!(lines >= seen[n] && lines > 0, "room {n} went from {} lines to {lines}", seen[n]);
        seen[n] = lines;
    }
    stop(&engine).await;
}

#[tokio::test]
async fn a_key_with_more_records_than_a_page_is_loaded_whole() {
    let memory = InMemory::new();
    let early = start(&memory);
    let rooms = notes(&early);
    let long = room(&rooms, 1);
    for _ in 0..30 {
        long.append_batch((0..100).map(|n| noted(&n.to_string()))).await.expect("memory takes every append");
    }
    let engine = start(&memory);
    let notes = notes(&engine);
    let here = room(&notes, 1);
    until(&here, |notes| notes.len() == 3_000).await;
    stop(&engine).await;
    stop(&early).await;
}
