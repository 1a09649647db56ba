//! The pod that is measured: this same program in a process of its own, in which the log does not lie.

use std::{
    fs,
    io::{BufRead as _, BufReader, PipeReader, pipe},
    process::Command,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nats_servers::Process;
use serde::{Deserialize, Serialize};
use via_backplane::Engine;

use super::{Entered, FAMILY, Room, Rooms, name};
use crate::{
    print::{print, print_json},
    target::{Failure, Target, side},
};

/// What it says when it follows the family.
const READY: &str = "ready";
/// Cold reads at a time.
const READERS: usize = 64;
/// Cold reads of one bounded step.
const STEP: usize = 5_000;
/// How long instances are read that are there.
const READING: Duration = Duration::from_secs(1);
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// How many of what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) instances: usize,
    pub(super) resident: usize,
    pub(super) cold: usize,
}

impl Plan {
    /// The instances that are kept, spread over all of them.
    fn resident(self) -> impl Iterator<Item = usize> {
        let stride = self.instances / self.resident;
        (0..self.resident).map(move |number| number * stride)
    }

    /// Others, likewise.
    fn cold(self) -> impl Iterator<Item = usize> {
        let stride = self.instances / self.cold;
        (0..self.cold).map(move |number| number * stride + 1)
    }
}

/// What one pod came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Took {
    resident: usize,
    /// When it follows the family and has seen a record of every instance.
    rss_before: u64,
    rss_with_residents: u64,
    rss_after_cold_reads: u64,
    resident_reads_per_s: f64,
    /// While there was still room.
    first_reads_per_s: f64,
    cold_reads_per_s: f64,
}

impl Took {
    pub(super) fn rss(&self) -> f64 {
        self.rss_after_cold_reads as f64
    }

    pub(super) fn bytes_per_resident(&self) -> f64 {
        self.rss_with_residents.saturating_sub(self.rss_before) as f64 / self.resident as f64
    }

    pub(super) fn resident_reads_per_s(&self) -> f64 {
        self.resident_reads_per_s
    }

    pub(super) fn cold_reads_per_s(&self) -> f64 {
        self.cold_reads_per_s
    }
}

/// The other process; it ends with this one.
pub(super) struct Pod {
    says: BufReader<PipeReader>,
    _process: Process,
}

impl Pod {
    /// Starts it, and waits until it follows the family.
    pub(super) fn start(target: &Target, plan: Plan, round: u64) -> Result<Self, Box<Failure>> {
        let (says, said) = pipe()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["instances", "--backplane", target.url(), "--prefix", target.prefix()])
            .args(["--pod", &round.to_string(), "--instances", &plan.instances.to_string()])
            .args(["--resident", &plan.resident.to_string(), "--cold", &plan.cold.to_string()])
            .stdout(said);
        let process = Process::spawn(&mut command)?;
        // It ends by itself when it is stuck, and reading ends with it once nobody else can write.
        drop(command);
        let mut pod = Self { says: BufReader::new(says), _process: process };
        match pod.line()?.as_str() {
            READY => Ok(pod),
            said => Err(format!("the pod did not come to follow the family: `{said}`").into()),
        }
    }

    pub(super) fn took(&mut self) -> Result<Took, Box<Failure>> {
        Ok(serde_json::from_str(&self.line()?)?)
    }

    fn line(&mut self) -> Result<String, Box<Failure>> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

/// What the other process does. The plain field says which round has been written.
pub(super) async fn run(target: &Target, plan: Plan, round: u64) -> Result<(), Box<Failure>> {
    let engine = Engine::builder(target.connect().await?).with_resident_instances(plan.resident + 1).start();
    let rooms = engine.events::<Entered, Room>(FAMILY)?;
    let mut changes = rooms.changes();
    rooms.loaded().await;
    print(READY);
    while rooms.read().is_none_or(|plain| plain.entered < round) {
        changes.changed().await;
    }
    let rss_before = resident_set()?;
    let started = Instant::now();
    load(&rooms, plan.resident().collect()).await?;
    let first_reads_per_s = plan.resident as f64 / started.elapsed().as_secs_f64();
    let rss_with_residents = resident_set()?;
    let reading = rooms.clone();
    let resident_reads_per_s = side(async move { read(&reading, plan) }).await?;
    let started = Instant::now();
    load(&rooms, plan.cold().collect()).await?;
    let cold_reads_per_s = plan.cold as f64 / started.elapsed().as_secs_f64();
    let rss_after_cold_reads = resident_set()?;
    print_json(&Took {
        resident: plan.resident,
        rss_before,
        rss_with_residents,
        rss_after_cold_reads,
        resident_reads_per_s,
        first_reads_per_s,
        cold_reads_per_s,
    });
    engine.shutdown(GRACE).await?;
    Ok(())
}

/// Reads instances that are not there.
async fn load(rooms: &Rooms, numbers: Vec<usize>) -> Result<(), Box<Failure>> {
    for step in numbers.chunks(STEP) {
        let (rooms, step) = (rooms.clone(), step.to_vec());
        let loads = stream::iter(step).map(move |number| {
            let rooms = rooms.clone();
            async move {
                let room = rooms.instance(name(number))?;
                match room.loaded().await.last {
                    guest if guest == number as u64 => Ok::<_, Box<Failure>>(()),
                    guest => Err(format!("room {number} was entered by {guest}").into()),
                }
            }
        });
        side(loads.buffer_unordered(READERS).try_collect::<()>()).await?;
    }
    Ok(())
}

/// Reads instances that are there, by name as an app does; answers how many a second.
fn read(rooms: &Rooms, plan: Plan) -> Result<f64, Box<Failure>> {
    let names: Vec<_> = plan.resident().map(|number| (number, name(number))).collect();
    let (started, mut reads) = (Instant::now(), 0_usize);
    while started.elapsed() < READING {
        for (number, name) in &names {
            let room = rooms.instance(name)?.read().ok_or("a resident instance was let go")?;
            if room.last != *number as u64 {
                return Err(format!("room {number} was entered by {}", room.last).into());
            }
        }
        reads += names.len();
    }
    Ok(reads as f64 / started.elapsed().as_secs_f64())
}

/// The memory that this process has, in bytes.
fn resident_set() -> Result<u64, Box<Failure>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
