//! A consumer of a log that is there, beside its fold; and how long its events wait when its pod is gone.

mod absence;
mod pod;
mod shared;
mod speed;

use std::time::Duration;

use serde::Serialize;

use crate::{
    latency::Latency,
    print::{print, print_json},
    recorder::{Counters, start_recording},
    target::{Described, Failure, Target, Wanted},
};
use absence::Ending;
use shared::{Shared, Which};
use speed::Speed;

/// What a takeover may take besides the lease.
const BEYOND_LEASE: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// On one backplane alone.
    #[arg(long)]
    only: Option<Which>,
    /// Events in the log.
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// Runs of each side; the medians are reported. In memory a run is short beside a machine's moods, so of five most may be in one of them.
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// Pods that are killed, and as many that are stopped.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// The lease of the pods that are killed, in milliseconds.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    lease_ms: u64,
    /// The family of a pod in a process of its own, which is this program too.
    #[arg(long, hide = true, requires_all = ["prefix", "backplane"])]
    pod: Option<String>,
    #[arg(long, hide = true)]
    prefix: Option<String>,
}

#[derive(Serialize)]
struct Report {
    events: usize,
    runs: usize,
    kills: usize,
    lease_ms: u64,
    takeover_bound_ms: f64,
    backplanes: Vec<Measured>,
}

#[derive(Serialize)]
struct Measured {
    backplane: Which,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Described>,
    #[serde(flatten)]
    speed: Speed,
    /// From before a pod is killed until another one's handler is given an event that was appended after.
    takeover_ms_p50: f64,
    takeover_ms_p99: f64,
    /// The same where the pod is told to stop.
    handover_ms_p50: f64,
    handover_ms_p99: f64,
    takeovers_ms: Vec<f64>,
    handovers_ms: Vec<f64>,
}

/// How much of what.
#[derive(Clone, Copy)]
struct Plan {
    events: usize,
    runs: usize,
    kills: usize,
    lease: Duration,
}

impl Plan {
    fn of(arguments: &Arguments) -> Self {
        let Arguments { events, runs, kills, lease_ms, .. } = *arguments;
        if arguments.wanted.quick {
            return Self { events: 2_000, runs: 1, kills: 2, lease: Duration::from_secs(1) };
        }
        Self { events, runs, kills, lease: Duration::from_millis(lease_ms) }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<Failure>> {
    let (wanted, plan) = (&arguments.wanted, Plan::of(arguments));
    if let (Some(family), Some(prefix)) = (&arguments.pod, &arguments.prefix) {
        let target = Target::of_another(wanted, prefix.clone())?;
        return pod::run(&target, family, plan.lease);
    }
    let counters = start_recording();
    let which = [Which::Memory, Which::Nats].into_iter();
    let which = which.filter(|which| arguments.only.is_none_or(|only| only == *which));
    let backplanes =
        which.map(|which| measure(&Shared::new(which, wanted)?, counters, plan)).collect::<Result<_, _>>()?;
    let Plan { events, runs, kills, lease } = plan;
    let (lease_ms, takeover_bound_ms) = (as_ms(lease) as u64, as_ms(lease + BEYOND_LEASE));
    let report = Report { events, runs, kills, lease_ms, takeover_bound_ms, backplanes };
    if wanted.json {
        print_json(&report);
    } else {
        report.summarize();
    }
    Ok(())
}

fn measure(shared: &Shared, counters: &Counters, plan: Plan) -> Result<Measured, Box<Failure>> {
    let measured = measure_all(shared, counters, plan);
    shared.clean()?;
    measured
}

fn measure_all(shared: &Shared, counters: &Counters, plan: Plan) -> Result<Measured, Box<Failure>> {
    let Plan { events, runs, kills, lease } = plan;
    let speed = shared.block_on(Box::pin(speed::measure(shared, counters, events, runs)))?;
    let takeovers = absence::measure(shared, lease, kills, Ending::Killed)?;
    let handovers = absence::measure(shared, lease, kills, Ending::Stopped)?;
    let (takeover, handover) = (Latency::of(takeovers.clone()), Latency::of(handovers.clone()));
    let as_ms_each = |durations: Vec<Duration>| durations.into_iter().map(as_ms).collect();
    Ok(Measured {
        backplane: shared.which(),
        server: shared.describe()?,
        speed,
        takeover_ms_p50: takeover.p50_us / 1e3,
        takeover_ms_p99: takeover.p99_us / 1e3,
        handover_ms_p50: handover.p50_us / 1e3,
        handover_ms_p99: handover.p99_us / 1e3,
        takeovers_ms: as_ms_each(takeovers),
        handovers_ms: as_ms_each(handovers),
    })
}

fn as_ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Report {
    fn summarize(&self) {
        for measured in &self.backplanes {
            measured.speed.summarize(measured.backplane, self.events);
            let Measured { takeover_ms_p50: p50, takeover_ms_p99: p99, .. } = measured;
            print(&format!(
                "  takeover  p50 {p50:.0} ms, p99 {p99:.0} ms  (lease {} ms, {} kills, at most {:.0} ms)",
                self.lease_ms, self.kills, self.takeover_bound_ms
            ));
            let Measured { handover_ms_p50: p50, handover_ms_p99: p99, .. } = measured;
            print(&format!("  handover  p50 {p50:.1} ms, p99 {p99:.1} ms"));
        }
    }
}
