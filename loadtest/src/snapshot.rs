//! What writing snapshots of a large state does to the latency of its folds.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nats_servers::Config;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use via_backplane::{Backplane, Engine, Event, Events, Fold, Recorded, Waited};
use via_inmem::InMemory;

use crate::{
    latency::Latency,
    median::median,
    print::{print, print_json, progress},
    recorder::start_recording,
    target::{Failure, Target, Wanted, runtime},
};

/// So many records are never folded: no snapshot is written.
const NEVER: u64 = u64::MAX;
/// What via writes a snapshot after unless it is told otherwise.
const INTERVAL: u64 = 64;
/// Accounts of the state; with their names, ten megabytes as MessagePack.
const ACCOUNTS: u32 = 100_000;
const GRACE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// On JetStream, rather than in memory.
    #[arg(long)]
    nats: bool,
    /// Events per run.
    #[arg(long, default_value_t = 10_000)]
    events: usize,
    /// Microseconds between two events.
    #[arg(long, default_value_t = 1_000)]
    every_us: u64,
    /// Runs of each side; the medians are reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

#[derive(Serialize)]
struct Report {
    backplane: &'static str,
    runs: usize,
    events: usize,
    every_us: u64,
    state_bytes: usize,
    /// From before an append until its event is folded and no snapshot is ever written.
    off: Latency,
    /// The same with snapshots as via writes them unless it is told otherwise.
    on: Latency,
    p50_ratio: f64,
    p99_ratio: f64,
    /// Of one run.
    snapshots_written: f64,
    off_runs: Vec<Latency>,
    on_runs: Vec<Latency>,
}

#[derive(Serialize, Deserialize, Event)]
#[event(name = "bench.paid")]
enum Paid {
    Opened { accounts: u32 },
    Into { number: usize, account: u32 },
}

#[derive(Default, Clone, Serialize, Deserialize)]
struct Account {
    holder: String,
    balance: u64,
}

#[derive(Default, Clone, Serialize, Deserialize)]
struct Bank {
    accounts: Vec<Account>,
}

/// When each event was folded first. This is beside the state because a fold knows no clock: a value of which there are
/// two copies is folded twice.
static FOLDED: OnceLock<Box<[AtomicU64]>> = OnceLock::new();
static STARTED: OnceLock<Instant> = OnceLock::new();

fn now() -> u64 {
    let nanos = STARTED.get_or_init(Instant::now).elapsed().as_nanos();
    u64::try_from(nanos).expect("a run ends within centuries") + 1
}

impl Fold<Bank> for Paid {
    fn fold(self, bank: &mut Bank, _at: &Recorded) {
        match self {
            Self::Opened { accounts } => {
                let holder = |account| format!("account {account:0>72}");
                bank.accounts =
                    (0..accounts).map(|account| Account { holder: holder(account), balance: 0 }).collect();
            }
            Self::Into { number, account } => {
                bank.accounts[account as usize].balance += 1;
                if let Some(first) = FOLDED.get().and_then(|folded| folded.get(number)) {
                    first.compare_exchange(0, now(), Ordering::Relaxed, Ordering::Relaxed).ok(); // The first one stays.
                }
            }
        }
    }
}

