//! Records that snapshots cover are dropped, and nobody misses one.

use std::{sync::Arc, time::Duration};

use ::metrics::set_default_local_recorder;
use via_backplane::{
    Backplane, Builder, Engine, Events, Offset, Status,
    fault::{Faulty, Link, Plan},
};
use via_inmem::InMemory;

use super::{Noted, Notes, PATIENCE, measures::Meter, note, notes, start, stop, until};

/// An engine that writes snapshots at once, and drops what they cover soon.
pub(super) fn compacting(backplane: Arc<dyn Backplane>) -> Builder {
    Engine::builder(backplane)
        .with_snapshot_interval(4)
        .with_snapshot_pause(Duration::ZERO)
        .with_compaction_grace(Duration::from_millis(20))
}

/// A memory that tells no reader of what was dropped, as JetStream does not.
pub(super) fn silent() -> InMemory {
    InMemory::builder().silent_compaction().build()
}

pub(super) async fn floor(memory: &InMemory, notes: &Events<Noted, Notes>) -> Offset {
    memory.compactor().expect("memory compacts").floor(notes.key()).await.expect("memory answers")
}

/// Notes lines until some of them are dropped; answers how many there are.
pub(super) async fn note_until_dropped(
    memory: &InMemory,
    notes: &Events<Noted, Notes>,
    above: Offset,
) -> usize {
    let mut lines = notes.loaded().await.len();
    let dropped = async {
        while floor(memory, notes).await <= above {
            note(notes, &lines.to_string()).await;
            lines += 1;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.expect("what snapshots cover is dropped");
    lines
}

fn lines(upto: usize) -> Vec<String> {
    (0..upto).map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn what_snapshots_cover_is_dropped_and_a_new_pod_has_it_all() {
    let memory = silent();
    let engine = compacting(Arc::new(memory.clone())).start();
    let here = notes(&engine);
    let mut written = note_until_dropped(&memory, &here, Offset::BEGIN).await;
    for _ in 0..3 {
        let late = start(&memory);
        assert_eq!(*notes(&late).loaded().await, lines(written));
        stop(&late).await;
        written = note_until_dropped(&memory, &here, floor(&memory, &here).await).await;
    }
    assert_eq!(*here.loaded().await, lines(written));
    stop(&engine).await;
}

#[tokio::test]
async fn history_that_is_to_be_kept_is_kept() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = compacting(Arc::new(memory.clone())).keep_history().start();
    let here = notes(&engine);
    while meter.count("via_snapshot_written_total{family=notes}") < 3 {
        note(&here, "more").await;
    }
    assert_eq!(floor(&memory, &here).await, Offset::BEGIN);
    assert!(!engine.supervisor().names().iter().any(|name| name.starts_with("compaction")));
    stop(&engine).await;
}

#[tokio::test]
async fn a_pod_that_compaction_overtook_goes_on_from_a_snapshot() {
    for memory in [silent(), InMemory::new()] {
        let meter = Meter::default();
        let _here = set_default_local_recorder(&meter);
        let link = Link::new();
        let slow = Engine::builder(Arc::new(Faulty::new(Arc::new(memory.clone()), Plan::seeded(1), &link)))
            .with_compaction_grace(Duration::from_millis(20))
            .start();
        let engine = compacting(Arc::new(memory.clone())).start();
        let (here, there) = (notes(&engine), notes(&slow));
        let sibling = there.instance("sibling").expect("a valid name");
        note(&here, "0").await;
        note(&sibling, "untouched").await;
        until(&there, |notes| notes.len() == 1).await;
        link.interrupt();
        let written = note_until_dropped(&memory, &here, Offset(3)).await;
        assert_eq!(*there.loaded().await, ["0"], "it serves what it has");
        link.restore();
        until(&there, |notes| notes.len() == written).await;
        assert_eq!(*there.loaded().await, lines(written));
        assert_eq!(there.status(), Status::Live);
        assert!(meter.count("via_events_compaction_reseed_total{family=notes}") >= 1);
        assert_eq!(meter.count("via_events_compaction_gap_halt_total{family=notes}"), 0);
        note(&sibling, "still").await;
        assert_eq!(*sibling.loaded().await, ["untouched", "still"]);
        stop(&engine).await;
        stop(&slow).await;
    }
}

#[tokio::test]
async fn an_undecodable_record_is_kept_for_a_binary_that_can() {
    let memory = silent();
    let engine = compacting(Arc::new(memory.clone())).start();
    let here = notes(&engine);
    note(&here, "0").await;
    let bad = super::append_raw(&memory, here.key(), &b"\xff not an envelope"[..]).await;
    for n in 0..40 {
        note(&here, &n.to_string()).await;
    }
    // A pod that does not know of the record, because it came to this key's siblings.
    let sibling = here.instance("sibling").expect("a valid name");
    note_until_dropped(&memory, &sibling, Offset::BEGIN).await;
    assert!(floor(&memory, &here).await <= bad, "{} is above {bad}", floor(&memory, &here).await);
    stop(&engine).await;
}
