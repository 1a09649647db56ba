//! Append in one process until another one has folded it, beside publish and receive.

mod ours;
mod raw;
mod reader;

use std::time::Duration;

use nats_servers::Config;
use serde::Serialize;

use crate::{
    latency::Latency,
    print::{print, print_json, progress},
    target::{Described, Failure, Target, Wanted, side, subject_of},
};
use ours::Took;
use reader::Other;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Appends per run.
    #[arg(long, default_value_t = 2_000)]
    appends: usize,
    /// Microseconds between two appends.
    #[arg(long, default_value_t = 1_000)]
    every_us: u64,
    /// Runs of each side; the medians are reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// What this program tells the other process, which is this program too.
    #[arg(long, hide = true, requires_all = ["prefix", "family", "backplane"])]
    read: Option<Reader>,
    #[arg(long, hide = true)]
    prefix: Option<String>,
    #[arg(long, hide = true)]
    family: Option<String>,
}

/// How the other process reads.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Reader {
    Raw,
    Ours,
}

impl Reader {
    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ours => "ours",
        }
    }
}

#[derive(Serialize)]
struct Report {
    server: Described,
    runs: usize,
    appends: usize,
    every_us: u64,
    record_bytes: usize,
    /// From before a publish until the other process has received it.
    raw: Latency,
    /// From before an append until the other process has folded it.
    ours: Latency,
    /// From before an append until a reader there, who waits for changes, sees it.
    seen: Latency,
    p50_ratio_to_raw: f64,
    p99_ratio_to_raw: f64,
    raw_runs: Vec<Latency>,
    ours_runs: Vec<Latency>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<Failure>> {
    let wanted = &arguments.wanted;
    if let (Some(reader), Some(prefix), Some(family)) = (arguments.read, &arguments.prefix, &arguments.family)
    {
        let target = Target::of_another(wanted, prefix.clone())?;
        return target.block_on(reader::read(&target, reader, family.clone(), arguments.appends));
    }
    let target = Target::new(wanted, Config::new())?;
    let (runs, appends) = if wanted.quick { (1, 50) } else { (arguments.runs, arguments.appends) };
    let every = Duration::from_micros(arguments.every_us);
    let report = target.run(measure(&target, runs, appends, every))?;
    if wanted.json {
        print_json(&report);
    } else {
        report.summarize();
    }
    Ok(())
}

async fn measure(
    target: &Target,
    runs: usize,
    appends: usize,
    every: Duration,
) -> Result<Report, Box<Failure>> {
    // Makes the stream.
    let backplane = target.connect().await?;
    let (mut raw, mut ours, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..=runs {
        progress(&format!("run {run} of {runs}"));
        let one = publish(target, &format!("raw-{run}"), appends, every).await?;
        let other = append(target, &format!("ours-{run}"), appends, every).await?;
        // The first run warms up the server and the system.
        if run > 0 {
            raw.push(one);
            ours.push(latency(other.arrived));
            seen.push(latency(other.seen));
        }
    }
    let server = target.describe(&target.connect_raw().await?).await?;
    crate::target::close(&backplane).await;
    let (raw_runs, ours_runs) = (raw, ours);
    let (raw, ours) = (Latency::median(&raw_runs), Latency::median(&ours_runs));
    Ok(Report {
        server,
        runs,
        appends,
        every_us: u64::try_from(every.as_micros()).unwrap_or(u64::MAX),
        record_bytes: ours::record_bytes(),
        p50_ratio_to_raw: ours.p50_us / raw.p50_us,
        p99_ratio_to_raw: ours.p99_us / raw.p99_us,
        raw,
        ours,
        seen: Latency::median(&seen),
        raw_runs,
        ours_runs,
    })
}

async fn publish(
    target: &Target,
    family: &str,
    count: usize,
    every: Duration,
) -> Result<Latency, Box<Failure>> {
    let context = target.connect_raw().await?;
    let subject = subject_of(&target.stream(&context).await?, family).into();
    let other = Other::start(target, Reader::Raw, family, count)?;
    side(raw::publish(context, subject, count, every, ours::record_bytes())).await?;
    Ok(latency(other.took()?.arrived))
}

async fn append(target: &Target, family: &str, count: usize, every: Duration) -> Result<Took, Box<Failure>> {
    let backplane = target.connect().await?;
    let other = Other::start(target, Reader::Ours, family, count)?;
    side(ours::append(backplane, family.to_owned(), count, every)).await?;
    other.took()
}

fn latency(nanos: Vec<u64>) -> Latency {
    Latency::of(nanos.into_iter().map(Duration::from_nanos).collect())
}

impl Report {
    fn summarize(&self) {
        let Self { raw, ours, seen, p50_ratio_to_raw, p99_ratio_to_raw, .. } = self;
        let rows = [("publish to receive", raw), ("append to folded", ours), ("append to seen", seen)];
        for (what, latency) in rows {
            print(&format!("{what:<20}p50 {:.0} µs, p99 {:.0} µs", latency.p50_us, latency.p99_us));
        }
        print(&format!("ratio               p50 {p50_ratio_to_raw:.2}, p99 {p99_ratio_to_raw:.2}"));
    }
}
