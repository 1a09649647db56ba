//! Records that do not decode: listed, kept, and given up only by somebody who says so.

use ::metrics::set_default_local_recorder;
use serde::{Deserialize, Serialize};
use via_backplane::{
    AcceptLossError, DecideError, Event, Events, Fold, Key, Offset, Recorded, Retry, Waited,
};
use via_inmem::InMemory;

use super::{
    Notes, PATIENCE, append_raw,
    compaction::{compacting, note_until_dropped, silent},
    measures::Meter,
    note, noted, notes, record,
    snapshots::{lines, note_all, saving, written},
    start, stop,
};

/// The same event as [`Noted`], in a program that reads it wrongly.
mod broken {
    use super::*;

    #[derive(Serialize, Deserialize, Event)]
    #[event(name = "test.noted", version = 2)]
    pub(super) struct Noted {
        #[serde(rename = "text")]
        _text: u64,
    }

    impl Fold<Notes> for Noted {
        fn fold(self, _notes: &mut Notes, _at: &Recorded) {
            unreachable!("a line is no number");
        }
    }
}

/// Appends a record that no binary decodes.
async fn append_bad(memory: &InMemory, key: &Key) -> Offset {
    append_raw(memory, key, &b"\xff not an envelope"[..]).await
}

async fn skipped<E, S>(state: &Events<E, S>, records: usize) {
    let listed = async {
        while state.undecodable().len() < records {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, listed).await.expect("the records are skipped");
}

#[tokio::test]
async fn an_accepted_loss_holds_nothing_any_more() {
    let memory = silent();
    let engine = compacting(std::sync::Arc::new(memory.clone())).start();
    let here = notes(&engine);
    note(&here, "0").await;
    let bad = append_bad(&memory, here.key()).await;
    note(&here, "1").await;
    let listed = engine.undecodable();
    assert_eq!((listed.len(), &listed[0].key, listed[0].offset), (1, here.key(), bad));
    assert!(listed[0].cause.contains("not an envelope"), "{}", listed[0].cause);

    engine.accept_loss(here.key(), bad).await.expect("it is lost");
    engine.accept_loss(here.key(), bad).await.expect("it may be said twice");
    let written = note_until_dropped(&memory, &here, bad).await;
    assert!(engine.undecodable().is_empty(), "{:?}", engine.undecodable());
    let late = start(&memory);
    assert_eq!(*notes(&late).loaded().await, lines(0..written));
    stop(&engine).await;
    stop(&late).await;
}

#[tokio::test(start_paused = true)]
async fn other_pods_learn_of_an_accepted_loss() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let (engine, other) = (start(&memory), saving(&memory).start());
    let (here, there) = (notes(&engine), notes(&other));
    note(&here, "0").await;
    let bad = append_bad(&memory, here.key()).await;
    note_all(&there, 1..8).await;
    assert_eq!(meter.count("via_snapshot_written_total{family=notes}"), 0, "no value of theirs is whole");
    engine.accept_loss(here.key(), bad).await.expect("it is lost");
    let learned = async {
        while !other.undecodable().is_empty() {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(31), learned).await.expect("it learns of it");
    let saved = async {
        while meter.count("via_snapshot_written_total{family=notes}") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, saved).await.expect("its snapshots go on");
    stop(&engine).await;
    stop(&other).await;
}

#[tokio::test]
async fn a_fixed_binary_folds_what_was_skipped_and_its_snapshot_lets_it_go() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = silent();
    let engine = compacting(std::sync::Arc::new(memory.clone())).start();
    let good = notes(&engine);
    note(&good, "0").await;
    stop(&engine).await;

    let engine = compacting(std::sync::Arc::new(memory.clone())).start();
    let bad = engine.events::<broken::Noted, Notes>("notes").expect("a valid declaration");
    assert!(bad.loaded().await.is_empty(), "it reads no line");
    skipped(&bad, 1).await;
    stop(&engine).await;

    let engine = compacting(std::sync::Arc::new(memory.clone())).start();
    let fixed = notes(&engine);
    assert_eq!(*fixed.loaded().await, lines(0..1));
    note_until_dropped(&memory, &fixed, Offset(4)).await;
    assert!(engine.undecodable().is_empty());
    stop(&engine).await;
}

