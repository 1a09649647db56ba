//! Snapshots: written when they are due, and where a load begins.

use std::{sync::Arc, time::Duration};

use ::metrics::set_default_local_recorder;
use serde::{Deserialize, Serialize};
use via_backplane::{
    Backplane, Builder, CellKey, CellSelector, Change, Engine, Event, Events, Expected, Fold, HaltReason,
    Offset, Recorded, Status, Ttl, Waited,
    fault::{Faulty, Link, Plan},
    state,
};
use via_inmem::InMemory;

use super::{PATIENCE, halted, measures::Meter, note, noted, notes, start, stop, until};

/// An engine that writes a snapshot of every four records, at once.
pub(super) fn saving(memory: &InMemory) -> Builder {
    Engine::builder(Arc::new(memory.clone())).with_snapshot_interval(4).with_snapshot_pause(Duration::ZERO)
}

/// The manifests there are, in order.
async fn manifests(memory: &InMemory) -> Vec<CellKey> {
    use futures_util::StreamExt as _;

    let below = CellSelector::Below(CellKey::new(["via", "snapshots"]).expect("a valid path"));
    let mut watch = memory.store().watch(&below).await.expect("memory watches");
    let mut found = Vec::new();
    while let Some(Ok(change)) = watch.next().await {
        match change {
            Change::Put { key, .. } => found.push(key),
            Change::End => return found,
            _ => {}
        }
    }
    unreachable!("a watch of the present ends it")
}

/// Waits until some key has a manifest.
async fn until_saved(memory: &InMemory) {
    use futures_util::StreamExt as _;

    let below = CellSelector::Below(CellKey::new(["via", "snapshots"]).expect("a valid path"));
    let watch = memory.store().watch(&below).await.expect("memory watches");
    let put = watch.filter(|change| std::future::ready(matches!(change, Ok(Change::Put { .. }))));
    let saved = std::pin::pin!(put).next().await;
    assert!(saved.is_some(), "the watch goes on");
}

