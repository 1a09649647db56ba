//! Appends to JetStream through the adapter, beside the same messages through async-nats alone.

mod ours;
mod raw;
mod report;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use nats_servers::Config;
use via_backplane::{
    CodecId, EventId, Family, Key,
    envelope::{Envelope, Unknown},
};

use crate::{
    cpu::{Cpu, Processes},
    print::{print_json, progress},
    target::{Failure, Target, Wanted, close, side, subject_of},
};
use ours::Ours;
use raw::Raw;
use report::{Facts, Grouping, Rates, Report, Row};

const FAMILY: &str = "load";
/// Slices of a run.
const SLICES: usize = 6;
/// The largest atomic batch a server takes by default.
const BATCH: usize = 1_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// The server syncs before it acknowledges: ours is started that way, a named one has to be. Measures grouping too.
    #[arg(long)]
    sync_always: bool,
    /// Bytes of a record; several sizes are measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "128,16")]
    bytes: Vec<usize>,
    /// Appends in flight; several windows are measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1,64,1000")]
    windows: Vec<usize>,
    /// Runs of each side; the medians are reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds of one run.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<Failure>> {
    let config = Config::new();
    let config = if arguments.sync_always { config.sync_always() } else { config };
    let target = Target::new(&arguments.wanted, config)?;
    let report = target.run(measure(&target, arguments))?;
    if arguments.wanted.json {
        print_json(&report);
    } else {
        report.summarize();
    }
    if arguments.wanted.quick { Ok(()) } else { report.judge() }
}

/// How much is measured. A run is made of slices, raw and ours in turns: whatever else the machine does lasts longer.
#[derive(Clone, Copy)]
struct Plan {
    runs: usize,
    slices: usize,
    lasts: Duration,
}

async fn measure(target: &Target, arguments: &Arguments) -> Result<Report, Box<Failure>> {
    let plan = if arguments.wanted.quick {
        Plan { runs: 1, slices: 1, lasts: Duration::from_millis(50) }
    } else {
        let lasts = Duration::try_from_secs_f64(arguments.seconds)? / SLICES as u32;
        Plan { runs: arguments.runs, slices: SLICES, lasts }
    };
    let backplane = target.connect().await?;
    let context = target.connect_raw().await?;
    let stream = target.stream(&context).await?;
    let key = Key::of(&Family::new(FAMILY)?);
    let (mut windows, mut grouping) = (Vec::new(), Vec::new());
    for bytes in &arguments.bytes {
        let facts = Facts::of(*bytes, arguments.sync_always);
        let ours = Ours { backplane: backplane.clone(), key: key.clone(), record: record(*bytes) };
        let subject = subject_of(&stream, FAMILY).into();
        let raw = Raw { context: context.clone(), subject, record: record(*bytes) };
        let sides = Sides { raw, ours, stream: stream.clone(), plan, processes: target.processes() };
        sides.are_alike().await?;
        for &window in &arguments.windows {
            progress(&format!("{bytes} bytes, {window} in flight"));
            windows.push(sides.compare(window, facts).await?);
        }
        if arguments.sync_always {
            progress(&format!("{bytes} bytes, atomic batches of {BATCH}"));
            let ungrouped = windows.last().ok_or("at least one window is needed")?;
            grouping.push(sides.compare_batches(ungrouped, facts).await?);
        }
    }
    let server = target.describe(&context).await?;
    close(&backplane).await;
    Ok(Report { server, sync_always: arguments.sync_always, runs: plan.runs, windows, grouping })
}

/// Both sides, on the same stream with the same subject and record.
struct Sides {
    raw: Raw,
    ours: Ours,
    stream: Stream,
    plan: Plan,
    processes: Processes,
}

impl Sides {
    /// Fails unless both sides store the same message.
    async fn are_alike(&self) -> Result<(), Box<Failure>> {
        let mut stored = Vec::new();
        self.ours.append().await?;
        stored.push(self.stream.get_last_raw_message_by_subject(&self.raw.subject).await?);
        self.raw.clone().one_at_a_time(Duration::from_millis(10)).await?;
        stored.push(self.stream.get_last_raw_message_by_subject(&self.raw.subject).await?);
        let [ours, raw] = &stored[..] else { unreachable!("two were asked for") };
        if raw.sequence <= ours.sequence || raw.payload != ours.payload || raw.headers != ours.headers {
            return Err(format!("the two sides do not store the same: {ours:?}, {raw:?}").into());
        }
        Ok(())
    }

