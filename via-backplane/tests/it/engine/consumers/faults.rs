//! Pods that are cut off or replaced, logs that are, and events that a pod does not know.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use via_backplane::{
    Block, Family, Monotonic,
    fault::{Faulty, Link, Plan},
};

use super::*;
use crate::engine::{append_raw, record};

/// What a newer binary writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(name = "test.noted", version = 3, upcast = Noted)]
struct NotedV3 {
    text: String,
}

impl From<Noted> for NotedV3 {
    fn from(old: Noted) -> Self {
        Self { text: old.text }
    }
}

impl Fold<Notes> for NotedV3 {
    fn fold(self, notes: &mut Notes, _at: &Recorded) {
        notes.push(self.text);
    }
}

fn linked(memory: &InMemory) -> (Engine, Link) {
    let link = Link::new();
    let faulty = Faulty::new(Arc::new(memory.clone()), Plan::none(), &link);
    (Engine::builder(Arc::new(faulty)).deterministic().start(), link)
}

/// The runtime's clock, and how long this pod stood still besides. Its ticks may tell of that or not.
struct Halting {
    started: Instant,
    still: Arc<AtomicU64>,
    ticks: bool,
}

impl Monotonic for Halting {
    fn now(&self) -> Duration {
        self.started.elapsed() + Duration::from_secs(self.still.load(Ordering::Relaxed))
    }

    fn tick(&self) -> Option<u64> {
        Some(if self.ticks { self.now().as_millis() as u64 } else { 0 })
    }
}