/// Waits until this many snapshots were written here.
pub(super) async fn written(meter: &Meter, snapshots: u64) {
    let reached = async {
        while meter.count("via_snapshot_written_total{family=notes}") < snapshots {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("the snapshots are written");
}

pub(super) async fn note_all(notes: &Events<super::Noted, super::Notes>, texts: std::ops::Range<usize>) {
    for n in texts {
        note(notes, &n.to_string()).await;
    }
}

pub(super) fn lines(texts: std::ops::Range<usize>) -> Vec<String> {
    texts.map(|n| n.to_string()).collect()
}

/// Drops what the first snapshot of a key has for certain.
async fn compact(memory: &InMemory, notes: &Events<super::Noted, super::Notes>) {
    let fourth = Offset(4);
    memory.compactor().expect("memory compacts").compact(notes.key(), fourth).await.expect("memory compacts");
}

#[tokio::test]
async fn a_snapshot_that_is_due_is_written_when_the_engine_stops() {
    let memory = InMemory::new();
    let resting = || saving(&memory).with_snapshot_pause(Duration::from_secs(3_600)).start();
    let engine = resting();
    note_all(&notes(&engine), 0..3).await;
    stop(&engine).await;
    assert!(manifests(&memory).await.is_empty(), "none is due");

    let engine = resting();
    note_all(&notes(&engine), 3..9).await;
    assert!(manifests(&memory).await.is_empty(), "it rests");
    stop(&engine).await;
    assert_eq!(manifests(&memory).await.len(), 1);
    let engine = start(&memory);
    let late = notes(&engine);
    compact(&memory, &late).await;
    assert_eq!(*late.loaded().await, lines(0..9), "it needs no record that the snapshot has");
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_stops_waits_for_a_snapshot_no_longer_than_it_may() {
    let memory = InMemory::new();
    let backplane = Faulty::new(Arc::new(memory.clone()), Plan::none(), &Link::new());
    let faults = backplane.faults();
    let engine = Engine::builder(Arc::new(backplane))
        .with_snapshot_interval(4)
        .with_snapshot_pause(Duration::from_secs(3_600))
        .start();
    note_all(&notes(&engine), 0..9).await;
    // From here on no call is answered, and the next ping has not noticed yet.
    faults.pause();
    let begun = tokio::time::Instant::now();
    let stopped = engine.shutdown(Duration::from_millis(200));
    tokio::time::timeout(PATIENCE, stopped).await.expect("it ends").expect("no task failed");
    assert_eq!(begun.elapsed().as_millis(), 200, "all of the grace is used, and no more");
    assert!(manifests(&memory).await.is_empty());
    assert_eq!(engine.supervisor().tasks(), 0, "{:?}", engine.supervisor().names());
}

#[tokio::test]
async fn a_load_begins_at_the_last_snapshot_and_folds_the_rest() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = saving(&memory).start();
    let early = notes(&engine);
    note_all(&early, 0..8).await;
    written(&meter, 1).await;
    stop(&engine).await;
    // What a snapshot covers is not needed any more.
    let snapshot = manifests(&memory).await;
    assert_eq!(snapshot.len(), 1, "{snapshot:?}");
    let engine = start(&memory);
    let late = notes(&engine);
    assert_eq!(*late.loaded().await, lines(0..8));
    note_all(&late, 8..10).await;
    assert_eq!(*late.loaded().await, lines(0..10));
    stop(&engine).await;
}

#[tokio::test]
async fn what_was_compacted_is_in_the_snapshot() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = saving(&memory).start();
    let early = notes(&engine);
    note_all(&early, 0..8).await;
    written(&meter, 1).await;
    let whole = (*early.loaded().await).clone();
    compact(&memory, &early).await;
    let late = start(&memory);
    assert_eq!(*notes(&late).loaded().await, whole);
    note(&notes(&late), "more").await;
    assert_eq!(notes(&late).loaded().await.len(), whole.len() + 1);
    stop(&engine).await;
    stop(&late).await;
}

#[tokio::test]
async fn a_damaged_snapshot_is_not_used_and_the_one_before_it_is() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::builder().max_cell(4_096).build();
    let engine = saving(&memory).start();
    let early = notes(&engine);
    // Too large for the manifest, so there are chunks to lose.
    for round in 1..=2 {
        for n in 0..4 {
            note(&early, &format!("{n}{}", "x".repeat(1_000))).await;
        }
        written(&meter, round).await;
    }
    let whole = (*early.loaded().await).clone();
    stop(&engine).await;
    let below = CellSelector::Below(CellKey::new(["via", "chunks"]).expect("a valid path"));
    let mut chunks = Vec::new();
    let mut watch = memory.store().watch(&below).await.expect("memory watches");
    while let Some(Ok(change)) = futures_util::StreamExt::next(&mut watch).await {
        match change {
            Change::Put { key, rev, .. } => chunks.push((key, rev)),
            Change::End => break,
            _ => {}
        }
    }
    drop(watch);
    assert!(chunks.len() >= 3, "{chunks:?}");
    let (last, rev) = chunks.last().expect("there are some");
    let torn = memory.store().cas(last, Expected::At(*rev), b"torn"[..].into(), Ttl::Forever).await;
    torn.expect("nobody else writes");
    let late = start(&memory);
    assert_eq!(*notes(&late).loaded().await, whole);
    assert_eq!(meter.count("via_snapshot_unusable_total{family=notes}"), 1);
    stop(&late).await;
}

