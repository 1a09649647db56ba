//! What an operator sees and does, from any pod.

use tokio::time::sleep;
use via_backplane::{ConsumerError, ConsumerRunning, Family, NamedConsumer, StartAt};

use super::*;

fn named(engine: &Engine) -> NamedConsumer {
    engine.consumer("notes", "note").expect("valid names")
}

/// A consumer whose handler fails while it is told to.
async fn failing(engine: &Engine, ledger: &Ledger) -> (Consumer, watch::Sender<bool>) {
    let (fails, is_failing) = watch::channel(true);
    let ledger = ledger.clone();
    let handler = move |delivery: Delivery<Noted>| {
        ledger.note("pod", &delivery);
        let fails = *is_failing.borrow();
        async move { if fails { Err("the endpoint is closed") } else { Ok(()) } }
    };
    (notes(engine).on_event("note", handler).await.expect("registered"), fails)
}

#[tokio::test(start_paused = true)]
async fn how_a_consumer_stands_is_seen_from_every_pod() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let (one, two) = (pod(&memory), pod(&memory));
    let error = named(&two).state().await.expect_err("nobody registered it");
    assert!(matches!(error, ConsumerError::Unknown { .. }), "{error:?}");
    let (consumer, fails) = failing(&one, &ledger).await;
    let term = owns(&consumer).await;
    append(&notes(&one), "one").await;
    let last = append(&notes(&one), "two").await;
    sleep(Duration::from_secs(60)).await;
    let state = named(&two).state().await.expect("registered");
    assert_eq!(
        (state.term, state.running.clone(), state.is_owned_here),
        (term, ConsumerRunning::Active, false)
    );
    assert_eq!((state.head.offset, state.lag_events, state.committed.offset), (last, 2, Offset::BEGIN));
    assert_eq!(state.last_error.as_deref(), Some("the endpoint is closed"));
    assert!(state.attempts > 5 && state.lag.is_some(), "{state:?}");
    let here = named(&one).state().await.expect("registered");
    assert!(here.is_owned_here && here.owner == state.owner && here.owner.is_some(), "{here:?}");
    // Every family that a pod knows, and not what merely pins.
    one.pin("notes", "backup", state.head).await.expect("pinned");
    notes(&two);
    assert_eq!(two.consumers().await.expect("readable").len(), 1);
    fails.send_replace(false);
    commits(&consumer, last).await;
    let state = named(&two).state().await.expect("registered");
    assert_eq!((state.lag_events, state.lag, state.attempts, state.last_error), (0, None, 0, None));
    stop(&one).await;
    stop(&two).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_rests_on_every_pod_until_it_is_resumed() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let (one, two) = (pod(&memory), pod(&memory));
    let first = noting(&one, "one", &ledger).await.expect("registered");
    owns(&first).await;
    noting(&two, "two", &ledger).await.expect("registered");
    named(&two).pause().await.expect("paused");
    let rests = first.stands(|standing| *standing == Standing::Contending);
    timeout(Duration::from_secs(1), rests).await.expect("its owner hears of it at once");
    let last = append(&notes(&one), "one").await;
    sleep(LONG).await;
    assert_eq!(ledger.lines(), []);
    // It outlives the pods.
    stop(&one).await;
    stop(&two).await;
    let three = pod(&memory);
    let third = noting(&three, "three", &ledger).await.expect("registered");
    sleep(LONG).await;
    assert_eq!(named(&three).state().await.expect("registered").running, ConsumerRunning::Paused);
    named(&three).resume().await.expect("resumed");
    commits(&third, last).await;
    assert_eq!(ledger.texts(), ["one"]);
    stop(&three).await;
}

