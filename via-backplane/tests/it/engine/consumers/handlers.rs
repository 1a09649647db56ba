//! What a handler is given, and what becomes of its failures.

use tokio::time::{Instant, sleep};
use via_backplane::{AppendOptions, TraceContext};

use super::*;

#[tokio::test(start_paused = true)]
async fn every_event_is_delivered_in_order_and_what_was_handled_is_not_delivered_again() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = pod(&memory);
    let consumer = noting(&engine, "first", &ledger).await.expect("registered");
    let notes = notes(&engine);
    let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let options = AppendOptions::default().trace(trace.expect("valid"));
    notes.append_with(noted("one"), options).await.expect("memory takes every append");
    let room = notes.instance("room").expect("valid");
    append(&room, "two").await;
    let last = append(&notes, "three").await;
    commits(&consumer, last).await;
    stop(&engine).await;
    let lines = ledger.lines();
    assert_eq!(ledger.texts(), ["one", "two", "three"], "of the family, instances included");
    assert!(lines.iter().all(|line| (line.attempt, line.term) == (1, 1)), "{lines:#?}");
    // The same name, in a new process.
    let engine = pod(&memory);
    let consumer = noting(&engine, "second", &ledger).await.expect("registered");
    let last = append(&super::notes(&engine), "four").await;
    commits(&consumer, last).await;
    assert_eq!(ledger.texts(), ["one", "two", "three", "four"]);
    assert_eq!(ledger.lines()[3].term, 2);
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_says_all_that_is_known_of_its_event() {
    let memory = InMemory::new();
    let engine = pod(&memory);
    let room = notes(&engine).instance("room").expect("valid");
    let (given, mut taken) = tokio::sync::mpsc::channel(1);
    let handler = move |delivery: Delivery<Noted>| {
        let given = given.clone();
        async move { given.send(delivery).await }
    };
    room.on_event("tell", handler).await.expect("registered");
    let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let options = AppendOptions::default().trace(trace.expect("valid"));
    append(&notes(&engine), "of another key").await;
    let position = room.append_with(noted("one"), options).await.expect("memory takes every append");
    let told = taken.recv().await.expect("one is delivered");
    assert_eq!(
        (told.event, told.key.clone(), told.offset),
        (noted("one"), position.key, position.cursor.offset)
    );
    assert_eq!((told.id.0, told.attempt, told.trace), (position.cursor.id.0, 1, trace));
    assert_eq!(told.id.to_string(), told.id.to_string());
    assert!(told.time.elapsed().is_ok_and(|age| age < Duration::from_secs(3_600)), "{:?}", told.time);
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_until_it_does_not_and_holds_up_what_follows() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = pod(&memory);
    let (noted_in, failures) = (ledger.clone(), Arc::new(Mutex::new(4_i32)));
    let handler = move |delivery: Delivery<Noted>| {
        noted_in.note("pod", &delivery);
        let failures = failures.clone();
        async move {
            if delivery.event.text != "one" {
                return Ok(());
            }
            let left = {
                let mut left = failures.lock();
                *left -= 1;
                *left
            };
            match left {
                3 => Err("refused"),
                2 => panic!("out of cheese"),
                1 => {
                    sleep(LONG).await;
                    Ok(())
                }
                0 => Err("refused again"),
                _ => Ok(()),
            }
        }
    };
    let notes = notes(&engine);
    append(&notes, "one").await;
    let last = append(&notes, "two").await;
    let started = Instant::now();
    let consumer =
        notes.on_event("note", handler).handler_timeout(Duration::from_secs(7)).await.expect("registered");
    commits(&consumer, last).await;
    let attempts: Vec<_> = ledger.lines().iter().map(|line| (line.text.clone(), line.attempt)).collect();
    let wanted = [("one", 1), ("one", 2), ("one", 3), ("one", 4), ("one", 5), ("two", 1)];
    assert_eq!(attempts, wanted.map(|(text, attempt)| (text.to_owned(), attempt)));
    let took = started.elapsed();
    assert!((7.0..8.0).contains(&took.as_secs_f64()), "the timeout, and four short delays: {took:?}");
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn handlers_run_beside_each_other_and_those_of_a_key_one_after_the_other() {
    let memory = InMemory::new();
    let engine = pod(&memory);
    let notes = notes(&engine);
    let running = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let most = Arc::new(Mutex::new(0));
    let order = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let (most, order) = (most.clone(), order.clone());
        move |delivery: Delivery<Noted>| {
            let (running, most, order) = (running.clone(), most.clone(), order.clone());
            async move {
                let key = delivery.key.to_string();
                {
                    let mut running = running.lock();
                    let of_key = running.entry(key.clone()).or_default();
                    assert_eq!(*of_key, 0, "two of `{key}` at a time");
                    *of_key += 1;
                    let all = running.values().sum::<usize>();
                    let mut most = most.lock();
                    *most = all.max(*most);
                }
                // Later ones are faster.
                sleep(Duration::from_millis(1_000 - delivery.offset.0)).await;
                order.lock().push((key.clone(), delivery.event.text));
                running.lock().insert(key, 0);
                Ok::<_, std::io::Error>(())
            }
        }
    };
    let mut last = Offset::BEGIN;
    for number in 0..60 {
        let instance = notes.instance(format!("{}", number % 6)).expect("valid");
        last = append(&instance, &format!("{number:02}")).await;
    }
    let consumer = notes.on_event("note", handler).concurrency(4).await.expect("registered");
    commits(&consumer, last).await;
    assert_eq!(*most.lock(), 4);
    for key in 0..6 {
        let of_key: Vec<_> =
            order.lock().iter().filter(|(at, _)| *at == format!("notes/{key}")).cloned().collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
        assert_eq!(of_key.len(), 10);
    }
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_never_passes_what_was_not_handled() {
    let memory = InMemory::new();
    let ledger = Ledger::new();
    let engine = pod(&memory);
    let notes = notes(&engine);
    let ledger_of_handler = ledger.clone();
    let handler = move |delivery: Delivery<Noted>| {
        ledger_of_handler.note("pod", &delivery);
        let waits = delivery.event.text == "slow";
        async move {
            if waits {
                std::future::pending::<()>().await;
            }
            Ok::<_, std::io::Error>(())
        }
    };
    let before = append(&notes.instance("a").expect("valid"), "fast").await;
    append(&notes.instance("b").expect("valid"), "slow").await;
    append(&notes.instance("c").expect("valid"), "fast too").await;
    let consumer = notes.on_event("note", handler).concurrency(8).await.expect("registered");
    commits(&consumer, before).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!((consumer.committed(), ledger.lines().len()), (before, 3));
    kill(&engine).await;
    // The next one has the slow one again, and what came after it.
    let next = pod(&memory);
    noting(&next, "next", &ledger).await.expect("registered");
    let again = ledger.holds(5).await;
    let again: Vec<_> = again[3..].iter().map(|line| line.text.as_str()).collect();
    assert_eq!(again, ["slow", "fast too"]);
    stop(&next).await;
}
