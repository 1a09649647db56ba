//! Reads hold a value still; no fold pays for that.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use via_backplane::{Event, Events, Fold, HaltReason, Recorded, Status, View, Waited};
use via_inmem::InMemory;

use super::{PATIENCE, measures::Meter, note, notes, start, stop};

/// Clones of every [`Counted`] in this process.
static CLONES: AtomicUsize = AtomicUsize::new(0);

#[derive(Default, Debug, PartialEq, Serialize, Deserialize)]
struct Counted {
    sum: u64,
    folds: u64,
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        CLONES.fetch_add(1, Ordering::SeqCst);
        Self { sum: self.sum, folds: self.folds }
    }
}

#[derive(Serialize, Deserialize, Event)]
#[event(name = "test.counted")]
struct Count(u64);

impl Fold<Counted> for Count {
    fn fold(self, counted: &mut Counted, _at: &Recorded) {
        counted.sum += self.0;
        counted.folds += 1;
    }
}

async fn count(counted: &Events<Count, Counted>, by: u64) {
    let position = counted.append(Count(by)).await.expect("memory takes every append");
    assert_eq!(counted.wait_for(&position, PATIENCE).await, Waited::Reached);
}

#[tokio::test]
async fn a_value_that_is_held_does_not_change() {
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    note(&notes, "one").await;
    let held = notes.loaded().await;
    note(&notes, "two").await;
    assert_eq!(*held, ["one"]);
    assert_eq!(*notes.loaded().await, ["one", "two"]);
    stop(&engine).await;
}

/// One test counts all clones, so that no other one disturbs the count.
#[tokio::test]
async fn a_state_is_copied_per_held_value_and_never_per_event() {
    let engine = start(&InMemory::new());
    let counted = engine.events::<Count, Counted>("counted").expect("a valid declaration");
    for _ in 0..500 {
        count(&counted, 1).await;
        counted.loaded().await;
    }
    assert_eq!(CLONES.load(Ordering::SeqCst), 0, "nobody held a value while it was folded");

    // Two copies take turns while there is always exactly one reader.
    let mut held = counted.loaded().await;
    for _ in 0..500 {
        count(&counted, 1).await;
        held = counted.loaded().await;
    }
    assert_eq!(CLONES.load(Ordering::SeqCst), 1, "the second copy was made once");
    drop(held);

    // Readers that keep what they read need a copy each, whatever the number of events.
    let before = CLONES.load(Ordering::SeqCst);
    let mut kept = Vec::new();
    for _ in 0..5 {
        kept.push(counted.loaded().await);
        for _ in 0..100 {
            count(&counted, 1).await;
        }
    }
    let copies = CLONES.load(Ordering::SeqCst) - before;
    assert!(copies <= 5, "{copies} copies for five held values");
    let sums: Vec<_> = kept.iter().map(|view| view.sum).collect();
    assert_eq!(sums, [1_000, 1_100, 1_200, 1_300, 1_400]);
    assert_eq!(*counted.loaded().await, Counted { sum: 1_500, folds: 1_500 });
    stop(&engine).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever readers hold and for how long, every view is the pure fold of a prefix of the log.
    #[test]
    fn every_view_is_a_prefix_of_the_log(steps in prop::collection::vec((0_u8..4, 1_usize..6), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let engine = start(&InMemory::new());
            let notes = notes(&engine);
            let mut history: Vec<String> = Vec::new();
            let mut held: Vec<(usize, View<Vec<String>>)> = Vec::new();
            notes.loaded().await;
            for (step, size) in steps {
                match step {
                    0 | 1 => {
                        let texts: Vec<_> = (0..size).map(|n| format!("{}", history.len() + n)).collect();
                        history.extend(texts.iter().cloned());
                        let events = texts.iter().map(|text| super::noted(text));
                        let position = notes.append_batch(events).await.expect("memory takes every append");
                        if step == 0 {
                            assert_eq!(notes.wait_for(&position, PATIENCE).await, Waited::Reached);
                        }
                    }
                    2 => {
                        let view = notes.loaded().await;
                        held.push((view.len(), view));
                    }
                    _ => held.truncate(held.len().saturating_sub(size)),
                }
                for (len, view) in &held {
                    assert_eq!(view[..], history[..*len], "a held view changed");
                }
            }
            super::until(&notes, |notes| *notes == history).await;
            stop(&engine).await;
        });
    }
}

/// A state that cannot be copied once it holds a 13.
#[derive(Default, Debug, Serialize, Deserialize)]
struct Sealed(Vec<u64>);

impl Clone for Sealed {
    fn clone(&self) -> Self {
        assert!(!self.0.contains(&13), "not to be copied");
        Self(self.0.clone())
    }
}

#[derive(Serialize, Deserialize, Event)]
#[event(name = "test.sealed")]
struct Seal(u64);