#[tokio::test(start_paused = true)]
async fn a_seek_goes_back_and_forth_and_leaves_a_handler_its_end() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = pod(&memory);
    let consumer = noting(&engine, "pod", &ledger).await.expect("registered");
    let notes = notes(&engine);
    let mut offsets = Vec::new();
    for text in ["one", "two", "three"] {
        offsets.push(append(&notes, text).await);
    }
    commits(&consumer, offsets[2]).await;
    named(&engine).seek(StartAt::Offset(offsets[1])).await.expect("nothing is gone");
    let lines = ledger.holds(5).await;
    assert_eq!(lines[3..].iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["two", "three"]);
    assert_eq!(lines[3].id, lines[1].id, "the event is the same");
    named(&engine).pause().await.expect("paused");
    let rests = consumer.stands(|standing| *standing == Standing::Contending);
    timeout(LONG, rests).await.expect("its owner hears of it");
    append(&notes, "skipped").await;
    named(&engine).seek(StartAt::Now).await.expect("it is the head");
    named(&engine).resume().await.expect("resumed");
    let last = append(&notes, "last").await;
    commits(&consumer, last).await;
    assert_eq!(ledger.texts()[5..], ["last"]);
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn a_seek_below_what_may_be_gone_is_refused() {
    let memory = InMemory::new();
    let engine = Engine::builder(Arc::new(memory.clone()))
        .deterministic()
        .with_snapshot_interval(1)
        .with_compaction_grace(Duration::from_secs(1))
        .start();
    let ledger = Ledger::new();
    let consumer = noting(&engine, "pod", &ledger).await.expect("registered");
    let notes = notes(&engine);
    let mut last = Offset::BEGIN;
    for number in 0..60 {
        last = append(&notes, &format!("{number}")).await;
        sleep(Duration::from_secs(2)).await;
    }
    commits(&consumer, last).await;
    let error = named(&engine).seek(StartAt::Genesis).await.expect_err("the first records are gone");
    let ConsumerError::BelowCeiling { lowest, .. } = error else { panic!("{error:?}") };
    named(&engine).seek(StartAt::Offset(lowest)).await.expect("possible");
    let again = ledger.holds(61).await;
    assert_eq!(again[60].offset, lowest);
    commits(&consumer, last).await;
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn a_consumer_whose_log_was_replaced_goes_on_where_an_operator_says() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = pod(&memory);
    let consumer = noting(&engine, "pod", &ledger).await.expect("registered");
    let one = append(&notes(&engine), "one").await;
    commits(&consumer, one).await;
    memory.recreate_log(&Family::new("notes").expect("valid"));
    append(&notes(&engine), "anew").await;
    let blocked = consumer.stands(|standing| matches!(standing, Standing::Blocked(_)));
    timeout(LONG, blocked).await.expect("it stands still");
    named(&engine).seek(StartAt::Genesis).await.expect("nothing is gone");
    ledger.holds(2).await;
    assert_eq!(ledger.texts(), ["one", "anew"]);
    owns(&consumer).await;
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_pins_nothing_and_runs_nowhere() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let (one, two) = (pod(&memory), pod(&memory));
    let consumer = noting(&one, "one", &ledger).await.expect("registered");
    let last = append(&notes(&one), "one").await;
    commits(&consumer, last).await;
    assert!(named(&two).forget().await.expect("forgotten"));
    assert!(!named(&two).forget().await.expect("asked again"), "it is gone");
    let ended = consumer.stands(|standing| *standing == Standing::Ended);
    timeout(LONG, ended).await.expect("its task ends");
    append(&notes(&one), "two").await;
    sleep(LONG).await;
    assert_eq!(two.pins("notes").await.expect("readable"), []);
    assert_eq!(two.consumers().await.expect("readable"), []);
    assert_eq!(ledger.texts(), ["one"]);
    // Who registers the name anew begins anew.
    let again = noting(&two, "two", &ledger).await.expect("registered");
    owns(&again).await;
    ledger.holds(3).await;
    assert_eq!(ledger.texts(), ["one", "one", "two"]);
    stop(&one).await;
    stop(&two).await;
}
