//! What stops a key, and what does not.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use via_backplane::{
    AppendOptions, Backplane, Engine, Event, Events, Fold, HaltReason, Recorded, Status, Waited,
    fault::{Faulty, Kind, Link, Plan},
};
use via_inmem::InMemory;

use super::{PATIENCE, append_raw, halted, note, noted, notes, record, start, stop, until};

#[tokio::test]
async fn a_panicking_fold_halts_its_key_at_the_last_good_value() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let notes = notes(&engine);
    let sibling = notes.instance("sibling").expect("a valid name");
    note(&notes, "one").await;
    note(&notes, "two").await;
    let bad = notes.append(noted("panic")).await.expect("memory takes every append");
    assert_eq!(notes.wait_for(&bad, PATIENCE).await, Waited::Halted);
    until(&notes, |notes| *notes == ["one", "two"]).await;
    let Status::Halted(halt) = notes.status() else { panic!("{:?}", notes.status()) };
    assert_eq!(halt.at, bad.cursor.offset);
    assert!(
        matches!(&halt.reason, HaltReason::Panicked { message } if message.contains("a fold of")),
        "{:?}",
        halt.reason
    );

    // Later records of the key are not folded past the problem; its siblings go on.
    let later = notes.append(noted("three")).await.expect("memory takes every append");
    assert_eq!(notes.wait_for(&later, PATIENCE).await, Waited::Halted);
    note(&sibling, "unharmed").await;
    assert_eq!(*notes.loaded().await, ["one", "two"]);
    assert_eq!(engine.health().halted.len(), 1);
    stop(&engine).await;
}

#[tokio::test]
async fn a_panic_within_a_batch_keeps_what_came_before_it() {
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    let held = notes.loaded().await;
    let batch = ["one", "two", "panic", "four"].map(noted);
    let position = notes.append_batch(batch).await.expect("memory takes every append");
    assert_eq!(notes.wait_for(&position, PATIENCE).await, Waited::Halted);
    until(&notes, |notes| *notes == ["one", "two"]).await;
    assert_eq!(held.len(), 0, "a value that was held before the panic is still what it was");
    stop(&engine).await;
}

/// Reading the log takes its time, so that what is undone is not rebuilt at once.
fn start_far_away() -> Engine {
    let plan = Plan::seeded(1).odds(Kind::Delay, 1.0);
    Engine::start(Arc::new(Faulty::new(Arc::new(InMemory::new()), plan, &Link::new())))
}

#[tokio::test(start_paused = true)]
async fn what_was_folded_before_a_panic_is_reached_only_once_it_is_read() {
    for readers in 0..3 {
        let engine = start_far_away();
        let notes = notes(&engine);
        // No reader: folded in place. One: into the second copy. Two: the batch waits for a third one.
        let mut held = Vec::new();
        for text in ["first", "second"].into_iter().take(readers) {
            held.push(notes.loaded().await);
            note(&notes, text).await;
        }
        held.push(notes.loaded().await);
        held.drain(..usize::from(readers == 0));
        let batch = ["good", "panic"].map(|text| (notes.clone(), noted(text)));
        let positions = Events::append_across(batch, AppendOptions::default()).await.expect("it is delayed");
        assert_eq!(notes.wait_for(&positions[0], PATIENCE).await, Waited::Reached);
        let last = notes.read().and_then(|notes| notes.last().cloned());
        assert_eq!(last.as_deref(), Some("good"), "what is reached is read ({readers} held)");
        assert_eq!(notes.wait_for(&positions[1], PATIENCE).await, Waited::Halted);
        stop(&engine).await;
    }
}

#[tokio::test]
async fn a_panic_halts_every_pod_at_the_same_record() {
    let memory = InMemory::new();
    let (first, second) = (start(&memory), start(&memory));
    let bad =
        notes(&first).append_batch(["one", "panic"].map(noted)).await.expect("memory takes every append");
    for engine in [&first, &second] {
        let notes = notes(engine);
        assert_eq!(notes.wait_for(&bad, PATIENCE).await, Waited::Halted);
        until(&notes, |notes| *notes == ["one"]).await;
        assert!(matches!(notes.status(), Status::Halted(halt) if halt.at == bad.cursor.offset));
    }
    stop(&first).await;
    stop(&second).await;
}

#[tokio::test]
async fn a_newer_version_halts_and_names_it() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let notes = notes(&engine);
    note(&notes, "one").await;
    let newer = append_raw(&memory, notes.key(), record("test.noted", 3, b"whatever it is by then")).await;
    let halt = halted(&notes).await;
    assert_eq!(halt.at, newer);
    assert_eq!(halt.reason, HaltReason::NewerVersion { name: "test.noted".into(), version: 3 });
    assert_eq!(*notes.loaded().await, ["one"], "the last good value is served");
    stop(&engine).await;
}

#[tokio::test]
async fn an_unknown_event_halts_and_names_it() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let notes = notes(&engine);
    append_raw(&memory, notes.key(), record("test.other", 1, b"")).await;
    let halt = halted(&notes).await;
    assert_eq!(halt.reason, HaltReason::UnknownEvent { name: "test.other".into() });
    stop(&engine).await;
}

