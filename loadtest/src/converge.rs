//! Append in one process until another one has folded it, beside publish and receive.

mod ours;
mod raw;
mod reader;

use std::time::Duration;

use nats_servers::Config;
use serde::Serialize;
use tokio::sync::oneshot;

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

/// What the process that writes does besides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Writes,
    /// It receives, or folds, what it has written.
    Reads,
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
    /// As `raw`, where the process that publishes receives it too.
    both_raw: Latency,
    /// As `ours`, where the process that appends folds it too.
    both_ours: Latency,
    /// By `raw`: what it costs that a pod folds what it appends is in it.
    both_p50_ratio_to_raw: f64,
    both_p50_ratio_to_both_raw: f64,
    raw_runs: Vec<Latency>,
    ours_runs: Vec<Latency>,
    both_raw_runs: Vec<Latency>,
    both_ours_runs: Vec<Latency>,
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
    let (mut both_raw, mut both_ours) = (Vec::new(), Vec::new());
    for run in 0..=runs {
        progress(&format!("run {run} of {runs}"));
        let one = Box::pin(publish(target, &format!("raw-{run}"), appends, every, Writer::Writes)).await?;
        let other = append(target, &format!("ours-{run}"), appends, every, Writer::Writes).await?;
        let both_one =
            Box::pin(publish(target, &format!("both-raw-{run}"), appends, every, Writer::Reads)).await?;
        let both_other = append(target, &format!("both-ours-{run}"), appends, every, Writer::Reads).await?;
        // The first run warms up the server and the system.
        if run > 0 {
            raw.push(one);
            ours.push(latency(other.arrived));
            seen.push(latency(other.seen));
            both_raw.push(both_one);
            both_ours.push(latency(both_other.arrived));
        }
    }
    let server = target.describe(&target.connect_raw().await?).await?;
    crate::target::close(&backplane).await;
    let (raw_runs, ours_runs, both_raw_runs, both_ours_runs) = (raw, ours, both_raw, both_ours);
    let (raw, ours) = (Latency::median(&raw_runs), Latency::median(&ours_runs));
    let (both_raw, both_ours) = (Latency::median(&both_raw_runs), Latency::median(&both_ours_runs));
    Ok(Report {
        server,
        runs,
        appends,
        every_us: u64::try_from(every.as_micros()).unwrap_or(u64::MAX),
        record_bytes: ours::record_bytes(),
        p50_ratio_to_raw: ours.p50_us / raw.p50_us,
        p99_ratio_to_raw: ours.p99_us / raw.p99_us,
        both_p50_ratio_to_raw: both_ours.p50_us / raw.p50_us,
        both_p50_ratio_to_both_raw: both_ours.p50_us / both_raw.p50_us,
        raw,
        ours,
        seen: Latency::median(&seen),
        both_raw,
        both_ours,
        raw_runs,
        ours_runs,
        both_raw_runs,
        both_ours_runs,
    })
}

async fn publish(
    target: &Target,
    family: &str,
    count: usize,
    every: Duration,
    writer: Writer,
) -> Result<Latency, Box<Failure>> {
    let context = target.connect_raw().await?;
    let stream = target.stream(&context).await?;
    let subject = subject_of(&stream, family);
    let other = Other::start(target, Reader::Raw, family, count)?;
    let publishing =
        raw::publish(context.clone(), subject.clone().into(), count, every, ours::record_bytes());
    match writer {
        Writer::Writes => side(publishing).await?,
        Writer::Reads => {
            let inbox = context.client().new_inbox();
            let (listens, listening) = oneshot::channel();
            let received =
                raw::receive(stream, inbox, subject, count, || listens.send(()).unwrap_or_default());
            let published = async {
                listening.await?;
                publishing.await
            };
            let (published, received) = tokio::join!(side(published), side(received));
            published.and(received.map(drop))?;
        }
    }
    Ok(latency(other.took()?.arrived))
}

async fn append(
    target: &Target,
    family: &str,
    count: usize,
    every: Duration,
    writer: Writer,
) -> Result<Took, Box<Failure>> {
    let backplane = target.connect().await?;
    let other = Other::start(target, Reader::Ours, family, count)?;
    side(ours::append(backplane, family.to_owned(), count, every, writer)).await?;
    other.took()
}

fn latency(nanos: Vec<u64>) -> Latency {
    Latency::of(nanos.into_iter().map(Duration::from_nanos).collect())
}

impl Report {
    fn summarize(&self) {
        let Self { raw, ours, seen, both_raw, both_ours, p50_ratio_to_raw, p99_ratio_to_raw, .. } = self;
        let rows = [
            ("publish to receive", raw),
            ("append to folded", ours),
            ("append to seen", seen),
            ("both receive", both_raw),
            ("both fold", both_ours),
        ];
        for (what, latency) in rows {
            print(&format!("{what:<20}p50 {:.0} µs, p99 {:.0} µs", latency.p50_us, latency.p99_us));
        }
        print(&format!("ratio               p50 {p50_ratio_to_raw:.2}, p99 {p99_ratio_to_raw:.2}"));
        let (to_raw, to_both) = (self.both_p50_ratio_to_raw, self.both_p50_ratio_to_both_raw);
        print(&format!("both fold, ratio    p50 {to_raw:.2} to raw, {to_both:.2} to raw where both receive"));
    }
}
