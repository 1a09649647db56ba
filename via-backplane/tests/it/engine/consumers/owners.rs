//! Who runs a consumer, and who takes over.

use tokio::time::Instant;
use via_backplane::{Backplane as _, ConsumerError, Head, Selector, StartAt};

use super::*;

#[tokio::test(start_paused = true)]
async fn one_pod_runs_it_and_hands_over_at_once_when_it_stops() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let (one, two) = (pod(&memory), pod(&memory));
    let first = noting(&one, "one", &ledger).await.expect("registered");
    owns(&first).await;
    let second = noting(&two, "two", &ledger).await.expect("registered");
    let writer = notes(&two);
    for number in 0..100 {
        append(&writer, &format!("{number}")).await;
    }
    let lines = ledger.holds(100).await;
    assert!(lines.iter().all(|line| line.pod == "one"), "{lines:#?}");
    let begun = Instant::now();
    stop(&one).await;
    assert_eq!(owns(&second).await, 2);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    let last = append(&writer, "last").await;
    commits(&second, last).await;
    let lines = ledger.lines();
    assert_eq!((lines.len(), lines[100].pod, lines[100].term), (101, "two", 2));
    stop(&two).await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_dies_is_followed_within_the_lease_and_a_look() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let (one, two) = (pod(&memory), pod(&memory));
    let first = noting(&one, "one", &ledger).await.expect("registered");
    owns(&first).await;
    let second = noting(&two, "two", &ledger).await.expect("registered");
    let handled = append(&notes(&two), "handled").await;
    commits(&first, handled).await;
    let begun = Instant::now();
    kill(&one).await;
    assert_eq!(owns(&second).await, 2);
    let took = begun.elapsed();
    assert!(took > LEASE / 2 && took <= LEASE + LEASE / 5, "{took:?}");
    let last = append(&notes(&two), "last").await;
    commits(&second, last).await;
    assert_eq!(ledger.texts(), ["handled", "last"]);
    stop(&two).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_runs_once_on_a_pod_and_means_the_same_records_everywhere() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = pod(&memory);
    noting(&engine, "one", &ledger).await.expect("registered");
    let error = noting(&engine, "again", &ledger).await.expect_err("it runs");
    assert!(matches!(error, ConsumerError::NameTaken { .. }), "{error:?}");
    let other = pod(&memory);
    let room = notes(&other).instance("room").expect("valid");
    let error =
        room.on_event("note", |_| async { Ok::<_, std::io::Error>(()) }).await.expect_err("of the family");
    assert_eq!(error.to_string(), "`note` consumes all of `notes`, not `notes/room`: give it another name");
    let nobody = notes(&other).on_event("", |_| async { Ok::<_, std::io::Error>(()) }).await;
    assert!(matches!(nobody, Err(ConsumerError::InvalidName(_))), "{nobody:?}");
    // One that was refused may be registered rightly after all.
    noting(&other, "two", &ledger).await.expect("registered");
    stop(&engine).await;
    stop(&other).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_name_begins_where_it_is_told_to_and_an_old_one_where_it_stood() {
    let memory = InMemory::new();
    let engine = pod(&memory);
    let notes = notes(&engine);
    append(&notes, "one").await;
    let two = append(&notes, "two").await;
    let register = |name: &str, start| {
        let ledger = Ledger::new();
        let given = ledger.clone();
        let handler = move |delivery: Delivery<Noted>| {
            given.note("pod", &delivery);
            async { Ok::<_, std::io::Error>(()) }
        };
        (notes.on_event(name, handler).start_at(start), ledger)
    };
    let (all, all_lines) = register("all", StartAt::Genesis);
    let (later, later_lines) = register("later", StartAt::Offset(two));
    let (new, new_lines) = register("new", StartAt::Now);
    let consumers = [all.await, later.await, new.await].map(|consumer| consumer.expect("registered"));
    let last = append(&notes, "three").await;
    for consumer in &consumers {
        commits(consumer, last).await;
    }
    assert_eq!(all_lines.texts(), ["one", "two", "three"]);
    assert_eq!(later_lines.texts(), ["two", "three"]);
    assert_eq!(new_lines.texts(), ["three"]);
    stop(&engine).await;
    let engine = pod(&memory);
    let ledger = Ledger::new();
    let again = noting(&engine, "pod", &ledger).start_at(StartAt::Offset(last)).await.expect("registered");
    commits(&again, last).await;
    assert_eq!(ledger.texts(), ["three"], "`note` is new");
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_consumer_has_not_handled_is_pinned_and_the_pin_follows_it() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = pod(&memory);
    let consumer = noting(&engine, "pod", &ledger).await.expect("registered");
    let pins = engine.pins("notes").await.expect("readable");
    assert_eq!((pins[0].name.as_str(), pins[0].at.offset), ("note", Offset(1)), "the first it wants");
    let last = append(&notes(&engine), "one").await;
    commits(&consumer, last).await;
    // A pin is moved now and then, and tells nobody.
    let follows = async {
        while engine.pins("notes").await.expect("readable")[0].at.offset != last {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LONG, follows).await.expect("it comes to the record that the consumer stands on");
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_begins_below_what_may_be_gone() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = Engine::builder(Arc::new(memory.clone()))
        .deterministic()
        .with_snapshot_interval(1)
        .with_compaction_grace(Duration::from_secs(1))
        .start();
    let notes = notes(&engine);
    for number in 0..40 {
        append(&notes, &format!("{number}")).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let error = noting(&engine, "pod", &ledger).await.expect_err("the first records are gone");
    let ConsumerError::BelowCeiling { lowest, .. } = error else { panic!("{error:?}") };
    assert!(lowest > Offset(1), "{lowest:?}");
    let consumer = noting(&engine, "pod", &ledger).start_at(StartAt::Offset(lowest)).await.expect("possible");
    let Head { offset, .. } =
        memory.log().head(&Selector::Family(notes.key().family().clone())).await.expect("memory answers");
    commits(&consumer, offset).await;
    assert_eq!(ledger.lines()[0].offset, lowest);
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_consumer_of_an_instance_keeps_no_other_and_misses_nothing() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let start = || {
        Engine::builder(Arc::new(memory.clone()))
            .deterministic()
            .with_snapshot_interval(1)
            .with_compaction_grace(Duration::from_secs(1))
            .start()
    };
    let watching = |engine: &Engine| {
        let (ledger, idle) = (ledger.clone(), notes(engine).instance("idle").expect("valid"));
        let handler = move |delivery: Delivery<Noted>| {
            ledger.note("pod", &delivery);
            async { Ok::<_, std::io::Error>(()) }
        };
        (idle.clone(), idle.on_event("watch", handler))
    };
    let engine = start();
    let (idle, consumer) = watching(&engine);
    let consumer = consumer.await.expect("registered");
    let mut last = Offset::BEGIN;
    for text in ["one", "two"] {
        last = append(&idle, text).await;
    }
    commits(&consumer, last).await;
    let busy = notes(&engine).instance("busy").expect("valid");
    let compactor = memory.compactor().expect("memory compacts");
    busy.loaded().await;
    for _ in 0..40 {
        append(&busy, "busy").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let floor = compactor.floor(busy.key()).await.expect("memory answers");
    assert!(floor > Offset(last.0 + 20), "far above what the other one's consumer stands on: {floor:?}");
    let pins = engine.pins("notes").await.expect("readable");
    assert_eq!((pins[0].instance.as_deref(), pins[0].at.offset), (Some("idle"), last));
    stop(&engine).await;
    let engine = start();
    let (idle, consumer) = watching(&engine);
    let consumer = consumer.await.expect("it goes on where it stood");
    let last = append(&idle, "three").await;
    commits(&consumer, last).await;
    assert_eq!(ledger.texts(), ["one", "two", "three"]);
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_consumers_of_one_family_each_have_every_event() {
    let memory = InMemory::new();
    let engine = pod(&memory);
    let ledger = Ledger::new();
    let mut consumers = Vec::new();
    for number in 0..100 {
        let given = ledger.clone();
        let handler = move |delivery: Delivery<Noted>| {
            given.note("pod", &delivery);
            async { Ok::<_, std::io::Error>(()) }
        };
        let consumer = notes(&engine).on_event(format!("note-{number}"), handler).await;
        consumers.push(consumer.expect("registered"));
    }
    append(&notes(&engine), "one").await;
    let last = append(&notes(&engine), "two").await;
    for consumer in &consumers {
        commits(consumer, last).await;
    }
    assert_eq!(ledger.lines().len(), 200);
    assert_eq!(engine.consumers().await.expect("readable").len(), 100);
    stop(&engine).await;
}
