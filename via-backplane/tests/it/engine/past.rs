//! Copies of a state as it was.

use std::sync::Arc;

use ::metrics::set_default_local_recorder;
use via_backplane::{AtError, FoldedFrom, HaltReason, Offset};
use via_inmem::InMemory;

use super::{
    Noted, Notes, append_raw,
    compaction::{compacting, floor, note_until_dropped, silent},
    measures::Meter,
    note, notes, record,
    snapshots::{lines, note_all, saving, written},
    start, stop,
};

#[tokio::test]
async fn a_state_is_as_it_was_at_every_offset_that_is_retained() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = saving(&memory).start();
    let here = notes(&engine);
    note_all(&here, 0..5).await;
    written(&meter, 1).await;
    note_all(&here, 5..10).await;
    written(&meter, 2).await;
    let sibling = here.instance("sibling").expect("a valid name");
    note(&sibling, "beside").await;
    let mut from_snapshots = 0;
    for records in 0..=10 {
        let past = here.at(Offset(records as u64)).await.expect("all is retained");
        assert_eq!(*past, lines(0..records));
        assert_eq!(past.key_head().offset, Offset(records as u64));
        from_snapshots += usize::from(past.from() != FoldedFrom::Genesis);
    }
    assert!(from_snapshots > 0, "it begins at the newest snapshot that is not later");
    assert_eq!(*here.at(Offset(11)).await.expect("its sibling's record is there"), lines(0..10));
    let early = engine.at::<Noted, Notes>(sibling.key(), Offset(10)).await.expect("all is retained");
    assert!(early.is_empty(), "it had no record yet");
    let not_yet = here.at(Offset(12)).await.expect_err("the log is shorter");
    assert!(matches!(not_yet, AtError::NotYet { head: Offset(11) }), "{not_yet:?}");
    assert_eq!(*here.loaded().await, lines(0..10), "what is served is not touched");
    stop(&engine).await;
}

#[tokio::test]
async fn what_was_compacted_away_names_the_lowest_offset_possible() {
    let memory = silent();
    let engine = compacting(Arc::new(memory.clone())).start();
    let here = notes(&engine);
    note_until_dropped(&memory, &here, Offset::BEGIN).await;
    stop(&engine).await;
    let engine = start(&memory);
    let here = notes(&engine);
    let floor = floor(&memory, &here).await;
    let gone = here.at(Offset(1)).await.expect_err("its records are gone");
    let AtError::Compacted { floor: said, lowest: Some(lowest) } = gone else { panic!("{gone:?}") };
    assert_eq!(said, floor);
    assert!(gone.to_string().contains(&format!("lowest offset possible is {lowest}")), "{gone}");
    let past = here.at(lowest).await.expect("it was said to be possible");
    assert_eq!(*past, lines(0..lowest.0 as usize));
    assert!(matches!(past.from(), FoldedFrom::Snapshot { .. }), "{:?}", past.from());
    let below = here.at(Offset(lowest.0 - 1)).await.expect_err("it was said to be the lowest");
    assert!(matches!(below, AtError::Compacted { .. }), "{below:?}");
    stop(&engine).await;
}

#[tokio::test]
async fn a_copy_goes_as_far_as_the_fold_does() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let here = notes(&engine);
    note(&here, "0").await;
    let bad = append_raw(&memory, here.key(), &b"\xff not an envelope"[..]).await;
    note(&here, "1").await;
    let newer = append_raw(&memory, here.key(), record("test.noted", 9, b"")).await;
    let past = here.at(Offset(newer.0 - 1)).await.expect("the fold goes so far");
    assert_eq!((&**past, past.skipped()), (&lines(0..2)[..], &[bad][..]));
    let halted = here.at(newer).await.expect_err("this binary does not know the record");
    let AtError::Halted { halt } = halted else { panic!("{halted:?}") };
    assert!(matches!(halt.reason, HaltReason::NewerVersion { .. }), "{halt:?}");
    stop(&engine).await;
}
