//! A fresh pod folds a family that is there, beside an ordered push consumer that only receives it.

mod raw;
mod snapshot;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use nats_servers::Config;
use serde::{Deserialize, Serialize};
use via_backplane::{Backplane, Engine, Event, Events, Fold, Offset, Recorded, Status};

use crate::{
    cpu::{Cpu, CpuEach, Processes, Total},
    median::median,
    print::{print, print_json, progress},
    target::{Described, Failure, Target, Wanted, filter_of, side},
};

pub(crate) const FAMILY: &str = "cold";
/// Events of one append, while the log is written.
const BATCH: usize = 1_000;
/// So many records are never folded: an engine that is to write no snapshot waits for them.
const NEVER: u64 = u64::MAX;
/// How long an engine may take to end.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Events in the log.
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// Runs of each side; the medians are reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The time to the first read where a snapshot covers all but 64 events, for a log of 10,000 events and for this one.
    #[arg(long)]
    snapshot: bool,
}

#[derive(Serialize)]
struct Report {
    server: Described,
    events: usize,
    record_bytes: f64,
    runs: usize,
    /// What a consumer receives that does nothing with it.
    raw_per_s: f64,
    /// What a fresh engine decodes and folds until it is live.
    events_per_s: f64,
    ratio_to_raw: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_cpu_per_event: Option<CpuEach>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ours_cpu_per_event: Option<CpuEach>,
    raw_runs_per_s: Vec<f64>,
    runs_per_s: Vec<f64>,
}

/// The budget's event.
#[derive(Serialize, Deserialize, Event)]
#[event(name = "bench.added")]
pub(crate) struct Added {
    by: i64,
}

/// As many as were folded, if each was folded once.
impl Fold<usize> for Added {
    fn fold(self, total: &mut usize, _at: &Recorded) {
        *total += usize::try_from(self.by).expect("every event adds one");
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<Failure>> {
    if arguments.snapshot {
        return snapshot::run(&arguments.wanted, arguments.events, arguments.runs);
    }
    let target = Target::new(&arguments.wanted, Config::new())?;
    let (events, runs) = if arguments.wanted.quick { (5_000, 1) } else { (arguments.events, arguments.runs) };
    let report = target.run(measure(&target, events, runs))?;
    if arguments.wanted.json {
        print_json(&report);
    } else {
        report.summarize();
    }
    Ok(())
}

async fn measure(target: &Target, events: usize, runs: usize) -> Result<Report, Box<Failure>> {
    progress(&format!("writing {events} events"));
    side(write(unsnapped(target.connect().await?), events)).await?;
    let processes = target.processes();
    let (mut raw, mut ours, mut bytes) = (Runs::default(), Runs::default(), 0);
    for run in 0..=runs {
        progress(&format!("run {run} of {runs}"));
        let one = receive(target, processes, events).await?;
        let other = fold(target.connect().await?, processes, events).await?;
        bytes = one.outcome;
        // The first run brings the log into the server's cache.
        if run > 0 {
            raw.add(one, events);
            ours.add(other, events);
        }
    }
    Ok(Report {
        server: target.describe(&target.connect_raw().await?).await?,
        events,
        record_bytes: bytes as f64 / events as f64,
        runs,
        raw_per_s: median(raw.per_s.iter().copied()),
        events_per_s: median(ours.per_s.iter().copied()),
        ratio_to_raw: median(ours.per_s.iter().copied()) / median(raw.per_s.iter().copied()),
        raw_cpu_per_event: raw.cpu.each(),
        ours_cpu_per_event: ours.cpu.each(),
        raw_runs_per_s: raw.per_s,
        runs_per_s: ours.per_s,
    })
}

/// An engine that writes no snapshot and drops no record: what it starts from is the log as it was written.
pub(crate) fn unsnapped(backplane: Arc<dyn Backplane>) -> Engine {
    Engine::builder(backplane).with_snapshot_interval(NEVER).keep_history().start()
}

/// Writes the log; answers where its last event is.
pub(crate) async fn write(engine: Engine, events: usize) -> Result<Offset, Box<Failure>> {
    let last = append(&engine.events(FAMILY)?, events).await?;
    engine.shutdown(GRACE).await?;
    Ok(last)
}

async fn append(state: &Events<Added, usize>, events: usize) -> Result<Offset, Box<Failure>> {
    let mut last = Offset::BEGIN;
    for start in (0..events).step_by(BATCH) {
        let batch = (start..events.min(start + BATCH)).map(|_| Added { by: 1 });
        last = state.append_batch(batch).await?.cursor.offset;
    }
    Ok(last)
}

pub(crate) async fn receive(
    target: &Target,
    processes: Processes,
    events: usize,
) -> Result<Run<usize>, Box<Failure>> {
    let context = target.connect_raw().await?;
    let stream = target.stream(&context).await?;
    let filter = filter_of(&stream, FAMILY);
    let inbox = context.client().new_inbox();
    timed(processes, Box::pin(raw::receive(stream, inbox, filter, events))).await
}

pub(crate) async fn fold(
    backplane: Arc<dyn Backplane>,
    processes: Processes,
    events: usize,
) -> Result<Run<usize>, Box<Failure>> {
    let engine = unsnapped(backplane);
    let folding = engine.clone();
    let run = timed(processes, async move {
        let state = folding.events::<Added, usize>(FAMILY)?;
        let folded = *state.loaded().await;
        match state.status() {
            Status::Live if folded == events => Ok(folded),
            status => Err(format!("{folded} of {events} events were folded: {status:?}").into()),
        }
    })
    .await;
    engine.shutdown(GRACE).await?;
    run
}

/// What one run came to.
pub(crate) struct Run<T> {
    pub(crate) outcome: T,
    seconds: f64,
    cpu: Option<Cpu>,
}

pub(crate) async fn timed<T: Send + 'static>(
    processes: Processes,
    job: impl Future<Output = Result<T, Box<Failure>>> + Send + 'static,
) -> Result<Run<T>, Box<Failure>> {
    let (before, started) = (processes.used(), Instant::now());
    let outcome = side(job).await?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Run { outcome, seconds, cpu: processes.used_since(before) })
}

/// The runs of one side.
#[derive(Default)]
pub(crate) struct Runs {
    pub(crate) per_s: Vec<f64>,
    pub(crate) cpu: Total,
}

impl Runs {
    pub(crate) fn add<T>(&mut self, run: Run<T>, events: usize) {
        self.cpu.add(run.cpu, events);
        self.per_s.push(events as f64 / run.seconds);
    }
}

impl Report {
    fn summarize(&self) {
        print(&format!(
            "{} events of {:.0} bytes  raw {:.0}/s  folded {:.0}/s  ratio {:.2}",
            self.events, self.record_bytes, self.raw_per_s, self.events_per_s, self.ratio_to_raw
        ));
        if let (Some(raw), Some(ours)) = (self.raw_cpu_per_event, self.ours_cpu_per_event) {
            print(&format!("processor time per event: raw {raw}; ours {ours}"));
        }
    }
}
