//! What is given up, and what becomes of it.

use std::time::SystemTime;

use ::metrics::set_default_local_recorder;
use tokio::time::{Instant, sleep};
use via_backplane::{Clock, DeadLetter, DeadLetters, Key, UnreadableLetter, Which};

use super::*;
use crate::engine::{append_raw, measures::Meter, record};

fn letters(engine: &Engine) -> DeadLetters {
    engine.dead_letters("notes", "note").expect("valid names")
}

/// A consumer that fails for what is in the list.
fn refusing(engine: &Engine, ledger: &Ledger, refused: &Refused) -> OnEvent<Noted> {
    let (ledger, refused) = (ledger.clone(), refused.clone());
    notes(engine).on_event("note", move |delivery: Delivery<Noted>| {
        ledger.note("pod", &delivery);
        let fails = refused.0.lock().contains(&delivery.event.text);
        async move { if fails { Err("refused") } else { Ok(()) } }
    })
}

#[derive(Clone, Default)]
struct Refused(Arc<Mutex<Vec<String>>>);

impl Refused {
    fn of(texts: &[&str]) -> Self {
        Self(Arc::new(Mutex::new(texts.iter().map(ToString::to_string).collect())))
    }

    fn nothing(&self) {
        self.0.lock().clear();
    }
}

/// A pod that has given the first event up.
async fn after_giving_up(memory: &InMemory, ledger: &Ledger) -> Engine {
    let engine = pod(memory);
    let consumer = refusing(&engine, ledger, &Refused::of(&["one"])).max_attempts(1);
    let consumer = consumer.await.expect("registered");
    let first = append(&notes(&engine), "one").await;
    commits(&consumer, first).await;
    engine
}