impl Fold<Sealed> for Seal {
    fn fold(self, sealed: &mut Sealed, _at: &Recorded) {
        sealed.0.push(self.0);
    }
}

#[tokio::test]
async fn a_state_whose_clone_panics_halts_its_key_and_no_other() {
    let engine = start(&InMemory::new());
    let sealed = engine.events::<Seal, Sealed>("sealed").expect("a valid declaration");
    let sibling = sealed.instance("sibling").expect("a valid name");
    let append = |to: &Events<Seal, Sealed>, number| {
        let to = to.clone();
        async move { to.append(Seal(number)).await.expect("memory takes every append") }
    };
    let folded = append(&sealed, 13).await;
    assert_eq!(sealed.wait_for(&folded, PATIENCE).await, Waited::Reached);
    let held = sealed.loaded().await;
    let halted = append(&sealed, 14).await;
    assert_eq!(sealed.wait_for(&halted, PATIENCE).await, Waited::Halted);
    let Status::Halted(halt) = sealed.status() else { panic!("{:?}", sealed.status()) };
    assert_eq!(halt.at, halted.cursor.offset);
    assert!(
        matches!(&halt.reason, HaltReason::Panicked { message } if message.contains("not to be copied")),
        "{halt:?}"
    );
    assert_eq!(sealed.wait_for(&folded, PATIENCE).await, Waited::Reached);
    assert_eq!((&held.0, &sealed.loaded().await.0), (&vec![13], &vec![13]), "the last good value is served");
    for number in [13, 14] {
        let position = append(&sibling, number).await;
        assert_eq!(sibling.wait_for(&position, PATIENCE).await, Waited::Reached);
    }
    assert_eq!(sibling.loaded().await.0, [13, 14]);
    stop(&engine).await;
}

/// Makes two copies, lets one of them lag behind what `batches` append, and makes readers hold again.
async fn a_spare_that_lags(event: impl Fn() -> super::Noted, batches: usize, size: usize) {
    let meter = Meter::default();
    let _here = metrics::set_default_local_recorder(&meter);
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    let held = notes.loaded().await;
    note(&notes, "the first copy is held").await;
    drop(held);
    let mut wanted = 1;
    for _ in 0..batches {
        let batch = std::iter::repeat_with(&event).take(size);
        let position = notes.append_batch(batch).await.expect("memory takes every append");
        assert_eq!(notes.wait_for(&position, PATIENCE).await, Waited::Reached);
        wanted += size;
    }
    let mut held = Vec::new();
    for round in 0..4 {
        held.push((wanted, notes.loaded().await));
        note(&notes, &format!("round {round}")).await;
        wanted += 1;
        assert_eq!(notes.loaded().await.len(), wanted);
    }
    for (len, view) in held {
        assert_eq!(view.len(), len, "a held value changed");
    }
    let copies = meter.count("via_fold_copies_total{family=notes}");
    assert_eq!(copies, 1 + 4, "the spare was not kept, so the first of the four readers needs a copy, too");
    stop(&engine).await;
}

#[tokio::test]
async fn a_spare_that_lags_by_too_many_records_is_given_up_and_replaced() {
    a_spare_that_lags(|| super::noted("x"), 20, 1_000).await;
}

#[tokio::test]
async fn a_spare_that_lags_by_too_many_bytes_is_given_up_and_replaced() {
    let text = "x".repeat(100_000);
    a_spare_that_lags(|| super::noted(&text), 10, 10).await;
}

#[tokio::test]
async fn spares_that_lag_too_much_together_are_given_up_together() {
    let meter = Meter::default();
    let _here = metrics::set_default_local_recorder(&meter);
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    let rooms: Vec<_> = (0..80).map(|n| notes.instance(n.to_string()).expect("a valid name")).collect();
    let copies = || meter.count("via_fold_copies_total{family=notes}");
    for room in &rooms {
        let held = room.loaded().await;
        note(room, "the first copy is held").await;
        drop(held);
    }
    assert_eq!(copies(), 80, "every room has a spare");
    // One mebibyte each: far from what one key's spare may lag, but 64 of them are too much.
    let half = "x".repeat(512 << 10);
    for room in &rooms[..63] {
        note(room, &half).await;
        note(room, &half).await;
    }
    let held = rooms[0].loaded().await;
    note(&rooms[0], "the value is held again").await;
    assert_eq!((copies(), held.len()), (80, 3), "so much may be kept");
    drop(held);
    for room in &rooms {
        note(room, &half).await;
        note(room, &half).await;
    }
    for room in &rooms {
        let held = room.loaded().await;
        note(room, "the value is held again").await;
        assert_eq!(room.loaded().await.len(), held.len() + 1);
    }
    assert_eq!(copies(), 80 + 80, "no spare was kept");
    stop(&engine).await;
}
