//! Append to folded, in memory, on one pod: through the public `append` and the real projector.

mod events;
mod raw;

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use via_backplane::{
    AppendOptions, Engine, Event, Events, Fold, FoldState, OnStop, Position, TraceContext, Waited,
};
use via_inmem::InMemory;

use crate::{
    alloc::{Allocations, start_counting, watched},
    median::median,
    print::print,
};
use events::{Added, Moved, Table, Touched};

/// How long a run may take before it is called stuck.
const PATIENCE: Duration = Duration::from_secs(120);
const BATCH: usize = 100;
/// Entries of the large state.
const ENTRIES: u32 = 100_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON object and nothing else.
    #[arg(long)]
    json: bool,
    /// Events per run.
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// Runs of each measurement; the medians are reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

#[derive(Serialize)]
struct Report {
    events: usize,
    runs: usize,
    events_per_s: f64,
    append_allocs: f64,
    fold_allocs: f64,
    state_growth_ratio: f64,
    batch: Batch,
    wide: Wide,
    /// The same work without via: encode, a channel between two threads, decode, fold.
    raw: Raw,
}

#[derive(Serialize)]
struct Wide {
    events_per_s: f64,
    append_allocs: f64,
    fold_allocs: f64,
    batch: Batch,
}

#[derive(Serialize)]
struct Batch {
    events_per_s: f64,
    append_allocs: f64,
    fold_allocs: f64,
}

#[derive(Serialize)]
struct Raw {
    events_per_s: f64,
    ratio_to_raw: f64,
}

/// What one run came to, per event.
#[derive(Clone, Copy)]
struct Run {
    seconds: f64,
    append_allocs: f64,
    fold_allocs: f64,
}

pub(crate) fn run(arguments: &Arguments) {
    start_counting();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime of two threads");
    let report = measure(&runtime, arguments);
    if !arguments.json {
        summarize(&report);
    }
    print(&serde_json::to_string(&report).expect("a report is plain numbers"));
}

fn measure(runtime: &tokio::runtime::Runtime, arguments: &Arguments) -> Report {
    let Arguments { events, runs, .. } = *arguments;
    let measured = |one: &dyn Fn() -> Run| {
        one(); // Warm: the allocator's arenas, the branch predictor, the runtime's threads.
        (0..runs).map(|_| one()).collect::<Vec<_>>()
    };
    let single = measured(&|| runtime.block_on(appended_singly(events, Added::example)));
    let raw = (0..runs).map(|_| raw::seconds(events)).collect::<Vec<_>>();
    let batch = measured(&|| runtime.block_on(appended_in_batches(events, Added::example)));
    let wide = measured(&|| runtime.block_on(appended_singly(events, Moved::example)));
    let wide_batch = measured(&|| runtime.block_on(appended_in_batches(events, Moved::example)));
    // In turns: whoever comes second finds the memory the first one gave back.
    let growth = (0..runs).map(|run| {
        let empty = || runtime.block_on(touched(events, 0, false));
        let large = || runtime.block_on(touched(events, ENTRIES, true));
        if run % 2 == 0 {
            let empty = empty();
            large() / empty
        } else {
            let large = large();
            large / empty()
        }
    });
    let state_growth_ratio = median(growth);
    let rate = |runs: &[Run]| events as f64 / median(runs.iter().map(|run| run.seconds));
    let append_allocs = |runs: &[Run]| median(runs.iter().map(|run| run.append_allocs));
    let fold_allocs = |runs: &[Run]| median(runs.iter().map(|run| run.fold_allocs));
    let of_batch = |runs: &[Run]| Batch {
        events_per_s: rate(runs),
        append_allocs: append_allocs(runs),
        fold_allocs: fold_allocs(runs),
    };
    let raw = events as f64 / median(raw);
    Report {
        events,
        runs,
        events_per_s: rate(&single),
        append_allocs: append_allocs(&single),
        fold_allocs: fold_allocs(&single),
        state_growth_ratio,
        batch: of_batch(&batch),
        wide: Wide {
            events_per_s: rate(&wide),
            append_allocs: append_allocs(&wide),
            fold_allocs: fold_allocs(&wide),
            batch: of_batch(&wide_batch),
        },
        raw: Raw { events_per_s: raw, ratio_to_raw: rate(&single) / raw },
    }
}

/// What a state has to say for itself so that a run can be checked.
trait Checked {
    fn folded(&self) -> usize;
}

impl Checked for i64 {
    fn folded(&self) -> usize {
        usize::try_from(*self).expect("every event adds one")
    }
}

impl Checked for Table {
    fn folded(&self) -> usize {
        self.folded
    }
}

fn engine() -> Engine {
    Engine::start(Arc::new(InMemory::new()))
}

/// The W3C's example, `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
const TRACE: TraceContext = TraceContext {
    trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes(),
    span_id: 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes(),
    flags: 1,
};