#[tokio::test]
async fn undecodable_records_are_skipped_and_listed() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let notes = notes(&engine);
    note(&notes, "one").await;
    let garbage = append_raw(&memory, notes.key(), &b"\xff\xff not an envelope"[..]).await;
    let empty = append_raw(&memory, notes.key(), &b""[..]).await;
    let payload = append_raw(&memory, notes.key(), record("test.noted", 2, b"\xc1")).await;
    let no_upcaster = append_raw(&memory, notes.key(), record("test.noted", 1, b"\x80")).await;
    note(&notes, "two").await;
    assert_eq!(*notes.loaded().await, ["one", "two"]);
    assert_eq!(notes.status(), Status::Live);
    let skipped: Vec<_> = notes.undecodable().into_iter().map(|(_, offset)| offset).collect();
    assert_eq!(skipped, [garbage, empty, payload, no_upcaster]);
    stop(&engine).await;
}

#[derive(Serialize, Event)]
#[event(name = "test.picky")]
struct Picky(u8);

/// A decoder of the user's own, with a mistake in it.
impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(from)?;
        assert!(number != 13, "thirteen");
        Ok(Self(number))
    }
}

impl Fold<Vec<u8>> for Picky {
    fn fold(self, numbers: &mut Vec<u8>, _at: &Recorded) {
        assert!(self.0 != 66, "a fold that panics");
        numbers.push(self.0);
    }
}

#[tokio::test]
async fn a_decoder_that_panics_makes_an_undecodable_record_and_no_more() {
    let engine = start(&InMemory::new());
    let numbers = engine.events::<Picky, Vec<u8>>("numbers").expect("a valid declaration");
    let last = numbers.append_batch([1, 13, 2].map(Picky)).await.expect("memory takes every append");
    assert_eq!(numbers.wait_for(&last, PATIENCE).await, Waited::Reached);
    assert_eq!(*numbers.loaded().await, [1, 2]);
    let skipped: Vec<_> = numbers.undecodable().into_iter().map(|(_, offset)| offset.0).collect();
    assert_eq!(skipped, [last.cursor.offset.0 - 1]);
    // Nor does it disturb a value that is caught up with, or folded anew.
    let held = numbers.loaded().await;
    let last = numbers.append_batch([13, 3, 13, 13, 4, 66].map(Picky)).await.expect("memory takes it");
    assert_eq!(numbers.wait_for(&last, PATIENCE).await, Waited::Halted);
    until(&numbers, |numbers| *numbers == [1, 2, 3, 4]).await;
    assert_eq!((&*held, numbers.undecodable().len()), (&vec![1, 2], 4));
    stop(&engine).await;
}

#[tokio::test]
async fn a_cold_start_behind_a_compaction_halts_instead_of_truncating() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let notes_here = notes(&engine);
    let sibling = notes_here.instance("sibling").expect("a valid name");
    note(&sibling, "whole").await;
    for text in ["one", "two", "three"] {
        note(&notes_here, text).await;
    }
    let head = notes_here.covered().offset;
    memory
        .compactor()
        .expect("memory compacts")
        .compact(notes_here.key(), head)
        .await
        .expect("memory compacts");
    let late = start(&memory);
    let notes_there = notes(&late);
    let halt = halted(&notes_there).await;
    assert_eq!(halt.reason, HaltReason::Compacted { floor: head });
    assert!(notes_there.read().is_none(), "no state is invented");
    let sibling_there = notes_there.instance("sibling").expect("a valid name");
    until(&sibling_there, |notes| *notes == ["whole"]).await;
    // The pod that had folded everything before loses nothing.
    note(&notes_here, "four").await;
    assert_eq!(*notes_here.loaded().await, ["one", "two", "three", "four"]);
    stop(&engine).await;
    stop(&late).await;
}

#[tokio::test(start_paused = true)]
async fn a_value_that_a_panic_tore_is_never_read() {
    let link = Link::new();
    // Every call is delayed, so there is a while between the panic and the value that is folded anew.
    let slow = Plan::seeded(1).odds(Kind::Delay, 1.0);
    let engine = Engine::start(Arc::new(Faulty::new(Arc::new(InMemory::new()), slow, &link)));
    let notes = notes(&engine);
    note(&notes, "one").await;
    notes.append(noted("panic")).await.expect("it is only delayed");
    let mut changes = notes.changes();
    let mut gaps = 0;
    let rebuilt = async {
        loop {
            let halted = matches!(notes.status(), Status::Halted(_));
            match notes.read() {
                Some(view) => {
                    assert_eq!(*view, ["one"], "a torn value was served");
                    if halted {
                        return;
                    }
                }
                None => gaps += 1,
            }
            assert!(changes.changed().await, "the engine lives");
        }
    };
    tokio::time::timeout(PATIENCE, rebuilt).await.expect("the value is folded anew");
    assert!(gaps > 0, "there was a while without a good value, and nothing was served in it");
    stop(&engine).await;
}
