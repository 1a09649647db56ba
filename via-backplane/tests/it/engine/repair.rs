//! Values that are folded anew, and compared with what they should be.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use ::metrics::set_default_local_recorder;
use serde::{Deserialize, Serialize};
use via_backplane::{
    Engine, ErrorKind, Event, Events, Fold, FoldedFrom, HaltReason, Key, Offset, Party, Recorded,
    RefoldError, Status, VerifyError, Waited,
};
use via_inmem::InMemory;

use super::{
    PATIENCE, append_raw,
    compaction::{compacting, floor, note_until_dropped, silent},
    halted,
    measures::Meter,
    note, notes, record,
    snapshots::{lines, note_all, saving, written},
    start, stop,
};

#[derive(Serialize, Deserialize, Event)]
#[event(name = "test.drawn")]
pub(super) struct Drawn {
    pub(super) fails: bool,
}

/// What a fold that keeps no contract reads.
static DRAWS: AtomicU64 = AtomicU64::new(0);
static IS_BROKEN: AtomicBool = AtomicBool::new(true);

impl Fold<Vec<u64>> for Drawn {
    fn fold(self, draws: &mut Vec<u64>, _at: &Recorded) {
        assert!(!(self.fails && IS_BROKEN.load(Ordering::SeqCst)), "it is broken");
        draws.push(if self.fails { 0 } else { DRAWS.fetch_add(1, Ordering::SeqCst) });
    }
}

async fn draw(state: &Events<Drawn, Vec<u64>>) {
    let position = state.append(Drawn { fails: false }).await.expect("memory takes every append");
    assert_eq!(state.wait_for(&position, PATIENCE).await, Waited::Reached);
}

fn drawn(engine: &Engine) -> Events<Drawn, Vec<u64>> {
    engine.events("notes").expect("a valid declaration")
}

#[tokio::test]
async fn a_value_is_folded_anew_from_its_first_record_while_it_goes_on() {
    let memory = InMemory::new();
    let engine = saving(&memory).start();
    let here = notes(&engine);
    note_all(&here, 0..20).await;
    let mut seen = 20;
    let going_on = async {
        for n in 20..60 {
            note(&here, &n.to_string()).await;
            let shown = here.read().expect("it is served all the time").len();
            assert!(shown >= seen, "{shown} after {seen}");
            seen = shown;
        }
    };
    let (refolded, ()) = tokio::join!(engine.refold(here.key()), going_on);
    let refolded = refolded.expect("the fold is sound");
    assert_eq!(refolded.from, FoldedFrom::Genesis);
    assert!(refolded.records >= 20, "{refolded:?}");
    assert_eq!(*here.loaded().await, lines(0..60));
    assert_eq!(here.status(), Status::Live);
    stop(&engine).await;
}

#[tokio::test]
async fn a_compacted_key_is_folded_anew_from_the_oldest_snapshot() {
    let memory = silent();
    let engine = compacting(Arc::new(memory.clone())).start();
    let here = notes(&engine);
    let written = note_until_dropped(&memory, &here, Offset::BEGIN).await;
    let refolded = engine.refold(here.key()).await.expect("the fold is sound");
    let FoldedFrom::Snapshot { covered } = refolded.from else { panic!("{refolded:?}") };
    assert!(covered.0 + 1 >= floor(&memory, &here).await.0, "{covered}");
    note(&here, &written.to_string()).await;
    assert_eq!(*here.loaded().await, lines(0..written + 1));
    stop(&engine).await;
}

#[tokio::test]
async fn a_halted_key_goes_on_after_a_refold_that_gets_past_it() {
    let engine = start(&InMemory::new());
    let here = drawn(&engine);
    draw(&here).await;
    here.append(Drawn { fails: true }).await.expect("memory takes every append");
    halted(&here).await;
    let refused = engine.refold(here.key()).await.expect_err("it is still broken");
    assert!(
        matches!(&refused, RefoldError::Halted { halt } if matches!(halt.reason, HaltReason::Panicked { .. })),
        "{refused:?}"
    );
    assert!(matches!(here.status(), Status::Halted(_)), "{:?}", here.status());
    IS_BROKEN.store(false, Ordering::SeqCst);
    engine.refold(here.key()).await.expect("it is repaired");
    assert_eq!(here.status(), Status::Live);
    draw(&here).await;
    assert_eq!(here.loaded().await.len(), 3);
    assert!(engine.health().halted.is_empty());
    stop(&engine).await;
}