#[tokio::test]
async fn an_accepted_loss_is_skipped_by_a_binary_that_could_decode_it() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let first = notes(&engine);
    note_all(&first, 0..2).await;
    let lost = first.append(noted("2")).await.expect("memory takes every append");
    stop(&engine).await;
    let engine = start(&memory);
    let bad = engine.events::<broken::Noted, Notes>("notes").expect("a valid declaration");
    bad.loaded().await;
    engine.accept_loss(bad.key(), lost.cursor.offset).await.expect("this binary does not decode it");
    stop(&engine).await;
    // Every pod has to come to the same value, whichever of them folded first.
    let engine = start(&memory);
    assert_eq!(*notes(&engine).loaded().await, lines(0..2), "the last record is skipped");
    note(&notes(&engine), "3").await;
    assert_eq!(*notes(&engine).loaded().await, ["0", "1", "3"]);
    stop(&engine).await;
}

#[tokio::test]
async fn nothing_is_decided_on_a_value_that_lacks_a_record_until_its_loss_is_accepted() {
    let memory = silent();
    let engine = compacting(std::sync::Arc::new(memory.clone())).start();
    let here = notes(&engine);
    note(&here, "0").await;
    let next = |lines: &Notes| Ok::<_, ()>(vec![noted(&lines.len().to_string())]);
    let bad = append_bad(&memory, here.key()).await;
    let refused = here.decide(next).await.expect_err("what the record says is not known");
    assert!(matches!(refused, DecideError::Incomplete { at } if at == bad), "{refused:?}");
    assert_eq!(refused.retry(), Retry::Never);
    note(&here, "1").await;
    let refused = here.decide(next).await.expect_err("nor after another one");
    assert!(matches!(refused, DecideError::Incomplete { at } if at == bad), "{refused:?}");

    let last = append_bad(&memory, here.key()).await;
    skipped(&here, 2).await;
    engine.accept_loss(here.key(), bad).await.expect("it is lost");
    engine.accept_loss(here.key(), last).await.expect("it is lost");
    let position = here.decide(next).await.expect("what is lost decides nothing").expect("it appends");
    assert_eq!(here.wait_for(&position, PATIENCE).await, Waited::Reached);
    assert_eq!(*here.loaded().await, lines(0..3));

    // The key's head is a loss, for a pod that loads it as well, and once snapshots have passed it.
    note_until_dropped(&memory, &here, last).await;
    let last = append_bad(&memory, here.key()).await;
    skipped(&here, 1).await;
    engine.accept_loss(here.key(), last).await.expect("it is lost");
    let late = start(&memory);
    let count = notes(&late).loaded().await.len();
    let position = notes(&late).decide(next).await.expect("the head is passed").expect("it appends");
    assert_eq!(here.wait_for(&position, PATIENCE).await, Waited::Reached);
    assert_eq!(here.loaded().await.len(), count + 1);
    stop(&engine).await;
    stop(&late).await;
}

#[tokio::test]
async fn a_loss_that_is_none_is_not_accepted() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = saving(&memory).start();
    let here = notes(&engine);
    note_all(&here, 0..8).await;
    written(&meter, 1).await;
    let newer = append_raw(&memory, here.key(), record("test.noted", 9, b"")).await;
    let accept = |offset: Offset| engine.accept_loss(here.key(), offset);

    let refused = accept(Offset(1)).await.expect_err("it decodes");
    assert!(matches!(refused, AcceptLossError::Decodes { offset: Offset(1), .. }), "{refused:?}");
    assert_eq!(refused.retry(), Retry::Never);
    let refused = accept(newer).await.expect_err("a newer binary decodes it");
    assert!(matches!(&refused, AcceptLossError::Newer { event, .. } if event == "test.noted"), "{refused:?}");
    let refused = accept(Offset(newer.0 + 1)).await.expect_err("there is none");
    assert!(matches!(refused, AcceptLossError::NoRecord { .. }), "{refused:?}");
    let elsewhere = Key::of(&via_backplane::Family::new("elsewhere").expect("a valid name"));
    let refused = engine.accept_loss(&elsewhere, Offset(1)).await.expect_err("nobody declared it");
    assert!(matches!(refused, AcceptLossError::UnknownFamily { .. }), "{refused:?}");
    stop(&engine).await;

    let engine = start(&memory);
    let bad = engine.events::<broken::Noted, Notes>("notes").expect("a valid declaration");
    let refused = engine.accept_loss(bad.key(), Offset(1)).await.expect_err("a snapshot has it");
    assert!(matches!(refused, AcceptLossError::Folded { .. }), "{refused:?}");
    engine.backplane().close().await;
    let failed = engine.accept_loss(bad.key(), Offset(1)).await.expect_err("the backplane is closed");
    assert!(matches!(failed, AcceptLossError::Backend(_)), "{failed:?}");
    stop(&engine).await;
}
