//! What PROTOCOL §5 has consumers do is needed: with it a scenario goes well, and without it the same one does not.
//!
//! What it has owners do late in a lease is in `effects/rules.rs`; what it has contenders time, in `engine/consumer/lease/tests.rs`.

use via_backplane::{Family, Key, Rules};

use super::{deaf::Deaf, *};
use crate::engine::{append_raw, record};

fn pod_under(memory: &InMemory, rules: Rules) -> Engine {
    Engine::builder(Arc::new(memory.clone())).deterministic().rules(rules).start()
}

/// Which pods were given which texts, when the place of an owner was taken that hears of nothing until it renews its lease.
async fn succession(rules: Rules) -> Vec<(&'static str, String)> {
    let (memory, ledger) = (InMemory::new(), Ledger::new());
    let blue = Engine::builder(Arc::new(Deaf::new(&memory))).deterministic().rules(rules).start();
    let green = pod_under(&memory, rules);
    let first = noting(&blue, "blue", &ledger).lease(LEASE).await.expect("registered");
    let one = append(&notes(&green), "one").await;
    commits(&first, one).await;
    let given = ledger.clone();
    let handler = move |delivery: Delivery<Noted>| {
        given.note("green", &delivery);
        async { Ok::<_, std::io::Error>(()) }
    };
    let second = notes(&green).on_event("note-2", handler).successor_of("note").lease(LEASE);
    let second = second.await.expect("registered");
    append(&notes(&green), "two").await;
    // Until it renews, and finds out.
    first.stands(|standing| *standing == Standing::Contending).await;
    let three = append(&notes(&green), "three").await;
    commits(&second, three).await;
    stop(&blue).await;
    stop(&green).await;
    ledger.lines().into_iter().map(|line| (line.pod, line.text)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_successor_waits_for_what_an_owner_begins_that_has_not_heard_of_it() {
    let given = succession(Rules::ALL).await;
    let wanted = [("blue", "one"), ("blue", "two"), ("green", "three")];
    assert_eq!(given, wanted.map(|(pod, text)| (pod, text.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn without_that_both_handle_what_was_begun_after_the_old_one_was_retired() {
    let given = succession(Rules { succeed_what_rests: false, ..Rules::ALL }).await;
    let of_two: Vec<_> = given.iter().filter(|(_, text)| text == "two").map(|(pod, _)| *pod).collect();
    assert!(of_two.contains(&"blue") && of_two.contains(&"green"), "{given:?}");
}

/// How many pods an event kills that is to be attempted three times; of ten.
async fn killed(rules: Rules) -> usize {
    let memory = InMemory::new();
    append(&notes(&pod_under(&memory, rules)), "deadly").await;
    let last = append(&notes(&pod_under(&memory, rules)), "harmless").await;
    for killed in 0..10 {
        let engine = pod_under(&memory, rules);
        let (begun, mut begins) = tokio::sync::mpsc::channel(1);
        let handler = move |delivery: Delivery<Noted>| {
            let begun = begun.clone();
            async move {
                if delivery.event.text == "deadly" {
                    begun.send(()).await.expect("somebody waits");
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::io::Error>(())
            }
        };
        let consumer = notes(&engine).on_event("note", handler).max_attempts(3);
        let consumer = consumer.await.expect("registered");
        let begins = async { begins.recv().await.expect("it begins") };
        tokio::select! {
            () = begins => kill(&engine).await,
            () = commits(&consumer, last) => {
                stop(&engine).await;
                return killed;
            }
        }
    }
    10
}

#[tokio::test(start_paused = true)]
async fn a_death_is_an_attempt() {
    assert_eq!(killed(Rules::ALL).await, 3);
    let never = killed(Rules { count_deaths: false, ..Rules::ALL }).await;
    assert_eq!(never, 10, "without that it kills them all");
}

/// Whether a consumer whose next event nobody knows is passed round, rather than left alone.
async fn is_passed_round(rules: Rules) -> bool {
    let (memory, ledger) = (InMemory::new(), Ledger::new());
    let pods = [pod_under(&memory, rules), pod_under(&memory, rules)];
    let first = noting(&pods[0], "old", &ledger).await.expect("registered");
    noting(&pods[1], "old", &ledger).await.expect("registered");
    let family = Family::new("notes").expect("valid");
    append_raw(&memory, &Key::of(&family), record("test.noted", 3, b"\x81\xa4text\xa5newer")).await;
    let is_late = |standing: &Standing| matches!(standing, Standing::Owning { term } if *term > 20);
    let passed = timeout(LONG, first.stands(is_late)).await.is_ok();
    for engine in &pods {
        stop(engine).await;
    }
    passed
}

#[tokio::test(start_paused = true)]
async fn only_pods_that_know_what_comes_next_contend() {
    assert!(!is_passed_round(Rules::ALL).await);
    let off = Rules { contend_if_known: false, ..Rules::ALL };
    assert!(is_passed_round(off).await, "without that nobody leaves it alone");
}

/// How many letters there are of one event, which two owners gave up one after the other.
async fn letters_of_one(rules: Rules) -> usize {
    let memory = InMemory::new();
    let (dying, other) = (pod_under(&memory, rules), pod_under(&memory, rules));
    let refuses = |engine: &Engine| {
        let handler = |_: Delivery<Noted>| async { Err::<(), _>("refused") };
        notes(engine).on_event("note", handler).max_attempts(1)
    };
    let first = refuses(&dying).commit_every(100, LONG).await.expect("registered");
    owns(&first).await;
    let letters = other.dead_letters("notes", "note").expect("valid names");
    let mut changes = letters.changes();
    let offset = append(&notes(&other), "one").await;
    while letters.list().await.is_empty() {
        assert!(changes.changed().await, "the engine lives");
    }
    // It dies before it has committed that, and the next one gives the event up because of it.
    kill(&dying).await;
    let second = refuses(&other).await.expect("registered");
    commits(&second, offset).await;
    let letters = letters.list().await.len();
    stop(&other).await;
    letters
}

#[tokio::test(start_paused = true)]
async fn what_two_owners_give_up_is_one_letter() {
    assert_eq!(letters_of_one(Rules::ALL).await, 1);
    let twice = letters_of_one(Rules { know_letters_by_place: false, ..Rules::ALL }).await;
    assert_eq!(twice, 2, "without that there are two");
}
