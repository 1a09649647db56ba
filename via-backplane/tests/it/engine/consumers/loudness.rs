//! A consumer that is stuck is loud; one that merely lags is not.

use ::metrics::set_default_local_recorder;
use tokio::time::sleep;
use via_backplane::Key;

use super::*;
use crate::engine::{append_raw, measures::Meter, record};

fn of(metric: &str) -> String {
    format!("via_consumer_{metric}{{family=notes,consumer=note}}")
}

#[tokio::test(start_paused = true)]
async fn one_that_keeps_failing_is_told_in_metrics_and_health() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = pod(&memory);
    let (fails, is_failing) = watch::channel(true);
    let handler = move |_: Delivery<Noted>| {
        let fails = *is_failing.borrow();
        async move { if fails { Err("the endpoint is closed") } else { Ok(()) } }
    };
    let consumer = notes(&engine).on_event("note", handler).await.expect("registered");
    owns(&consumer).await;
    append(&notes(&engine), "one").await;
    let last = append(&notes(&engine), "two").await;
    sleep(Duration::from_secs(30)).await;
    assert!(engine.health().stuck.is_empty(), "not for a minute");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(engine.health().stuck, ["notes/note"]);
    assert_eq!((meter.gauge(&of("owner")), meter.gauge(&of("lag_events"))), (1.0, 2.0));
    let attempts = meter.gauge(&of("attempts"));
    assert!(attempts > 5.0 && meter.count(&of("errors_total")) as f64 == attempts, "{attempts}");
    assert!(meter.gauge(&of("lag_seconds")) >= 0.0);
    fails.send_replace(false);
    commits(&consumer, last).await;
    sleep(Duration::from_secs(10)).await;
    assert!(engine.health().stuck.is_empty(), "{:?}", engine.health());
    assert_eq!((meter.gauge(&of("attempts")), meter.gauge(&of("lag_events"))), (0.0, 0.0));
    assert_eq!(meter.count(&of("handled_total")), 2);
    stop(&engine).await;
    assert_eq!(meter.gauge(&of("owner")), 0.0);
}

#[tokio::test(start_paused = true)]
async fn one_that_lags_and_gets_on_is_well() {
    let memory = InMemory::new();
    let engine = pod(&memory);
    let handler = |_: Delivery<Noted>| async {
        sleep(Duration::from_secs(20)).await;
        Ok::<_, std::io::Error>(())
    };
    let consumer = notes(&engine).on_event("note", handler).await.expect("registered");
    owns(&consumer).await;
    for number in 0..20 {
        append(&notes(&engine), &format!("{number}")).await;
    }
    for _ in 0..300 {
        sleep(Duration::from_secs(1)).await;
        assert!(engine.health().stuck.is_empty(), "{:?}", engine.health());
    }
    engine.shutdown(Duration::from_secs(60)).await.expect("no task failed");
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_a_newer_binary_is_loud_though_nobody_runs_it() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = pod(&memory);
    let consumer = noting(&engine, "pod", &Ledger::new()).await.expect("registered");
    owns(&consumer).await;
    let key = Key::of(notes(&engine).key().family());
    append_raw(&memory, &key, record("test.noted", 3, b"\x81\xa4text\xa5newer")).await;
    let given_up = consumer.stands(|standing| *standing == Standing::Contending);
    timeout(LONG, given_up).await.expect("it gives up");
    sleep(Duration::from_secs(60)).await;
    assert_eq!((meter.gauge(&of("blocked")), meter.gauge(&of("owner"))), (1.0, 0.0));
    assert_eq!(engine.health().stuck, ["notes/note"]);
    let state = engine.consumer("notes", "note").expect("valid names").state().await.expect("registered");
    assert_eq!(state.needs, Some(("test.noted".to_owned(), 3)));
    stop(&engine).await;
}