/// Waits until there are as many letters as `wanted` says.
async fn until(letters: &DeadLetters, wanted: impl Fn(&[DeadLetter]) -> bool) -> Vec<DeadLetter> {
    let mut changes = letters.changes();
    let reached = async {
        loop {
            let now = letters.list().await;
            if wanted(&now) {
                return now;
            }
            assert!(changes.changed().await, "the engine lives");
        }
    };
    match timeout(LONG, reached).await {
        Ok(now) => now,
        Err(_) => panic!("{:#?}", letters.list().await),
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_too_often_is_kept_and_the_next_one_has_its_turn() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let (engine, other) = (pod(&memory), pod(&memory));
    let refused = Refused::of(&["two"]);
    let consumer = refusing(&engine, &ledger, &refused).max_attempts(3).await.expect("registered");
    let notes = notes(&engine);
    append(&notes, "one").await;
    let room = notes.instance("room").expect("valid");
    let position = room.append(noted("two")).await.expect("memory takes every append");
    let last = append(&notes, "three").await;
    commits(&consumer, last).await;
    assert_eq!(ledger.texts(), ["one", "two", "two", "two", "three"]);
    let kept = until(&letters(&other), |letters| letters.len() == 1).await;
    let letter = &kept[0];
    assert_eq!((&letter.key, letter.at), (&position.key, position.cursor.head()));
    assert_eq!(letter.id.map(|id| id.0), Some(position.cursor.id.0));
    assert_eq!((letter.attempts, letter.cause.as_str()), (3, "refused"));
    assert!(letter.first_failed <= letter.last_failed && !letter.is_wanted && letter.redriven == 0);
    assert_eq!(letter.event::<Noted>().expect("it decodes"), noted("two"));
    assert_eq!(letters(&other).show(letter.at).await.as_ref(), Some(letter));
    stop(&engine).await;
    stop(&other).await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_wanted_again_is_handled_by_the_owner_under_the_same_id() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let (engine, other) = (pod(&memory), pod(&memory));
    let refused = Refused::of(&["one", "two", "three"]);
    let consumer = refusing(&engine, &ledger, &refused).max_attempts(1).await.expect("registered");
    let notes = notes(&engine);
    for text in ["one", "two"] {
        append(&notes, text).await;
    }
    let last = append(&notes, "three").await;
    commits(&consumer, last).await;
    let kept = until(&letters(&other), |letters| letters.len() == 3).await;
    refused.nothing();
    assert_eq!(letters(&other).redrive(Which::One(kept[1].at)).await.expect("requested"), 1);
    let left = until(&letters(&other), |letters| letters.len() == 2).await;
    assert_eq!([&left[0], &left[1]], [&kept[0], &kept[2]]);
    let lines = ledger.lines();
    assert_eq!((lines[3].text.as_str(), lines[3].attempt, lines[3].id), ("two", 1, lines[1].id));
    // The rest, bounded and then all; what is wanted already is not wanted twice.
    assert_eq!(letters(&other).redrive(Which::First(1)).await.expect("requested"), 1);
    letters(&other).redrive(Which::All).await.expect("requested");
    until(&letters(&other), <[DeadLetter]>::is_empty).await;
    assert_eq!(ledger.texts()[3..], ["two", "one", "three"]);
    assert_eq!(letters(&other).redrive(Which::All).await.expect("nothing is left"), 0);
    stop(&engine).await;
    stop(&other).await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_fails_again_is_dead_again_and_holds_up_nothing() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = pod(&memory);
    let refused = Refused::of(&["one"]);
    let consumer = refusing(&engine, &ledger, &refused).max_attempts(3).await.expect("registered");
    let notes = notes(&engine);
    let first = append(&notes, "one").await;
    commits(&consumer, first).await;
    until(&letters(&engine), |letters| letters.len() == 1).await;
    letters(&engine).redrive(Which::All).await.expect("requested");
    let mut last = first;
    for _ in 0..10 {
        last = append(&notes, "beside it").await;
    }
    commits(&consumer, last).await;
    let again = until(&letters(&engine), |letters| letters[0].redriven == 1 && !letters[0].is_wanted).await;
    assert_eq!((again[0].attempts, again[0].cause.as_str()), (3, "refused"));
    let attempts: Vec<_> =
        ledger.lines().iter().filter(|line| line.text == "one").map(|line| line.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 1, 2, 3]);
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_decode_is_kept_as_it_is() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = pod(&memory);
    let consumer = noting(&engine, "pod", &ledger).await.expect("registered");
    let key = Key::of(notes(&engine).key().family());
    append_raw(&memory, &key, &b"no envelope"[..]).await;
    append_raw(&memory, &key, record("test.noted", 2, b"\xc1")).await;
    let last = append(&notes(&engine), "one").await;
    commits(&consumer, last).await;
    assert_eq!(ledger.texts(), ["one"]);
    let kept = until(&letters(&engine), |letters| letters.len() == 2).await;
    assert_eq!((&kept[0].record[..], kept[0].id), (&b"no envelope"[..], None));
    assert!(matches!(kept[0].event::<Noted>(), Err(UnreadableLetter::Envelope(_))), "{:?}", kept[0]);
    assert!(matches!(kept[1].event::<Noted>(), Err(UnreadableLetter::Payload(_))), "{:?}", kept[1]);
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_is_not_given_up() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = pod(&memory);
    let refused = Refused::of(&["one"]);
    let (opens, is_open) = watch::channel(false);
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = told.clone();
    let sink = move |letter: DeadLetter| {
        telling.lock().push((letter.cause, letter.attempts));
        let is_open = *is_open.borrow();
        async move { if is_open { Ok(()) } else { Err("the sink is blocked") } }
    };
    let consumer =
        refusing(&engine, &ledger, &refused).max_attempts(2).dead_letter(sink).await.expect("registered");
    append(&notes(&engine), "one").await;
    let last = append(&notes(&engine), "two").await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(ledger.texts(), ["one", "one"], "it is attempted no more, and nothing passes it");
    assert_eq!(letters(&engine).list().await, []);
    assert!(told.lock().len() > 2);
    opens.send_replace(true);
    commits(&consumer, last).await;
    until(&letters(&engine), |letters| letters.len() == 1).await;
    assert!(told.lock().iter().all(|(cause, attempts)| (cause.as_str(), *attempts) == ("refused", 2)));
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_kills_its_pod_is_given_up_and_what_was_begun_beside_it_is_not() {
    let memory = InMemory::new();
    let writer = notes(&pod(&memory));
    let deadly = append(&writer.instance("a").expect("valid"), "deadly").await;
    let last = append(&writer.instance("b").expect("valid"), "harmless").await;
    let mut terms = Vec::new();
    // As a process does that is killed in the middle of a handler, over and over.
    for _ in 0..3 {
        let engine = pod(&memory);
        let (begun, mut begins) = tokio::sync::mpsc::channel(1);
        let handler = move |delivery: Delivery<Noted>| {
            let begun = begun.clone();
            async move {
                if delivery.event.text == "deadly" {
                    begun.send(delivery.attempt).await.expect("somebody waits");
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::io::Error>(())
            }
        };
        let consumer = notes(&engine).on_event("note", handler).max_attempts(3).concurrency(2);
        let consumer = consumer.await.expect("registered");
        terms.push((owns(&consumer).await, begins.recv().await.expect("it begins")));
        kill(&engine).await;
    }
    assert_eq!(terms, [(1, 1), (2, 2), (3, 3)]);
    let engine = pod(&memory);
    let ledger = Ledger::new();
    let consumer = noting(&engine, "last", &ledger).max_attempts(3).await.expect("registered");
    commits(&consumer, last).await;
    assert_eq!(ledger.texts(), ["harmless"]);
    let kept = until(&letters(&engine), |letters| letters.len() == 1).await;
    assert_eq!((kept[0].at.offset, kept[0].attempts), (deadly, 3));
    assert_eq!(kept[0].cause, "a pod died while it was handled");
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_kills_its_pod_is_dead_again() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    stop(&after_giving_up(&memory, &ledger).await).await;
    let engine = pod(&memory);
    let (begun, mut begins) = tokio::sync::mpsc::channel(1);
    let handler = move |_: Delivery<Noted>| {
        let begun = begun.clone();
        async move {
            begun.send(()).await.expect("somebody waits");
            std::future::pending::<Result<(), std::io::Error>>().await
        }
    };
    notes(&engine).on_event("note", handler).await.expect("registered");
    letters(&engine).redrive(Which::All).await.expect("requested");
    begins.recv().await.expect("it begins");
    kill(&engine).await;
    let engine = pod(&memory);
    let consumer = noting(&engine, "last", &ledger).await.expect("registered");
    owns(&consumer).await;
    let kept = until(&letters(&engine), |letters| letters.len() == 1 && !letters[0].is_wanted).await;
    assert_eq!((kept[0].redriven, kept[0].cause.as_str()), (1, "a pod died while it was handled again"));
    assert_eq!(ledger.texts(), ["one"]);
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_wanted_after_a_death_did_not_cause_it() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    kill(&after_giving_up(&memory, &ledger).await).await;
    let engine = pod(&memory);
    letters(&engine).redrive(Which::All).await.expect("requested");
    noting(&engine, "next", &ledger).await.expect("registered");
    until(&letters(&engine), <[DeadLetter]>::is_empty).await;
    let given: Vec<_> = ledger.lines().into_iter().map(|line| (line.pod, line.text)).collect();
    assert_eq!(given, [("pod", "one".to_owned()), ("next", "one".to_owned())]);
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn letters_are_dropped_one_by_one_or_by_age() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = pod(&memory);
    let refused = Refused::of(&["one", "two", "three"]);
    let consumer = refusing(&engine, &ledger, &refused).max_attempts(1).await.expect("registered");
    let mut last = Offset::BEGIN;
    for text in ["one", "two", "three"] {
        last = append(&notes(&engine), text).await;
    }
    commits(&consumer, last).await;
    let kept = until(&letters(&engine), |letters| letters.len() == 3).await;
    assert_eq!(letters(&engine).drop_letters(Which::One(kept[0].at)).await.expect("dropped"), 1);
    assert_eq!(letters(&engine).drop_letters(Which::One(kept[0].at)).await.expect("asked again"), 0);
    let long_ago = kept[1].last_failed - Duration::from_secs(1);
    assert_eq!(letters(&engine).drop_letters(Which::FailedBefore(long_ago)).await.expect("asked"), 0);
    let later = kept[2].last_failed + Duration::from_secs(1);
    assert_eq!(letters(&engine).drop_letters(Which::FailedBefore(later)).await.expect("dropped"), 2);
    until(&letters(&engine), <[DeadLetter]>::is_empty).await;
    stop(&engine).await;
}

/// A time of day that goes as paused time does.
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn letters_expire_where_that_is_wanted_but_none_that_is_to_be_handled_again() {
    const MINUTE: Duration = Duration::from_secs(60);
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let clock = Paused(Instant::now());
    let engine = Engine::builder(Arc::new(InMemory::new())).deterministic().clock(clock).start();
    let (hangs, is_hanging) = watch::channel(false);
    let handler = move |_: Delivery<Noted>| {
        let hangs = *is_hanging.borrow();
        async move { if hangs { std::future::pending().await } else { Err::<(), _>("refused") } }
    };
    let registered = notes(&engine).on_event("note", handler).max_attempts(1).handler_timeout(1_000 * MINUTE);
    let consumer = registered.expire_letters(30 * MINUTE).await.expect("registered");
    append(&notes(&engine), "one").await;
    let wanted = append(&notes(&engine), "two").await;
    commits(&consumer, wanted).await;
    let kept = until(&letters(&engine), |letters| letters.len() == 2).await;
    let since = Instant::now();
    hangs.send_replace(true);
    letters(&engine).redrive(Which::One(kept[1].at)).await.expect("requested");
    let left = until(&letters(&engine), |letters| letters.len() < 2).await;
    let took = since.elapsed();
    assert!((29 * MINUTE..31 * MINUTE).contains(&took), "{took:?}");
    assert_eq!(left.iter().map(|letter| letter.at.offset).collect::<Vec<_>>(), [wanted]);
    assert_eq!(meter.count("via_consumer_expired_total{family=notes,consumer=note}"), 1);
    kill(&engine).await;
}
