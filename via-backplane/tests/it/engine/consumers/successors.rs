//! A new version of an effect takes the place of the old one.

use tokio::time::sleep;
use via_backplane::{
    ConsumerError, ConsumerRunning, StartAt,
    fault::{Faulty, Kind, Link, Plan},
};

use super::*;

fn successor(engine: &Engine, pod: &'static str, ledger: &Ledger) -> OnEvent<Noted> {
    let ledger = ledger.clone();
    let handler = move |delivery: Delivery<Noted>| {
        ledger.note(pod, &delivery);
        async { Ok::<_, std::io::Error>(()) }
    };
    notes(engine).on_event("note-2", handler).successor_of("note")
}

#[tokio::test(start_paused = true)]
async fn it_begins_after_what_the_other_one_has_committed_and_that_one_stops() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let (blue, green) = (pod(&memory), pod(&memory));
    let first = noting(&blue, "blue", &ledger).await.expect("registered");
    let mut last = Offset::BEGIN;
    for text in ["one", "two"] {
        last = append(&notes(&blue), text).await;
    }
    commits(&first, last).await;
    let second = successor(&green, "green", &ledger).await.expect("registered");
    let rests = first.stands(|standing| *standing == Standing::Contending);
    timeout(Duration::from_secs(1), rests).await.expect("the other one hears of it at once");
    for text in ["three", "four"] {
        last = append(&notes(&blue), text).await;
    }
    commits(&second, last).await;
    let lines = deliveries(&ledger);
    let wanted = [("blue", "one"), ("blue", "two"), ("green", "three"), ("green", "four")];
    assert_eq!(lines, wanted.map(|(pod, text)| (pod, text.to_owned())));
    let state =
        green.consumer("notes", "note").expect("valid names").state().await.expect("it is still known");
    assert!(
        matches!(&state.running, ConsumerRunning::Retired { successor } if successor == "note-2"),
        "{state:?}"
    );
    let pins: Vec<_> = green.pins("notes").await.expect("readable").into_iter().map(|pin| pin.name).collect();
    assert_eq!(pins, ["note-2"]);
    // The old binary, once more.
    let error = noting(&pod(&memory), "late", &ledger).await.expect_err("it is retired");
    assert!(matches!(&error, ConsumerError::Retired { successor, .. } if successor == "note-2"), "{error:?}");
    // The new one comes back as any other.
    stop(&green).await;
    let green = pod(&memory);
    let second = successor(&green, "green", &ledger).await.expect("registered");
    let last = append(&notes(&green), "five").await;
    commits(&second, last).await;
    assert_eq!(ledger.lines().len(), 5);
    stop(&blue).await;
    stop(&green).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_other_one_is_handling_it_ends_and_the_new_one_begins_after_it() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let (blue, green) = (pod(&memory), pod(&memory));
    let given = ledger.clone();
    let handler = move |delivery: Delivery<Noted>| {
        given.note("blue", &delivery);
        async {
            sleep(Duration::from_secs(5)).await;
            Ok::<_, std::io::Error>(())
        }
    };
    notes(&blue).on_event("note", handler).await.expect("registered");
    append(&notes(&blue), "in flight").await;
    let last = append(&notes(&blue), "waiting").await;
    ledger.holds(1).await;
    let second = successor(&green, "green", &ledger).await.expect("registered");
    commits(&second, last).await;
    sleep(LONG).await;
    let lines = deliveries(&ledger);
    let wanted = [("blue", "in flight"), ("green", "waiting")];
    assert_eq!(lines, wanted.map(|(pod, text)| (pod, text.to_owned())));
    stop(&blue).await;
    stop(&green).await;
}

/// A consumer whose handler has been given an event, and does not come back.
async fn in_the_middle(engine: &Engine, ledger: &Ledger) -> Offset {
    let given = ledger.clone();
    let handler = move |delivery: Delivery<Noted>| {
        given.note("blue", &delivery);
        std::future::pending::<Result<(), std::io::Error>>()
    };
    notes(engine).on_event("note", handler).handler_timeout(LONG).lease(LEASE).await.expect("registered");
    append(&notes(engine), "in flight").await;
    let last = append(&notes(engine), "waiting").await;
    ledger.holds(1).await;
    last
}

