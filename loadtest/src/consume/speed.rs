//! A consumer whose handler does nothing, over a log that is there, beside the same log's fold.

use std::{convert::Infallible, sync::Arc};

use serde::Serialize;
use tokio::sync::Notify;
use via_backplane::{Backplane, Consumer, Delivery, Offset, Status};

use super::shared::{Shared, Which};
use crate::{
    cold_start::{Added, FAMILY, GRACE, Run, Runs, fold, receive, timed, unsnapped, write},
    cpu::{CpuEach, Processes},
    median::median,
    print::{print, progress},
    recorder::Counters,
    target::{Failure, side},
};

const HANDLED: &str = "via_consumer_handled_total";
const COMMITS: &str = "via_consumer_commits_total";

#[derive(Serialize)]
pub(super) struct Speed {
    /// From the registration of a consumer until its handler is given the last event. That it is committed, some 100 milliseconds
    /// later, is waited for and not timed.
    events_per_s: f64,
    /// What a fresh engine folds until it is live.
    fold_per_s: f64,
    ratio_to_fold: f64,
    #[serde(flatten)]
    raw: Option<Raw>,
    /// How often a consumer has written down what was handled.
    commits_per_1000: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_per_event: Option<CpuEach>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fold_cpu_per_event: Option<CpuEach>,
    runs_per_s: Vec<f64>,
    fold_runs_per_s: Vec<f64>,
}

/// What an ordered push consumer receives that does nothing with it.
#[derive(Serialize)]
struct Raw {
    raw_per_s: f64,
    ratio_to_raw: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_cpu_per_event: Option<CpuEach>,
    raw_runs_per_s: Vec<f64>,
}

pub(super) async fn measure(
    shared: &Shared,
    counters: &Counters,
    events: usize,
    runs: usize,
) -> Result<Speed, Box<Failure>> {
    progress(&format!("{}: writing {events} events", shared.which().name()));
    let last = side(write(unsnapped(shared.connect().await?), events)).await?;
    let processes = shared.processes();
    let (mut raw, mut folded, mut consumed) = (Runs::default(), Runs::default(), Runs::default());
    let mut commits = Vec::new();
    for run in 0..=runs {
        progress(&format!("{}: run {run} of {runs}", shared.which().name()));
        let received = match shared {
            Shared::Memory { .. } => None,
            Shared::Nats(target) => Some(receive(target, processes, events).await?),
        };
        let one = fold(shared.connect().await?, processes, events).await?;
        let before = [HANDLED, COMMITS].map(|name| counters.value(name));
        let other = consume(shared.connect().await?, processes, format!("nothing-{run}"), last).await?;
        let [handled, committed] = [HANDLED, COMMITS].map(|name| counters.value(name));
        if handled - before[0] != events as u64 {
            return Err(format!("{} of {events} events were handled", handled - before[0]).into());
        }
        // The first run warms up.
        if run > 0 {
            received.into_iter().for_each(|received| raw.add(received, events));
            folded.add(one, events);
            consumed.add(other, events);
            commits.push((committed - before[1]) as f64);
        }
    }
    let of = |runs: &Runs| median(runs.per_s.iter().copied());
    let events_per_s = of(&consumed);
    Ok(Speed {
        events_per_s,
        fold_per_s: of(&folded),
        ratio_to_fold: events_per_s / of(&folded),
        raw: (!raw.per_s.is_empty()).then(|| Raw {
            raw_per_s: of(&raw),
            ratio_to_raw: events_per_s / of(&raw),
            raw_cpu_per_event: raw.cpu.each(),
            raw_runs_per_s: raw.per_s,
        }),
        commits_per_1000: median(commits) / events as f64 * 1e3,
        cpu_per_event: consumed.cpu.each(),
        fold_cpu_per_event: folded.cpu.each(),
        runs_per_s: consumed.per_s,
        fold_runs_per_s: folded.per_s,
    })
}

/// The pod's own projector folds the same log; it is through before the consumer is registered.
async fn consume(
    backplane: Arc<dyn Backplane>,
    processes: Processes,
    name: String,
    last: Offset,
) -> Result<Run<Consumer>, Box<Failure>> {
    let engine = unsnapped(backplane);
    let state = engine.events::<Added, usize>(FAMILY)?;
    state.loaded().await;
    let status = state.status();
    if status != Status::Live {
        return Err(format!("the projector is not through: {status:?}").into());
    }
    let is_given = Arc::new(Notify::new());
    let gives = is_given.clone();
    let handler = move |delivery: Delivery<Added>| {
        if delivery.offset == last {
            gives.notify_one();
        }
        async { Ok::<_, Infallible>(()) }
    };
    let run = timed(processes, async move {
        let consumer = state.on_event(name, handler).await?;
        is_given.notified().await;
        Ok(consumer)
    })
    .await?;
    if !run.outcome.commits(last).await {
        return Err(format!("the consumer ended: {:?}", run.outcome).into());
    }
    engine.shutdown(GRACE).await?;
    Ok(run)
}

impl Speed {
    pub(super) fn summarize(&self, which: Which, events: usize) {
        let Self { events_per_s, fold_per_s, ratio_to_fold, commits_per_1000, .. } = self;
        print(&format!(
            "{:<7} {events} events  consumed {events_per_s:.0}/s  folded {fold_per_s:.0}/s  ratio {ratio_to_fold:.2}",
            which.name()
        ));
        if let Some(Raw { raw_per_s, ratio_to_raw, .. }) = &self.raw {
            print(&format!("  raw {raw_per_s:.0}/s  ratio {ratio_to_raw:.2}"));
        }
        print(&format!("  {commits_per_1000:.2} commits per 1000 events"));
        if let (Some(folded), Some(consumed)) = (self.fold_cpu_per_event, self.cpu_per_event) {
            print(&format!("  processor time per event: folded {folded}; consumed {consumed}"));
        }
    }
}