#[tokio::test]
async fn a_refold_that_cannot_go_as_far_changes_nothing() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let here = notes(&engine);
    note(&here, "0").await;
    append_raw(&memory, here.key(), record("test.noted", 9, b"")).await;
    halted(&here).await;
    let refused = engine.refold(here.key()).await.expect_err("the record is still there");
    assert!(matches!(refused, RefoldError::Halted { .. }), "{refused:?}");
    assert_eq!(*here.loaded().await, lines(0..1));
    let elsewhere = Key::of(&via_backplane::Family::new("elsewhere").expect("a valid name"));
    let refused = engine.refold(&elsewhere).await.expect_err("nobody declared it");
    assert!(matches!(refused, RefoldError::UnknownFamily { .. }), "{refused:?}");
    stop(&engine).await;
}

#[tokio::test]
async fn what_agrees_is_verified_from_where_the_log_begins() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = silent();
    let engine = saving(&memory).keep_history().start();
    let here = notes(&engine);
    note_all(&here, 0..6).await;
    written(&meter, 1).await;
    note_all(&here, 6..12).await;
    written(&meter, 2).await;
    let verified = engine.verify(here.key()).await.expect("it can be compared");
    assert!(verified.agrees(), "{verified:?}");
    assert_eq!((verified.from, verified.key_head), (FoldedFrom::Genesis, Offset(12)));
    assert_eq!(verified.snapshots.len(), 2, "{verified:?}");
    let nothing = here.instance("nothing").expect("a valid name");
    let verified = engine.verify(nothing.key()).await.expect("it can be compared");
    assert!(verified.agrees() && verified.key_head == Offset::BEGIN, "{verified:?}");
    let elsewhere = Key::of(&via_backplane::Family::new("elsewhere").expect("a valid name"));
    let refused = engine.verify(&elsewhere).await.expect_err("nobody declared it");
    assert!(matches!(refused, VerifyError::UnknownFamily { .. }), "{refused:?}");
    stop(&engine).await;

    let engine = compacting(Arc::new(memory.clone())).start();
    let here = notes(&engine);
    here.loaded().await;
    note_until_dropped(&memory, &here, Offset::BEGIN).await;
    let verified = engine.verify(here.key()).await.expect("it can be compared");
    assert!(verified.agrees(), "{verified:?}");
    assert!(matches!(verified.from, FoldedFrom::Snapshot { .. }), "{verified:?}");
    stop(&engine).await;
}

#[tokio::test]
async fn a_fold_that_depends_on_something_else_is_found_while_it_folds() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = Engine::builder(Arc::new(memory.clone())).with_fold_verify().start();
    let here = drawn(&engine);
    here.loaded().await;
    draw(&here).await;
    let divergences = meter.count("via_fold_divergence_total{family=notes}");
    assert_eq!(divergences, 1, "the first record already gives two values");
    let manifest = via_backplane::internal_cell(&["snapshots", "notes", "plain"]);
    let held = async {
        let store = via_backplane::Backplane::store(&memory);
        while store.load(&manifest).await.expect("memory answers").is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, held).await.expect("the key is held");
    stop(&engine).await;
}

#[tokio::test]
async fn a_sound_fold_is_verified_without_a_word() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = saving(&memory).with_fold_verify().start();
    let here = notes(&engine);
    // Readers that hold values make the projector copy, catch up and wait.
    let mut held = Vec::new();
    for n in 0..40 {
        note(&here, &n.to_string()).await;
        held.push(here.loaded().await);
    }
    engine.refold(here.key()).await.expect("the fold is sound");
    note_all(&here, 40..45).await;
    assert_eq!(*here.loaded().await, lines(0..45));
    assert_eq!(meter.count("via_fold_divergence_total{family=notes}"), 0);
    stop(&engine).await;
}