#[tokio::test]
async fn a_snapshot_of_another_log_is_not_used() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = saving(&memory).start();
    let early = notes(&engine);
    note_all(&early, 0..2).await;
    let copy = memory.copy_log(early.key().family());
    note_all(&early, 2..8).await;
    written(&meter, 1).await;
    stop(&engine).await;
    let before = meter.count("via_snapshot_written_total{family=notes}");
    memory.restore_log(&copy);
    let engine = saving(&memory).start();
    let late = notes(&engine);
    assert_eq!(*late.loaded().await, lines(0..2), "the snapshot is ahead of the log that was put back");
    // The offsets are used again, past where the snapshot stands.
    for text in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        note(&late, text).await;
    }
    written(&meter, before + 1).await;
    stop(&engine).await;
    let engine = start(&memory);
    let again = notes(&engine);
    let wanted: Vec<_> = lines(0..2).into_iter().chain("abcdefgh".chars().map(String::from)).collect();
    assert_eq!(*again.loaded().await, wanted);
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_snapshot_of_another_log_claims_to_cover_is_not_believed() {
    // Where the snapshot says it is complete up to, the log has another record; or it had one, and no ceiling says why it is gone.
    for floor in [Offset(7), Offset(8)] {
        let memory = InMemory::builder().silent_compaction().build();
        let engine = saving(&memory).with_snapshot_pause(Duration::from_secs(1)).start();
        let early = notes(&engine);
        note_all(&early, 0..4).await;
        let copy = memory.copy_log(early.key().family());
        // The family goes on before the snapshot is written, so it is complete up to a record of another key.
        let sibling = early.instance("sibling").expect("a valid name");
        note_all(&sibling, 0..3).await;
        until_saved(&memory).await;
        stop(&engine).await;

        // The log is put back, and gets records of the key where the snapshot knows of none.
        memory.restore_log(&copy);
        let engine = start(&memory);
        let here = notes(&engine);
        note_all(&here, 4..10).await;
        memory
            .compactor()
            .expect("memory compacts")
            .compact(here.key(), floor)
            .await
            .expect("memory compacts");
        let late = start(&memory);
        assert_eq!(halted(&notes(&late)).await.reason, HaltReason::Compacted { floor });
        assert!(notes(&late).read().is_none(), "records are gone that the snapshot has not");
        stop(&engine).await;
        stop(&late).await;
    }
}

#[tokio::test]
async fn two_pods_write_one_row_of_snapshots() {
    let memory = InMemory::new();
    let (first, second) = (saving(&memory).start(), saving(&memory).start());
    let (here, there) = (notes(&first), notes(&second));
    for n in 0..40 {
        let writer = if n % 2 == 0 { &here } else { &there };
        note(writer, &n.to_string()).await;
    }
    until(&there, |notes| notes.len() == 40).await;
    until(&here, |notes| notes.len() == 40).await;
    stop(&first).await;
    stop(&second).await;
    let engine = start(&memory);
    assert_eq!(*notes(&engine).loaded().await, lines(0..40));
    stop(&engine).await;
}

#[tokio::test]
async fn a_pod_that_skipped_a_record_writes_no_snapshot() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = saving(&memory).start();
    let early = notes(&engine);
    note(&early, "before").await;
    super::append_raw(&memory, early.key(), &b"\xff not an envelope"[..]).await;
    note_all(&early, 0..20).await;
    let sibling = early.instance("sibling").expect("a valid name");
    note_all(&sibling, 0..8).await;
    written(&meter, 1).await;
    let found = manifests(&memory).await;
    let kept = stop(&engine);
    kept.await;
    assert!(meter.count("via_snapshot_written_total{family=notes}") <= 2, "only the sibling's: {found:?}");
    let late = start(&memory);
    let mut wanted = vec!["before".to_owned()];
    wanted.extend(lines(0..20));
    assert_eq!(*notes(&late).loaded().await, wanted);
    stop(&late).await;
}

mod first {
    use super::*;

    #[derive(Serialize, Deserialize, Event)]
    #[event(name = "test.counted")]
    pub(super) struct Counted(pub(super) u64);

    #[derive(Clone, Default, Serialize, Deserialize)]
    pub(super) struct Total(pub(super) u64);

    impl Fold<Total> for Counted {
        fn fold(self, total: &mut Total, _at: &Recorded) {
            total.0 += self.0;
        }
    }
}

mod second {
    use super::*;

    #[derive(Serialize, Deserialize, Event)]
    #[event(name = "test.counted")]
    pub(super) struct Counted(pub(super) u64);

    #[derive(Clone, Default, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Totals {
        pub(super) total: u64,
        pub(super) events: u64,
    }

    #[state(version = 2)]
    impl Fold<Totals> for Counted {
        fn fold(self, totals: &mut Totals, _at: &Recorded) {
            totals.total += self.0;
            totals.events += 1;
        }
    }
}

mod third {
    use super::*;

    #[derive(Serialize, Deserialize, Event)]
    #[event(name = "test.counted")]
    pub(super) struct Counted(pub(super) u64);

