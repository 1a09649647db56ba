//! Read your writes.

use std::time::Duration;

use via_backplane::{Offset, Status, Waited};
use via_inmem::InMemory;

use super::{PATIENCE, note, noted, notes, start, stop};

#[tokio::test]
async fn a_position_is_reached_on_every_pod() {
    let memory = InMemory::new();
    let (here, there) = (start(&memory), start(&memory));
    let position = notes(&here).append(noted("hello")).await.expect("memory takes every append");
    for engine in [&here, &there] {
        assert_eq!(notes(engine).wait_for(&position, PATIENCE).await, Waited::Reached);
        assert_eq!(notes(engine).read().as_deref(), Some(&vec!["hello".to_owned()]));
    }
    stop(&here).await;
    stop(&there).await;
}

#[tokio::test]
async fn a_position_is_recognized_long_after_it_was_passed() {
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    let first = notes.append(noted("first")).await.expect("memory takes every append");
    for _ in 0..5 {
        let batch = (0..500).map(|n| noted(&n.to_string()));
        let last = notes.append_batch(batch).await.expect("memory takes every append");
        assert_eq!(notes.wait_for(&last, PATIENCE).await, Waited::Reached);
    }
    assert_eq!(notes.wait_for(&first, PATIENCE).await, Waited::Reached);
    let mut other = first;
    other.cursor.id.0[0] ^= 1;
    assert_eq!(notes.wait_for(&other, PATIENCE).await, Waited::EpochChanged, "another record stands there");
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn waiting_for_what_never_comes_times_out() {
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    let mut position = notes.append(noted("here")).await.expect("memory takes every append");
    position.cursor.offset = Offset(position.cursor.offset.0 + 1);
    assert_eq!(notes.wait_for(&position, Duration::from_secs(1)).await, Waited::TimedOut);
    stop(&engine).await;
}

#[tokio::test]
async fn a_late_pod_catches_up_before_it_answers() {
    let memory = InMemory::new();
    let early = start(&memory);
    for n in 0..1_000 {
        notes(&early).append(noted(&n.to_string())).await.expect("memory takes every append");
    }
    let late = start(&memory);
    let notes = notes(&late);
    assert!(notes.read().is_none(), "nothing is served before the records at the start are folded");
    assert_eq!(notes.status(), Status::Cold);
    assert_eq!(notes.loaded().await.len(), 1_000);
    assert_eq!(notes.status(), Status::Live);
    assert!(late.health().catching_up.is_empty());
    stop(&early).await;
    stop(&late).await;
}

#[tokio::test]
async fn an_instance_nobody_wrote_to_reads_as_the_default() {
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    note(&notes, "elsewhere").await;
    let empty = notes.instance("empty").expect("a valid name");
    assert_eq!(*empty.loaded().await, Vec::<String>::new());
    stop(&engine).await;
}