#[derive(Serialize, Deserialize, Event)]
#[event(name = "test.tallied")]
pub(super) struct Tallied(pub(super) String);

/// A state that is written in another order by each process, and by each copy.
pub(super) type Tallies = HashMap<String, u64>;

impl Fold<Tallies> for Tallied {
    fn fold(self, tallies: &mut Tallies, _at: &Recorded) {
        *tallies.entry(self.0).or_default() += 1;
    }
}

#[tokio::test]
async fn a_state_without_an_order_of_its_own_is_never_called_diverged() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engines = [saving(&memory).with_fold_verify().start(), saving(&memory).with_fold_verify().start()];
    let tallies = |engine: &Engine| engine.events::<Tallied, Tallies>("notes").expect("a valid declaration");
    let [here, there] = [tallies(&engines[0]), tallies(&engines[1])];
    there.loaded().await;
    for n in 0..60 {
        let position = here.append(Tallied((n % 20).to_string())).await.expect("memory takes every append");
        for pod in [&here, &there] {
            assert_eq!(pod.wait_for(&position, PATIENCE).await, Waited::Reached);
        }
    }
    written(&meter, 1).await;
    assert_eq!(meter.count("via_fold_divergence_total{family=notes}"), 0);
    assert_eq!(*here.loaded().await, *there.loaded().await);
    let refused = engines[0].verify(here.key()).await.expect_err("digests of it say nothing");
    assert!(matches!(refused, VerifyError::Unordered), "{refused:?}");
    for engine in &engines {
        stop(engine).await;
    }
}

#[tokio::test]
async fn a_value_that_no_fold_gives_again_is_found_counted_and_held() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = silent();
    let engine = compacting(Arc::new(memory.clone())).keep_history().start();
    let here = drawn(&engine);
    for _ in 0..5 {
        draw(&here).await;
    }
    written(&meter, 1).await;
    for _ in 5..9 {
        draw(&here).await;
    }
    written(&meter, 2).await;
    let verified = engine.verify(here.key()).await.expect("it can be compared");
    let parted: Vec<_> = verified.parted.iter().map(|parted| (parted.who, parted.by)).collect();
    assert_eq!(parted.last(), Some(&(Party::ThisPod, Offset(9))), "{verified:?}");
    assert!(parted.iter().any(|(who, _)| *who == Party::Snapshot), "{verified:?}");
    assert!(verified.parted.iter().all(|parted| parted.after < parted.by), "{verified:?}");
    assert!(meter.count("via_fold_divergence_total{family=notes}") >= 1);
    stop(&engine).await;
    // The key is held: whoever is right, nothing is dropped any more.
    let engine = compacting(Arc::new(memory.clone())).start();
    let here = drawn(&engine);
    for _ in 0..20 {
        draw(&here).await;
    }
    let sibling = here.instance("sibling").expect("a valid name");
    let compactor = via_backplane::Backplane::compactor(&memory).expect("memory compacts");
    let floor_of = async |key: &Key| compactor.floor(key).await.expect("memory answers");
    let dropped = async {
        while floor_of(sibling.key()).await == Offset::BEGIN {
            draw(&sibling).await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.expect("nothing holds the sibling");
    assert_eq!(floor_of(here.key()).await, Offset::BEGIN);

    // Until somebody says that what its snapshots have is right.
    engine.accept_divergence(here.key()).await.expect("memory answers");
    engine.accept_divergence(here.key()).await.expect("it may be said twice");
    let dropped = async {
        while floor_of(here.key()).await == Offset::BEGIN {
            draw(&here).await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.expect("nothing holds the key any more");
    engine.backplane().close().await;
    let failed = engine.accept_divergence(here.key()).await.expect_err("the backplane is closed");
    assert_eq!(failed.kind(), ErrorKind::Closed);
    stop(&engine).await;
}