    #[derive(Clone, Default, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Totals {
        pub(super) total: u64,
        pub(super) since_then: u64,
    }

    impl From<first::Total> for Totals {
        fn from(first::Total(total): first::Total) -> Self {
            Self { total, since_then: 0 }
        }
    }

    #[state(version = 2, migrate(1 = first::Total))]
    impl Fold<Totals> for Counted {
        fn fold(self, totals: &mut Totals, _at: &Recorded) {
            totals.total += self.0;
            totals.since_then += 1;
        }
    }
}

/// Counts to ten in the first version, and waits for its snapshot.
async fn count_to_ten(memory: &InMemory, meter: &Meter) -> Events<first::Counted, first::Total> {
    let engine = saving(memory).start();
    let counted = engine.events::<first::Counted, first::Total>("notes").expect("a valid declaration");
    for n in 1..=10 {
        let position = counted.append(first::Counted(n)).await.expect("memory takes every append");
        assert_eq!(counted.wait_for(&position, PATIENCE).await, Waited::Reached);
    }
    written(meter, 1).await;
    stop(&engine).await;
    counted
}

#[tokio::test]
async fn a_changed_state_of_an_uncompacted_key_is_folded_anew() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    count_to_ten(&memory, &meter).await;
    let engine = start(&memory);
    let totals = engine.events::<second::Counted, second::Totals>("notes").expect("a valid declaration");
    assert_eq!(*totals.loaded().await, second::Totals { total: 55, events: 10 });
    stop(&engine).await;
}

#[tokio::test]
async fn a_compacted_key_whose_snapshot_nothing_migrates_halts_and_names_what_to_write() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let counted = count_to_ten(&memory, &meter).await;
    let compactor = memory.compactor().expect("memory compacts");
    compactor.compact(counted.key(), Offset(4)).await.expect("memory compacts");

    let engine = start(&memory);
    let totals = engine.events::<second::Counted, second::Totals>("notes").expect("a valid declaration");
    let halt = halted(&totals).await;
    let HaltReason::Unbridgeable { message } = &halt.reason else { panic!("{halt:?}") };
    for named in ["Totals", "version 1", "to 2", "migrate(1 = …)"] {
        assert!(message.contains(named), "`{named}` is not in: {message}");
    }
    assert_eq!(meter.count("via_snapshot_unbridgeable_halt_total{family=notes}"), 1);
    assert!(totals.read().is_none(), "no state is invented");
    stop(&engine).await;

    // A binary that migrates goes on.
    let engine = start(&memory);
    let totals = engine.events::<third::Counted, third::Totals>("notes").expect("a valid declaration");
    let loaded = totals.loaded().await;
    assert_eq!(loaded.total, 55);
    assert!(loaded.since_then < 10, "it began at a snapshot: {loaded:?}");
    assert_eq!(totals.status(), Status::Live);
    stop(&engine).await;
}

#[tokio::test]
async fn a_deploy_that_is_rolled_back_finds_the_snapshot_it_can_read() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    count_to_ten(&memory, &meter).await;
    let before = meter.count("via_snapshot_written_total{family=notes}");
    let engine = saving(&memory).start();
    let totals = engine.events::<third::Counted, third::Totals>("notes").expect("a valid declaration");
    // Twice, so that neither the current one nor the one before it is of the version that comes back.
    for round in 1..=2 {
        for n in 1..=20 {
            let position = totals.append(third::Counted(n)).await.expect("memory takes every append");
            assert_eq!(totals.wait_for(&position, PATIENCE).await, Waited::Reached);
        }
        written(&meter, before + round).await;
    }
    memory
        .compactor()
        .expect("memory compacts")
        .compact(totals.key(), Offset(4))
        .await
        .expect("memory compacts");
    stop(&engine).await;
    let engine = start(&memory);
    let total = engine.events::<first::Counted, first::Total>("notes").expect("a valid declaration");
    until(&total, |total| total.0 == 55 + 2 * 210).await;
    stop(&engine).await;
}

#[tokio::test]
async fn a_busy_key_is_saved_once_per_pause_and_not_per_interval() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = Engine::builder(Arc::new(memory.clone()))
        .with_snapshot_interval(2)
        .with_snapshot_pause(PATIENCE * 100)
        .start();
    let busy = notes(&engine);
    note_all(&busy, 0..100).await;
    busy.append(noted("last")).await.expect("memory takes every append");
    assert!(meter.count("via_snapshot_written_total{family=notes}") <= 1);
    stop(&engine).await;
}