/// What one run came to.
struct Run {
    latency: Latency,
    written: u64,
    state_bytes: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<Failure>> {
    let wanted = &arguments.wanted;
    let target = (arguments.nats || wanted.names_a_server())
        .then(|| Target::new(wanted, Config::new()))
        .transpose()?;
    let runtime = runtime();
    let measured = measure(&runtime, target.as_ref(), arguments);
    if let Some(target) = &target {
        target.block_on(target.clean())?;
    }
    let report = measured?;
    if wanted.json {
        print_json(&report);
    } else {
        report.summarize();
    }
    Ok(())
}

fn measure(
    runtime: &tokio::runtime::Runtime,
    target: Option<&Target>,
    arguments: &Arguments,
) -> Result<Report, Box<Failure>> {
    let quick = arguments.wanted.quick;
    let (events, runs) = if quick { (3_000, 1) } else { (arguments.events, arguments.runs) };
    let every = Duration::from_micros(arguments.every_us);
    let counters = start_recording();
    FOLDED.get_or_init(|| (0..events).map(|_| AtomicU64::new(0)).collect());
    let one = |name: String, interval| -> Result<Run, Box<Failure>> {
        let before = counters.value("via_snapshot_written_total");
        let (latency, state_bytes) = timed(runtime, target, &name, interval, events, every)?;
        Ok(Run { latency, state_bytes, written: counters.value("via_snapshot_written_total") - before })
    };
    let (mut off, mut on) = (Vec::new(), Vec::new());
    let first = usize::from(quick); // Nothing is believed of a quick run, warm or not.
    for run in first..=runs {
        progress(&format!("run {run} of {runs}"));
        let without = one(format!("off-{run}"), NEVER)?;
        let with = one(format!("on-{run}"), INTERVAL)?;
        if without.written > 0 || with.written == 0 {
            return Err(format!("{} snapshots without, {} with", without.written, with.written).into());
        }
        // The first run warms up.
        if run > 0 {
            off.push(without);
            on.push(with);
        }
    }
    let latencies = |runs: &[Run]| runs.iter().map(|run| run.latency).collect::<Vec<_>>();
    let (off_runs, on_runs) = (latencies(&off), latencies(&on));
    let (off, on_median) = (Latency::median(&off_runs), Latency::median(&on_runs));
    Ok(Report {
        backplane: if target.is_some() { "nats" } else { "memory" },
        runs,
        events,
        every_us: arguments.every_us,
        state_bytes: on[0].state_bytes,
        p50_ratio: on_median.p50_us / off.p50_us,
        p99_ratio: on_median.p99_us / off.p99_us,
        off,
        on: on_median,
        snapshots_written: median(on.iter().map(|run| run.written as f64)),
        off_runs,
        on_runs,
    })
}

/// Appends at a steady rate from a thread of its own, which nothing that the engine does holds up.
fn timed(
    runtime: &tokio::runtime::Runtime,
    target: Option<&Target>,
    family: &str,
    snapshot_interval: u64,
    events: usize,
    every: Duration,
) -> Result<(Latency, usize), Box<Failure>> {
    let folded = FOLDED.get().expect("it was made before");
    folded.iter().for_each(|folded| folded.store(0, Ordering::Relaxed));
    let backplane: Arc<dyn Backplane> = match target {
        Some(target) => runtime.block_on(target.connect())?,
        None => Arc::new(InMemory::new()),
    };
    let (engine, state) = runtime.block_on(async {
        let engine = Engine::builder(backplane).with_snapshot_interval(snapshot_interval).start();
        let state = engine.events::<Paid, Bank>(family)?;
        let opened = state.append(Paid::Opened { accounts: ACCOUNTS }).await?;
        match state.wait_for(&opened, PATIENCE).await {
            Waited::Reached => Ok::<_, Box<Failure>>((engine, state)),
            waited => Err(format!("the accounts were not opened: {waited:?}").into()),
        }
    })?;
    let appending = {
        let state = state.clone();
        std::thread::spawn(move || append(&state, events, every))
    };
    let sent = appending.join().map_err(|_| "the appending thread panicked")??;
    let state_bytes = runtime.block_on(async {
        let view = state.loaded().await;
        let bytes = rmp_serde::to_vec_named(&*view)?.len();
        drop(view);
        engine.shutdown(GRACE).await?;
        Ok::<_, Box<Failure>>(bytes)
    })?;
    let took = |(sent, folded): (u64, &AtomicU64)| match folded.load(Ordering::Relaxed) {
        0 => Err("an event was not folded".into()),
        folded => Ok(Duration::from_nanos(folded.saturating_sub(sent))),
    };
    let took: Result<Vec<_>, Box<Failure>> = sent.into_iter().zip(folded).map(took).collect();
    Ok((Latency::of(took?), state_bytes))
}

/// Answers when each event was sent, once the last one is folded.
fn append(state: &Events<Paid, Bank>, events: usize, every: Duration) -> Result<Vec<u64>, Box<Failure>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut sent = Vec::with_capacity(events);
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        for number in 0..events {
            ticks.tick().await;
            let account = rand::random_range(0..ACCOUNTS);
            sent.push(now());
            last = Some(state.append(Paid::Into { number, account }).await?);
        }
        let last = last.ok_or("a run has events")?;
        match state.wait_for(&last, PATIENCE).await {
            Waited::Reached => Ok(sent),
            waited => Err(format!("the last event was not folded: {waited:?}").into()),
        }
    })
}

impl Report {
    fn summarize(&self) {
        for (what, latency) in [("without snapshots", self.off), ("with", self.on)] {
            print(&format!("{what:<18} p50 {:.0} µs, p99 {:.0} µs", latency.p50_us, latency.p99_us));
        }
        print(&format!(
            "ratio              p50 {:.2}, p99 {:.2}; {} snapshots of {} bytes a run",
            self.p50_ratio, self.p99_ratio, self.snapshots_written, self.state_bytes
        ));
    }
}
