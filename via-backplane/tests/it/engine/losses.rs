//! Records that are gone: explained by a compaction, or by nothing.

use std::sync::Arc;

use via_backplane::{
    Backplane, DecideError, Engine, HaltReason, Status, Waited,
    fault::{Faulty, Link, Plan},
};
use via_inmem::InMemory;

use super::{PATIENCE, append_raw, halted, note, noted, notes, start, stop};

/// A pod whose way to the memory can be cut.
fn start_behind(link: &Link, memory: &InMemory) -> Engine {
    Engine::start(Arc::new(Faulty::new(Arc::new(memory.clone()), Plan::seeded(1), link)))
}

#[tokio::test]
async fn a_tail_overtaken_by_a_compaction_halts_at_what_it_had() {
    let (memory, link) = (InMemory::new(), Link::new());
    let (cut, other) = (start_behind(&link, &memory), start(&memory));
    let (overtaken, whole) = (notes(&cut), notes(&other));
    let sibling = overtaken.instance("sibling").expect("a valid name");
    note(&overtaken, "seen").await;
    note(&sibling, "before").await;
    link.interrupt();
    for text in ["missed", "missed too", "the head"] {
        note(&whole, text).await;
    }
    let floor = whole.covered().offset;
    memory.compactor().expect("memory compacts").compact(whole.key(), floor).await.expect("memory compacts");
    link.restore();
    let halt = halted(&overtaken).await;
    assert_eq!(halt.reason, HaltReason::Compacted { floor });
    assert_eq!(*overtaken.loaded().await, ["seen"], "nothing is folded across the hole");
    note(&sibling, "after").await;
    assert_eq!(*sibling.loaded().await, ["before", "after"], "the siblings lost nothing and go on");
    stop(&cut).await;
    stop(&other).await;
}

#[tokio::test]
async fn a_loss_that_nothing_explains_halts_the_whole_family() {
    let (memory, link) = (InMemory::new(), Link::new());
    let engine = start_behind(&link, &memory);
    let notes = notes(&engine);
    let panicked = notes.instance("panicked").expect("a valid name");
    let bad = panicked.append(noted("panic")).await.expect("memory takes it");
    assert_eq!(panicked.wait_for(&bad, PATIENCE).await, Waited::Halted);
    note(&notes, "kept").await;
    let copy = memory.copy_log(notes.key().family());
    note(&notes, "gone").await;
    link.interrupt();
    // An older copy is put back, and where this pod stands there is nothing: another key's record was, and its
    // compaction explains nothing about this one.
    memory.restore_log(&copy);
    let other = notes.instance("other").expect("a valid name");
    append_raw(&memory, other.key(), &b"compacted away"[..]).await;
    let head = append_raw(&memory, other.key(), &b"the head"[..]).await;
    memory.compactor().expect("memory compacts").compact(other.key(), head).await.expect("memory compacts");
    let mut position = bad.clone();
    position.key = notes.key().clone();
    position.cursor.offset = head;
    let (waited, ()) = tokio::join!(notes.wait_for(&position, PATIENCE), async { link.restore() });
    assert_eq!(waited, Waited::Halted, "who waits is told at once");

    let halt = halted(&notes).await;
    assert_eq!(halt.reason, HaltReason::Lost);
    assert_eq!(*notes.loaded().await, ["kept", "gone"], "the last good value is served");
    let kept = halted(&panicked).await;
    assert_eq!(kept.at, bad.cursor.offset, "a key that was halted before keeps its reason: {kept:?}");
    let unheard_of = notes.instance("unheard of").expect("a valid name");
    assert_eq!(unheard_of.status(), Status::Halted(halt), "a tail that has ended serves no key as live");
    let error = unheard_of.decide(|_| Ok::<_, ()>(vec![noted("on what?")])).await.expect_err("it is halted");
    assert!(matches!(error, DecideError::Halted(_)), "{error:?}");
    stop(&engine).await;
}