    async fn compare(&self, window: usize, facts: Facts) -> Result<Row, Box<Failure>> {
        let (mut raw, mut ours) = (Rates::default(), Rates::default());
        for run in 0..=self.plan.runs {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            for _ in 0..self.plan.slices {
                one.push(self.raw_slice(window).await?);
                other.push(self.our_slice(window).await?);
            }
            // The first run warms up connections, allocators and the server's files.
            if run > 0 {
                raw.add(one);
                ours.add(other);
            }
            self.stream.purge().await?;
        }
        Ok(Row::of(self.ours.record.len(), window, facts.per_s(window), raw, ours))
    }

    async fn raw_slice(&self, window: usize) -> Result<Slice, Box<Failure>> {
        let (raw, lasts) = (self.raw.clone(), self.plan.lasts);
        if window == 1 {
            return self.timed_each(raw.one_at_a_time(lasts)).await;
        }
        self.timed(raw.pipelined(window, lasts)).await
    }

    async fn our_slice(&self, window: usize) -> Result<Slice, Box<Failure>> {
        let (ours, lasts) = (self.ours.clone(), self.plan.lasts);
        if window == 1 {
            return self.timed_each(ours.one_at_a_time(lasts)).await;
        }
        self.timed(ours.concurrent(window, lasts)).await
    }

    async fn timed(&self, job: impl Job<usize>) -> Result<Slice, Box<Failure>> {
        let (cpu, started) = (self.processes.used(), Instant::now());
        let count = side(job).await?;
        let lasted = started.elapsed();
        Ok(Slice { count, lasted, each: Vec::new(), cpu: self.processes.used_since(cpu) })
    }

    async fn timed_each(&self, job: impl Job<Vec<Duration>>) -> Result<Slice, Box<Failure>> {
        let cpu = self.processes.used();
        let each = side(job).await?;
        let cpu = self.processes.used_since(cpu);
        Ok(Slice { count: each.len(), lasted: each.iter().sum(), each, cpu })
    }

    /// Raw atomic batches, beside the widest window of both.
    async fn compare_batches(&self, widest: &Row, facts: Facts) -> Result<Grouping, Box<Failure>> {
        let (mut batches, mut grouped) = (Rates::default(), Rates::default());
        for run in 0..=self.plan.runs {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            for _ in 0..self.plan.slices {
                one.push(self.timed(self.raw.clone().batches(BATCH, self.plan.lasts)).await?);
                other.push(self.timed(self.ours.clone().concurrent(2 * BATCH, self.plan.lasts)).await?);
            }
            if run > 0 {
                batches.add(one);
                grouped.add(other);
            }
            self.stream.purge().await?;
        }
        Ok(Grouping::of(2 * BATCH, widest, facts.batches_per_s, batches, grouped))
    }
}

/// What one side did in its turn.
struct Slice {
    count: usize,
    lasted: Duration,
    /// How long each took, one at a time.
    each: Vec<Duration>,
    cpu: Option<Cpu>,
}

/// What one side does in a run.
trait Job<T>: Future<Output = Result<T, Box<Failure>>> + Send + 'static {}

impl<T, F: Future<Output = Result<T, Box<Failure>>> + Send + 'static> Job<T> for F {}

/// A record of exactly so many bytes: an engine's, if one can be so small.
fn record(bytes: usize) -> Bytes {
    let payload = vec![0xA5; bytes];
    let mut envelope = Envelope {
        id: EventId([0x5A; 16]),
        time: 1_764_000_000_000_000,
        name: "bench.added",
        version: 1,
        codec: CodecId::MESSAGE_PACK,
        payload: &[],
        trace: None,
        trace_state: None,
        subject: None,
        unknown: Unknown::default(),
    };
    // A payload takes a key and a length besides itself, where there is one.
    envelope.payload = &payload[..bytes.saturating_sub(envelope.encoded_len() + 2)];
    let mut record = Vec::new();
    envelope.encode(&mut record);
    record.resize(bytes, 0);
    record.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_size_that_was_asked_for_and_decodes_where_one_can() {
        assert_eq!(record(16).len(), 16);
        let full = record(128);
        assert_eq!(full.len(), 128);
        let envelope = Envelope::decode(&full).expect("an envelope fits");
        assert!(envelope.payload.len() > 64, "{envelope:?}");
    }
}