fn deliveries(ledger: &Ledger) -> Vec<(&'static str, String)> {
    ledger.lines().into_iter().map(|line| (line.pod, line.text)).collect()
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_went_without_a_word_is_waited_for_as_long_as_its_lease() {
    let (memory, ledger) = (InMemory::new(), Ledger::new());
    let (blue, green) = (pod(&memory), pod(&memory));
    let last = in_the_middle(&blue, &ledger).await;
    kill(&blue).await;
    let killed = tokio::time::Instant::now();
    // In its own opinion it would not have to wait for so long.
    let second = successor(&green, "green", &ledger).lease(LEASE / 4).await.expect("registered");
    let state = green.consumer("notes", "note-2").expect("valid names").state().await.expect("registered");
    assert_eq!(state.running, ConsumerRunning::Succeeding { prior: "note".to_owned() });
    let named = green.consumer("notes", "note-2").expect("valid names");
    let error = named.seek(StartAt::Now).await.expect_err("it begins where the other one ends");
    assert!(matches!(&error, ConsumerError::Succeeding { prior, .. } if prior == "note"), "{error:?}");
    commits(&second, last).await;
    assert!((LEASE..LEASE * 3 / 2).contains(&killed.elapsed()), "{:?}", killed.elapsed());
    let wanted = [("blue", "in flight"), ("green", "in flight"), ("green", "waiting")];
    assert_eq!(deliveries(&ledger), wanted.map(|(pod, text)| (pod, text.to_owned())));
    stop(&green).await;
}

#[tokio::test(start_paused = true)]
async fn where_the_other_one_is_forgotten_it_begins_after_what_that_had_committed_then() {
    let (memory, ledger) = (InMemory::new(), Ledger::new());
    let (blue, green) = (pod(&memory), pod(&memory));
    let last = in_the_middle(&blue, &ledger).await;
    let second = successor(&green, "green", &ledger).await.expect("registered");
    let prior = green.consumer("notes", "note").expect("valid names");
    assert!(prior.forget().await.expect("it is told"));
    commits(&second, last).await;
    let wanted = [("blue", "in flight"), ("green", "in flight"), ("green", "waiting")];
    assert_eq!(deliveries(&ledger), wanted.map(|(pod, text)| (pod, text.to_owned())));
    // A pod that comes later, too.
    let late = pod(&memory);
    successor(&late, "late", &ledger).await.expect("registered");
    stop(&late).await;
    stop(&blue).await;
    stop(&green).await;
}

#[tokio::test(start_paused = true)]
async fn there_is_no_successor_of_nobody_and_one_of_each() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = pod(&memory);
    let error = successor(&engine, "pod", &ledger).await.expect_err("there is no `note`");
    assert!(matches!(&error, ConsumerError::Unknown { name, .. } if name == "note"), "{error:?}");
    noting(&engine, "pod", &ledger).await.expect("registered");
    successor(&engine, "pod", &ledger).await.expect("registered");
    let third =
        notes(&engine).on_event("note-3", |_| async { Ok::<_, std::io::Error>(()) }).successor_of("note");
    let error = third.await.expect_err("its place is taken");
    assert!(matches!(&error, ConsumerError::Retired { successor, .. } if successor == "note-2"), "{error:?}");
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_dies_while_it_takes_a_place_is_followed_by_one_that_goes_on() {
    // At each of its steps: with the write before it committed or not.
    for steps in 1.. {
        assert!(steps < 1_000, "it comes to an end");
        let (memory, ledger) = (InMemory::new(), Ledger::new());
        let blue = pod(&memory);
        let first = noting(&blue, "blue", &ledger).await.expect("registered");
        let before = append(&notes(&blue), "before").await;
        commits(&first, before).await;
        let plan = Plan::seeded(steps).odds(Kind::Delay, 0.0).stop_after(steps);
        let faulty = Faulty::new(Arc::new(memory.clone()), plan, &Link::new());
        let faults = faulty.faults();
        let dying = Engine::builder(Arc::new(faulty)).deterministic().start();
        let takes = async {
            let second = successor(&dying, "dying", &ledger).await.expect("it is stopped before it fails");
            commits(&second, before).await;
        };
        let is_through = tokio::select! {
            biased;
            () = faults.stopped() => false,
            () = takes => true,
        };
        kill(&dying).await;
        let last = append(&notes(&blue), "after").await;
        let green = pod(&memory);
        let second = successor(&green, "green", &ledger).await.expect("registered");
        commits(&second, last).await;
        let texts = ledger.texts();
        assert!(texts.contains(&"after".to_owned()), "after {steps} steps: {:#?}", ledger.lines());
        assert_eq!(texts[0], "before");
        assert_eq!(
            texts.iter().filter(|text| *text == "before").count(),
            1,
            "{steps}: {:#?}",
            ledger.lines()
        );
        kill(&blue).await;
        kill(&green).await;
        if is_through {
            assert!(steps > 20, "it has taken steps: {steps}");
            break;
        }
    }
}
