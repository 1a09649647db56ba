//! A family with many more instances than a pod keeps: what those cost that are there, and those that are not.

mod pod;

use nats_servers::Config;
use serde::{Deserialize, Serialize};
use via_backplane::{AppendOptions, Engine, Event, Events, Fold, Recorded};

use crate::{
    median::median,
    print::{print, print_json, progress},
    target::{Described, Failure, Target, Wanted, side},
};
use pod::{Plan, Pod, Took};

const FAMILY: &str = "rooms";
/// How many instances of the fewer there are to one of the more.
const FEWER: usize = 10;
/// Events of one append.
const BATCH: usize = 500;
/// Events of one bounded step of writing.
const STEP: usize = 100_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Instances of the family; compared with a tenth of them.
    #[arg(long, default_value_t = 1_000_000)]
    instances: usize,
    /// Instances that the pod keeps.
    #[arg(long, default_value_t = 10_000)]
    resident: usize,
    /// Instances that are read beyond these.
    #[arg(long, default_value_t = 5_000)]
    cold: usize,
    /// Runs; the medians are reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// What this program tells the pod, which is this program too.
    #[arg(long, hide = true, requires_all = ["prefix", "backplane"])]
    pod: Option<u64>,
    #[arg(long, hide = true)]
    prefix: Option<String>,
}

#[derive(Serialize)]
struct Report {
    server: Described,
    runs: usize,
    instances: usize,
    resident: usize,
    /// What the pod's memory grew by for each instance it keeps.
    bytes_per_resident: f64,
    /// Reads of instances that are there, by name, from one thread.
    resident_reads_per_s: f64,
    /// Reads of instances that are not there, which makes others go, 64 at a time.
    cold_reads_per_s: f64,
    /// The pod's memory with all of these instances by the same with a tenth of them.
    rss_ratio: f64,
    rss_bytes: f64,
    fewer_rss_bytes: f64,
    fewer_cold_reads_per_s: f64,
    more_runs: Vec<Took>,
    fewer_runs: Vec<Took>,
}

/// What happens in a room.
#[derive(Serialize, Deserialize, Event)]
#[event(name = "bench.entered")]
struct Entered {
    guest: u64,
}

/// Who was here last, and how many were.
#[derive(Default, Clone, Serialize, Deserialize)]
struct Room {
    entered: u64,
    last: u64,
}

impl Fold<Room> for Entered {
    fn fold(self, room: &mut Room, _at: &Recorded) {
        room.entered += 1;
        room.last = self.guest;
    }
}

type Rooms = Events<Entered, Room>;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<Failure>> {
    let wanted = &arguments.wanted;
    let (instances, resident, cold, runs) = if wanted.quick {
        (2_000, 50, 50, 1)
    } else {
        (arguments.instances, arguments.resident, arguments.cold, arguments.runs)
    };
    let plan = Plan { instances, resident, cold };
    if let (Some(round), Some(prefix)) = (arguments.pod, &arguments.prefix) {
        // The one that started it has sized it.
        let Arguments { instances, resident, cold, .. } = *arguments;
        let target = Target::of_another(wanted, prefix.clone())?;
        return target.block_on(pod::run(&target, Plan { instances, resident, cold }, round));
    }
    let few = Plan { instances: instances / FEWER, ..plan };
    let (fewer, more) = (Target::new(wanted, Config::new())?, Target::new(wanted, Config::new())?);
    let report = more.run(async {
        let measured = measure((&fewer, few), (&more, plan), runs).await;
        fewer.clean().await?;
        measured
    })?;
    if wanted.json {
        print_json(&report);
    } else {
        report.summarize();
    }
    Ok(())
}

async fn measure(
    (fewer, few): (&Target, Plan),
    (more, plan): (&Target, Plan),
    runs: usize,
) -> Result<Report, Box<Failure>> {
    let (mut few_runs, mut more_runs) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        few_runs.push(one(fewer, few, run, runs).await?);
        more_runs.push(one(more, plan, run, runs).await?);
    }
    let of = |runs: &[Took], figure: fn(&Took) -> f64| median(runs.iter().map(figure));
    let (rss, few_rss) = (of(&more_runs, Took::rss), of(&few_runs, Took::rss));
    Ok(Report {
        server: more.describe(&more.connect_raw().await?).await?,
        runs,
        instances: plan.instances,
        resident: plan.resident,
        bytes_per_resident: of(&more_runs, Took::bytes_per_resident),
        resident_reads_per_s: of(&more_runs, Took::resident_reads_per_s),
        cold_reads_per_s: of(&more_runs, Took::cold_reads_per_s),
        rss_ratio: rss / few_rss,
        rss_bytes: rss,
        fewer_rss_bytes: few_rss,
        fewer_cold_reads_per_s: of(&few_runs, Took::cold_reads_per_s),
        more_runs,
        fewer_runs: few_runs,
    })
}

/// One pod of its own process, which follows the family while every instance of it gets an event, and then reads some.
async fn one(target: &Target, plan: Plan, run: usize, runs: usize) -> Result<Took, Box<Failure>> {
    // Makes the stream where this is the first run.
    let engine =
        Engine::builder(target.connect().await?).with_snapshot_interval(u64::MAX).keep_history().start();
    let rooms = engine.events::<Entered, Room>(FAMILY)?;
    let round = rooms.loaded().await.entered + 1;
    let mut pod = Pod::start(target, plan, round)?;
    for start in (0..plan.instances).step_by(STEP) {
        progress(&format!("run {run} of {runs}: an event to {start} of {} instances", plan.instances));
        side(write(rooms.clone(), start..plan.instances.min(start + STEP))).await?;
    }
    rooms.append(Entered { guest: round }).await?;
    engine.shutdown(pod::GRACE).await?;
    progress(&format!("run {run} of {runs}: reading {} and {} of them", plan.resident, plan.cold));
    pod.took()
}

async fn write(rooms: Rooms, numbers: std::ops::Range<usize>) -> Result<(), Box<Failure>> {
    for start in numbers.clone().step_by(BATCH) {
        let mut events = Vec::with_capacity(BATCH);
        for number in start..numbers.end.min(start + BATCH) {
            events.push((rooms.instance(name(number))?, Entered { guest: number as u64 }));
        }
        Events::append_across(events, AppendOptions::default()).await?;
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("room-{number}")
}

impl Report {
    fn summarize(&self) {
        print(&format!(
            "{} instances, {} resident: {:.0} bytes each, {:.0} reads/s; cold {:.0} reads/s",
            self.instances,
            self.resident,
            self.bytes_per_resident,
            self.resident_reads_per_s,
            self.cold_reads_per_s
        ));
        print(&format!(
            "memory {:.1} MB, with a tenth of the instances {:.1} MB: ratio {:.2}",
            self.rss_bytes / 1e6,
            self.fewer_rss_bytes / 1e6,
            self.rss_ratio
        ));
    }
}