async fn appended_singly<E, S>(count: usize, make: fn(usize) -> E) -> Run
where
    E: Event + Fold<S>,
    S: Checked + FoldState,
{
    appended(count, move |state: Events<E, S>| async move {
        let mut last = None;
        for index in 0..count {
            let options = AppendOptions::default().trace(TRACE);
            last = Some(state.append_with(make(index), options).await.expect("memory takes every append"));
        }
        last.expect("a run has events")
    })
    .await
}

async fn appended_in_batches<E, S>(count: usize, make: fn(usize) -> E) -> Run
where
    E: Event + Fold<S>,
    S: Checked + FoldState,
{
    appended(count, move |state: Events<E, S>| async move {
        let mut last = None;
        for start in (0..count).step_by(BATCH) {
            let options = AppendOptions::default().trace(TRACE);
            let events = (start..count.min(start + BATCH)).map(make);
            last = Some(state.append_batch_with(events, options).await.expect("memory takes every append"));
        }
        last.expect("a run has events")
    })
    .await
}

/// Times a run from its first append until its last event is folded, and checks the state.
async fn appended<E, S, Fut>(count: usize, append: impl FnOnce(Events<E, S>) -> Fut + Send + 'static) -> Run
where
    E: Event + Fold<S>,
    S: Checked + FoldState,
    Fut: Future<Output = Position> + Send + 'static,
{
    let engine = engine();
    let state = engine.events::<E, S>("bench").expect("one state of this name");
    state.loaded().await;
    let handle = state.clone();
    let job = async move {
        let before = Allocations::so_far();
        let started = Instant::now();
        let position = watched(append(handle.clone())).await;
        assert_eq!(handle.wait_for(&position, PATIENCE).await, Waited::Reached);
        (started.elapsed(), Allocations::so_far().since(before))
    };
    let (elapsed, allocations) =
        engine.supervisor().run("bench", OnStop::Drain, job).await.expect("the run does not panic");
    assert_eq!(state.read().expect("it is live").folded(), count, "every event is folded once");
    engine.shutdown(PATIENCE).await.expect("no task failed");
    let per_event = |allocations: u64| allocations as f64 / count as f64;
    Run {
        seconds: elapsed.as_secs_f64(),
        append_allocs: per_event(allocations.watched),
        fold_allocs: per_event(allocations.other),
    }
}

/// Seconds per event with a table of so many entries, a random one changed by each event.
async fn touched(count: usize, entries: u32, with_reader: bool) -> f64 {
    let engine = engine();
    let state = engine.events::<Touched, Table>("bench").expect("one state of this name");
    state.append(Touched::Filled { entries }).await.expect("memory takes every append");
    let stop = Arc::new(AtomicBool::new(!with_reader));
    let reader = std::thread::spawn({
        let (state, stop) = (state.clone(), stop.clone());
        move || read_until(&state, &stop)
    });
    let handle = state.clone();
    let job = async move {
        let started = Instant::now();
        let mut last = None;
        for _ in 0..count {
            let event = Touched::Entry { key: rand::random_range(0..ENTRIES) };
            last = Some(handle.append(event).await.expect("memory takes every append"));
        }
        let position = last.expect("a run has events");
        assert_eq!(handle.wait_for(&position, PATIENCE).await, Waited::Reached);
        started.elapsed()
    };
    let elapsed = engine.supervisor().run("bench", OnStop::Drain, job).await.expect("the run does not panic");
    stop.store(true, Ordering::Relaxed);
    let reads = reader.join().expect("the reader does not panic");
    assert!(!with_reader || reads > 0, "the reader has read");
    assert_eq!(state.read().expect("it is live").folded(), count, "every event is folded once");
    engine.shutdown(PATIENCE).await.expect("no task failed");
    elapsed.as_secs_f64() / count as f64
}

/// A thousand reads a second, each held for a millisecond: somebody always holds the value.
fn read_until(state: &Events<Touched, Table>, stop: &AtomicBool) -> usize {
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let view = state.read();
        #[expect(
            clippy::disallowed_methods,
            reason = "the reader is a load of a given rate, not a wait for a fact"
        )]
        std::thread::sleep(Duration::from_millis(1));
        black_box(view);
        reads += 1;
    }
    reads
}

fn summarize(report: &Report) {
    print(&format!(
        "one by one   {:>12.0} events/s  {:.3} allocations per append, {:.4} per fold",
        report.events_per_s, report.append_allocs, report.fold_allocs
    ));
    print(&format!(
        "batches of {BATCH} {:>11.0} events/s  {:.3} allocations per append, {:.4} per fold",
        report.batch.events_per_s, report.batch.append_allocs, report.batch.fold_allocs
    ));
    print(&format!(
        "wide         {:>12.0} events/s  batches {:>12.0} events/s",
        report.wide.events_per_s, report.wide.batch.events_per_s
    ));
    print(&format!("cost of a large, read state ÷ an empty one: {:.2}", report.state_growth_ratio));
    print(&format!(
        "raw channel  {:>12.0} events/s  ratio {:.2}",
        report.raw.events_per_s, report.raw.ratio_to_raw
    ));
}
