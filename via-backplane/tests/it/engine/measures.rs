//! What the metrics say is what happened.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    set_default_local_recorder,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use via_backplane::{
    Engine, OnStop, Status, Waited,
    fault::{Faulty, Link, Plan},
};
use via_inmem::InMemory;

use super::{PATIENCE, append_raw, halted, note, noted, notes, record, start, stop, until};

/// Within which an outage, and its end, is to be seen.
const SOON: Duration = Duration::from_secs(4);

/// A recorder of one thread that is asked afterwards. A metric is named as Prometheus writes it.
#[derive(Default)]
pub(crate) struct Meter {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Samples>>>,
}

#[derive(Default)]
struct Samples(AtomicU64);

impl HistogramFn for Samples {
    fn record(&self, _value: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Meter {
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.counters.lock().get(name).map_or(0, |counter| counter.load(Ordering::SeqCst))
    }

    pub(super) fn gauge(&self, name: &str) -> f64 {
        self.gauges.lock().get(name).map_or(f64::NAN, |gauge| f64::from_bits(gauge.load(Ordering::SeqCst)))
    }

    fn samples(&self, name: &str) -> u64 {
        self.histograms.lock().get(name).map_or(0, |samples| samples.0.load(Ordering::SeqCst))
    }

    /// Waits in paused time until a gauge says this.
    async fn says(&self, name: &str, wanted: f64) {
        let says = async {
            while self.gauge(name) != wanted {
                sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(timeout(PATIENCE, says).await.is_ok(), "`{name}` is {}, not {wanted}", self.gauge(name));
    }
}

fn named<T: Default>(metrics: &Mutex<BTreeMap<String, Arc<T>>>, key: &Key) -> Arc<T> {
    let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    let name = if labels.is_empty() {
        key.name().to_owned()
    } else {
        format!("{}{{{}}}", key.name(), labels.join(","))
    };
    metrics.lock().entry(name).or_default().clone()
}

impl Recorder for Meter {
    fn describe_counter(&self, _name: KeyName, _unit: Option<Unit>, _help: SharedString) {}
    fn describe_gauge(&self, _name: KeyName, _unit: Option<Unit>, _help: SharedString) {}
    fn describe_histogram(&self, _name: KeyName, _unit: Option<Unit>, _help: SharedString) {}

    fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
        Counter::from_arc(named(&self.counters, key))
    }

    fn register_gauge(&self, key: &Key, _metadata: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(named(&self.gauges, key))
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(named(&self.histograms, key))
    }
}

#[tokio::test]
async fn appends_and_folds_are_counted_and_timed() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    note(&notes, "one").await;
    let last = notes.append_batch(["two", "three"].map(noted)).await.expect("memory takes every append");
    assert_eq!(notes.wait_for(&last, PATIENCE).await, Waited::Reached);
    assert_eq!(meter.count("via_events_appended_total{family=notes}"), 3);
    assert_eq!(meter.gauge("via_fold_offset{family=notes}"), last.cursor.offset.0 as f64);
    assert_eq!(meter.gauge("via_fold_lag_events{family=notes}"), 0.0);
    assert!(meter.gauge("via_fold_lag_seconds{family=notes}") < PATIENCE.as_secs_f64());
    // Answers that need no waiting are timed one in 64.
    for n in 0..128 {
        notes.append(noted(&n.to_string())).await.expect("memory takes every append");
    }
    assert_eq!(meter.samples("via_backplane_append_seconds{family=notes}"), 2);
    stop(&engine).await;
}

#[tokio::test]
async fn copies_are_counted() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    let held = notes.loaded().await;
    note(&notes, "one").await;
    assert_eq!(meter.count("via_fold_copies_total{family=notes}"), 1, "{held:?} is held, so it was copied");
    stop(&engine).await;
}

#[tokio::test]
async fn halts_are_counted_up_by_reason_and_down_by_a_log_that_starts_over() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let engine = start(&memory);
    let notes = notes(&engine);
    let at = |name: &str| notes.instance(name).expect("a valid name");
    let (panics, newer, unknown) = (at("panics"), at("newer"), at("unknown"));
    panics.append(noted("panic")).await.expect("memory takes every append");
    append_raw(&memory, newer.key(), record("test.noted", 3, b"")).await;
    append_raw(&memory, unknown.key(), record("test.other", 1, b"")).await;
    // A second record of a halted key halts nothing more.
    append_raw(&memory, unknown.key(), record("test.other", 1, b"")).await;
    append_raw(&memory, notes.key(), &b"\xff"[..]).await;
    note(&notes, "last").await;
    for key in [&panics, &newer, &unknown] {
        halted(key).await;
    }
    let reasons = ["panicked", "newer_version", "unknown_event"];
    let halted =
        || reasons.map(|reason| meter.gauge(&format!("via_fold_halted{{family=notes,reason={reason}}}")));
    assert_eq!(halted(), [1.0; 3]);
    assert_eq!(meter.count("via_events_forward_incompatible_total{family=notes}"), 2);
    assert_eq!(meter.count("via_events_undecodable_total{family=notes}"), 1);
    assert_eq!(engine.health().halted.len(), 3);

    memory.recreate_log(notes.key().family());
    note(&notes, "anew").await;
    until(&panics, |_| panics.status() == Status::Live).await;
    assert_eq!(halted(), [0.0; 3]);
    assert_eq!(meter.count("via_events_epoch_reset_total{family=notes}"), 1);
    assert!(engine.health().halted.is_empty());
    stop(&engine).await;
}