/// What a pod begins of 100 events after it stood still for a lease in the middle of the twentieth, while it cannot renew.
async fn begun_after_standing_still(ticks: bool) -> usize {
    const BEFORE: usize = 20;
    const EVENTS: usize = 100;
    let memory = InMemory::new();
    let other = pod(&memory);
    // They come in batches of 16 and of 64: of the second one the pod has most in hand when it is cut off.
    let events = (0..EVENTS).map(|number| noted(&format!("{number}")));
    let last = notes(&other).append_batch(events).await.expect("memory takes every append").cursor.offset;
    let still = Arc::new(AtomicU64::new(0));
    let clock = Halting { started: Instant::now(), still: still.clone(), ticks };
    let link = Link::new();
    let faulty = Faulty::new(Arc::new(memory.clone()), Plan::none(), &link);
    let engine = Engine::builder(Arc::new(faulty)).deterministic().monotonic(clock).start();
    let (ledger, cut) = (Ledger::new(), link.clone());
    let given = ledger.clone();
    let handler = move |delivery: Delivery<Noted>| {
        given.note("pod", &delivery);
        if given.lines().len() == BEFORE {
            still.store(LEASE.as_secs(), Ordering::Relaxed);
            cut.interrupt();
        }
        async { Ok::<_, std::io::Error>(()) }
    };
    notes(&engine).on_event("note", handler).lease(LEASE).await.expect("registered");
    ledger.holds(BEFORE).await;
    // Whoever takes over has waited for a lease: until then the other one could have begun all of them.
    let second = noting(&other, "other", &ledger).await.expect("registered");
    owns(&second).await;
    commits(&second, last).await;
    let begun = ledger.lines().iter().filter(|line| line.pod == "pod").count() - BEFORE;
    link.restore();
    stop(&engine).await;
    stop(&other).await;
    begun
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_stood_still_between_two_events_does_not_begin_the_next() {
    assert_eq!(begun_after_standing_still(true).await, 0);
}

/// A machine's own clock may be late after its processors were taken away from it.
#[tokio::test(start_paused = true)]
async fn a_pod_whose_clock_does_not_tick_begins_few_before_it_reads_the_time() {
    let begun = begun_after_standing_still(false).await;
    assert!((1..16).contains(&begun), "{begun}");
}

async fn blocked(consumer: &Consumer) -> Block {
    let standing = consumer.stands(|standing| matches!(standing, Standing::Blocked(_)));
    match timeout(LONG, standing).await.expect("it comes to be blocked") {
        Standing::Blocked(block) => block,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_cut_off_is_replaced_and_its_commit_is_refused() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let ((cut, link), other) = (linked(&memory), pod(&memory));
    let first = noting(&cut, "cut", &ledger).await.expect("registered");
    owns(&first).await;
    let second = noting(&other, "other", &ledger).await.expect("registered");
    let handled = append(&notes(&other), "before").await;
    commits(&first, handled).await;
    link.interrupt();
    let during = append(&notes(&other), "during").await;
    assert_eq!(owns(&second).await, 2);
    commits(&second, during).await;
    link.restore();
    // It learns that it was deposed by its next write, and contends as others do.
    let contends = first.stands(|standing| *standing == Standing::Contending);
    timeout(LONG, contends).await.expect("it is deposed");
    let last = append(&notes(&other), "after").await;
    commits(&second, last).await;
    assert_eq!(ledger.texts(), ["before", "during", "after"]);
    stop(&cut).await;
    stop(&other).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_while_it_commits_runs_no_handler_twice() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let (engine, link) = linked(&memory);
    let (given, to_cut) = (ledger.clone(), link.clone());
    let handler = move |delivery: Delivery<Noted>| {
        given.note("pod", &delivery);
        // Between the effect and its commit.
        to_cut.interrupt();
        async { Ok::<_, std::io::Error>(()) }
    };
    let appended = append(&notes(&pod(&memory)), "one").await;
    let consumer = notes(&engine).on_event("note", handler).await.expect("registered");
    ledger.holds(1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(consumer.committed() < appended, "{consumer:?}");
    link.restore();
    commits(&consumer, appended).await;
    assert_eq!(ledger.lines().len(), 1, "{:#?}", ledger.lines());
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_commit_is_found_out() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let (engine, link) = linked(&memory);
    let consumer = noting(&engine, "pod", &ledger).await.expect("registered");
    owns(&consumer).await;
    for number in 0..20 {
        let appended = append(&notes(&pod(&memory)), &format!("{number}")).await;
        link.lose_next_ack();
        commits(&consumer, appended).await;
    }
    assert_eq!(ledger.lines().len(), 20, "{:#?}", ledger.lines());
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_event_is_left_to_a_pod_that_knows_it() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let old = pod(&memory);
    let consumer = noting(&old, "old", &ledger).await.expect("registered");
    append(&notes(&old), "one").await;
    let family = Family::new("notes").expect("valid");
    let payload = b"\x81\xa4text\xa5newer";
    append_raw(&memory, &via_backplane::Key::of(&family), record("test.noted", 3, payload)).await;
    ledger.holds(1).await;
    let given_up = consumer.stands(|standing| *standing == Standing::Contending);
    timeout(LONG, given_up).await.expect("it gives up");
    // The old pod does not come back to it, however long nobody else does.
    tokio::time::sleep(LONG).await;
    assert_eq!(ledger.lines().len(), 1);
    let new = pod(&memory);
    let given = ledger.clone();
    let handler = move |delivery: Delivery<NotedV3>| {
        let Delivery { offset, id, attempt, term, .. } = delivery;
        let line = Line { pod: "new", text: delivery.event.text, offset, id, attempt, term };
        given.0.send_modify(|lines| lines.push(line));
        async { Ok::<_, std::io::Error>(()) }
    };
    let state = new.events::<NotedV3, Notes>("notes").expect("a valid declaration");
    state.on_event("note", handler).await.expect("registered");
    let lines = ledger.holds(2).await;
    assert_eq!((lines[1].pod, lines[1].text.as_str(), lines[1].attempt), ("new", "newer", 1));
    stop(&old).await;
    stop(&new).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_recreated_or_restored_blocks_it() {
    let family = Family::new("notes").expect("valid");
    for restored in [false, true] {
        let memory = InMemory::new();
        let ledger = Ledger::new();
        let engine = pod(&memory);
        let consumer = noting(&engine, "pod", &ledger).await.expect("registered");
        append(&notes(&engine), "kept").await;
        let copy = memory.copy_log(&family);
        let undone = append(&notes(&engine), "undone").await;
        commits(&consumer, undone).await;
        if restored {
            memory.restore_log(&copy);
        } else {
            memory.recreate_log(&family);
        }
        for text in ["anew", "and on", "and on"] {
            append(&notes(&engine), text).await;
        }
        assert_eq!(blocked(&consumer).await, Block::Replaced);
        assert_eq!(ledger.texts(), ["kept", "undone"], "nobody knows what of the new one was handled");
        stop(&engine).await;
        // A pod that starts finds the same.
        let next = pod(&memory);
        let consumer = noting(&next, "next", &ledger).await.expect("registered");
        assert_eq!(blocked(&consumer).await, Block::Replaced);
        stop(&next).await;
    }
}
