//! The first read where a snapshot covers all but the tail of a log, and whether the log's length shows in it.

use std::time::Duration;

use nats_servers::Config;
use serde::Serialize;
use tokio::time::{Instant, interval};
use via_backplane::{Backplane as _, Engine, internal_cell};
use vianats::Nats;

use super::{Added, FAMILY, GRACE, NEVER, append, fold};
use crate::{
    median::median,
    print::{print, print_json, progress},
    target::{Described, Failure, Target, Wanted, side},
};

/// The events that no snapshot covers.
const TAIL: usize = 64;
/// Events in the short log.
const SHORT: usize = 10_000;
/// How long a snapshot may take until it is there.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Report {
    server: Described,
    runs: usize,
    tail_events: usize,
    short: Length,
    long: Length,
    /// The long log's time to the first read by the short one's.
    length_ratio: f64,
}

#[derive(Serialize)]
struct Length {
    events: usize,
    /// From the registration of the family until its value is there.
    first_read_ms: f64,
    runs_ms: Vec<f64>,
}

pub(super) fn run(wanted: &Wanted, events: usize, runs: usize) -> Result<(), Box<Failure>> {
    let (short, long, runs) = if wanted.quick { (500, 2_000, 1) } else { (SHORT, events, runs) };
    // A stream each, so that neither log lies in the other's.
    let (short_target, long_target) =
        (Target::new(wanted, Config::new())?, Target::new(wanted, Config::new())?);
    let report = long_target.run(async {
        let measured = measure(&short_target, short, &long_target, long, runs).await;
        short_target.clean().await?;
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
    short_target: &Target,
    short: usize,
    long_target: &Target,
    long: usize,
    runs: usize,
) -> Result<Report, Box<Failure>> {
    for (target, events) in [(short_target, short), (long_target, long)] {
        progress(&format!("writing {events} events, and a snapshot of all but {TAIL}"));
        side(write(target.connect().await?, events)).await?;
    }
    let (mut short_ms, mut long_ms) = (Vec::new(), Vec::new());
    for run in 0..=runs {
        progress(&format!("run {run} of {runs}"));
        let one = first_read_ms(short_target, short).await?;
        let other = first_read_ms(long_target, long).await?;
        // The first run brings what is read into the servers' caches.
        if run > 0 {
            short_ms.push(one);
            long_ms.push(other);
        }
    }
    let (short, long) = (Length::of(short, short_ms), Length::of(long, long_ms));
    Ok(Report {
        server: long_target.describe(&long_target.connect_raw().await?).await?,
        runs,
        tail_events: TAIL,
        length_ratio: long.first_read_ms / short.first_read_ms,
        short,
        long,
    })
}

async fn first_read_ms(target: &Target, events: usize) -> Result<f64, Box<Failure>> {
    let run = fold(target.connect().await?, target.processes(), events).await?;
    Ok(run.seconds * 1e3)
}

/// Writes the log with a snapshot of it in which the last events are not.
///
/// The records that the snapshot covers are kept, or the log would be short after all.
async fn write(backplane: std::sync::Arc<Nats>, events: usize) -> Result<(), Box<Failure>> {
    let engine = Engine::builder(backplane.clone())
        .keep_history()
        .with_snapshot_interval(NEVER)
        .with_snapshot_pause(Duration::ZERO)
        .start();
    let state = engine.events::<Added, usize>(FAMILY)?;
    state.loaded().await;
    append(&state, events - TAIL - 1).await?;
    let state = state.with_snapshot_interval(1);
    append(&state, 1).await?;
    snapshot_is_there(&backplane).await?;
    let state = state.with_snapshot_interval(NEVER);
    append(&state, TAIL).await?;
    engine.shutdown(GRACE).await?;
    Ok(())
}

async fn snapshot_is_there(backplane: &Nats) -> Result<(), Box<Failure>> {
    let manifest = internal_cell(&["snapshots", FAMILY, "plain"]);
    let deadline = Instant::now() + PATIENCE;
    let mut looks = interval(Duration::from_millis(20));
    while backplane.store().load(&manifest).await?.is_none() {
        if Instant::now() > deadline {
            return Err("no snapshot was written".into());
        }
        looks.tick().await;
    }
    Ok(())
}

impl Length {
    fn of(events: usize, runs_ms: Vec<f64>) -> Self {
        Self { events, first_read_ms: median(runs_ms.iter().copied()), runs_ms }
    }
}

impl Report {
    fn summarize(&self) {
        for Length { events, first_read_ms, .. } in [&self.short, &self.long] {
            print(&format!(
                "{events:>9} events, a snapshot of all but {TAIL}  first read {first_read_ms:.2} ms"
            ));
        }
        print(&format!("ratio {:.2}", self.length_ratio));
    }
}