#[tokio::test]
async fn a_hole_that_no_snapshot_covers_is_counted() {
    use via_backplane::Backplane as _;

    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let notes_key = via_backplane::Key::of(&via_backplane::Family::new("notes").expect("a valid name"));
    append_raw(&memory, &notes_key, record("test.noted", 2, b"")).await;
    let head = append_raw(&memory, &notes_key, record("test.noted", 2, b"")).await;
    memory.compactor().expect("memory compacts").compact(&notes_key, head).await.expect("memory compacts");
    let engine = start(&memory);
    let notes = notes(&engine);
    halted(&notes).await;
    assert_eq!(meter.count("via_events_compaction_gap_halt_total{family=notes}"), 1);
    assert_eq!(meter.gauge("via_fold_halted{family=notes,reason=compacted}"), 1.0);
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_seen_by_ping_tail_and_watch() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let link = Link::new();
    let engine = Engine::start(Arc::new(Faulty::new(Arc::new(InMemory::new()), Plan::seeded(1), &link)));
    let notes = notes(&engine);
    notes.loaded().await;
    let tails = ["notes", "cells app"];
    let up = tails.map(|tail| format!("via_backplane_tailer_up{{tail={tail}}}"));
    for (says, turn) in [(1.0, None), (0.0, Some(true)), (1.0, Some(false))] {
        match turn {
            Some(true) => link.interrupt(),
            Some(false) => link.restore(),
            None => {}
        }
        let turned = Instant::now();
        for name in ["via_backplane_up"].into_iter().chain(up.iter().map(String::as_str)) {
            meter.says(name, says).await;
            assert!(turned.elapsed() < SOON, "`{name}` was {says} only after {:?}", turned.elapsed());
        }
        // By now the delays have grown; the tails hear that the backplane is back.
        sleep(Duration::from_secs(60)).await;
    }
    for tail in tails {
        assert!(meter.count(&format!("via_backplane_reconnects_total{{tail={tail}}}")) >= 1);
    }
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn a_backplane_that_does_not_answer_is_down() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let silent = Faulty::new(Arc::new(InMemory::new()), Plan::seeded(1), &Link::new());
    let faults = silent.faults();
    let engine = Engine::start(Arc::new(silent));
    meter.says("via_backplane_up", 1.0).await;
    // No call returns any more, and no stream yields.
    faults.stop();
    let stopped = Instant::now();
    meter.says("via_backplane_up", 0.0).await;
    assert!(stopped.elapsed() < SOON, "noticed only after {:?}", stopped.elapsed());
    assert!(!engine.health().backplane_is_up);
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn cell_updates_are_counted_by_outcome() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let (memory, link) = (InMemory::new(), Link::new());
    let slow = Plan::seeded(1).odds(via_backplane::fault::Kind::Delay, 1.0);
    let engine = Engine::start(Arc::new(Faulty::new(Arc::new(memory.clone()), slow, &link)));
    let cell = engine.cell::<u32>("count").expect("a valid declaration");
    cell.set(1).await.expect("it is only delayed");
    cell.update(|_| Err("no")).await.expect_err("the closure said no");
    let other = start(&memory);
    let hasty = other.cell::<u32>("count").expect("a valid declaration");
    // The slow pod has loaded what the hasty one overwrites.
    let raced = cell.update(|count| {
        *count += 1;
        Ok::<_, ()>(())
    });
    let overwritten = async {
        sleep(Duration::from_millis(1)).await;
        for n in 10..20 {
            hasty.set(n).await.expect("memory takes it");
            sleep(Duration::from_millis(7)).await;
        }
    };
    let (raced, ()) = tokio::join!(raced, overwritten);
    raced.expect("it wins in the end");
    link.interrupt();
    cell.set(3).await.expect_err("the backend is away");
    link.restore();
    let outcomes = ["written", "rejected", "failed"]
        .map(|outcome| meter.count(&format!("via_cell_updates_total{{outcome={outcome}}}")));
    assert_eq!(outcomes, [12, 1, 1]);
    assert!(meter.count("via_cell_conflicts_total") >= 1);
    stop(&engine).await;
    stop(&other).await;
}

#[tokio::test]
async fn a_task_that_fails_is_counted_by_kind_and_never_by_instance() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let engine = start(&InMemory::new());
    let (gone, ended) = tokio::sync::oneshot::channel::<()>();
    engine.supervisor().spawn("errand 4711", OnStop::Drain, |_| async move {
        drop(gone);
        Err("it went wrong".into())
    });
    ended.await.expect_err("the task has ended");
    stop(&engine).await;
    assert_eq!(meter.count("via_task_failures_total{task=errand}"), 1);
}
