//! How long a consumer's events wait when the pod that runs it is gone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval, sleep};
use via_backplane::{Appender, BoxError, Engine, OnStop, Supervisor};

use super::{
    pod::{Pod, Ticked, now},
    shared::Shared,
};
use crate::{cold_start::GRACE, print::progress, target::Failure};

/// Between two events.
const EVERY: Duration = Duration::from_millis(5);
/// What a pod may take, beyond a lease, before it is called stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Killed,
    Stopped,
}

impl Ending {
    fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Stopped => "stopped",
        }
    }
}

/// Ends so many pods, one after the other, and answers how long each one's events waited.
pub(super) fn measure(
    shared: &Shared,
    lease: Duration,
    rounds: usize,
    ending: Ending,
) -> Result<Vec<Duration>, Box<Failure>> {
    let engine = shared.block_on(async { Ok::<_, Box<Failure>>(Engine::start(shared.connect().await?)) })?;
    let mut waited = Vec::new();
    for number in 1..=2 * rounds {
        if waited.len() == rounds {
            break;
        }
        progress(&format!("{}: pod {number} of {rounds} is {}", shared.which().name(), ending.name()));
        let family = format!("{}-{number}", ending.name());
        match round(shared, &engine, &family, lease, ending)? {
            Some(wait) => waited.push(wait),
            None => progress("once more: the pod had lost its lease before"),
        }
    }
    shared.block_on(engine.shutdown(GRACE))?;
    if waited.len() < rounds {
        return Err("pods keep losing their leases: the machine is too busy for leases this short".into());
    }
    Ok(waited)
}

/// One pod runs the consumer and a second one would, while events come; the first one ends, at any moment of a renewal's
/// cycle. Nothing is answered if the second one has it already.
fn round(
    shared: &Shared,
    engine: &Engine,
    family: &str,
    lease: Duration,
    ending: Ending,
) -> Result<Option<Duration>, Box<Failure>> {
    let patience = lease + PATIENCE;
    let owner = Pod::start(shared, family, lease)?;
    let ticks = Ticks::start(shared, engine, family)?;
    owner.handles(0, patience)?;
    let other = Pod::start(shared, family, lease)?;
    shared.block_on(async { sleep(lease.mul_f64(rand::random::<f64>() / 3.0)).await });
    if other.has_handled() {
        return Ok(None);
    }
    let (gone, next) = (now(), ticks.begun());
    owner.end(ending)?;
    let given = other.handles(next, patience)?;
    ticks.stop(shared)?;
    other.end(Ending::Stopped)?;
    Ok(Some(Duration::from_nanos(given.saturating_sub(gone))))
}

/// Events that keep coming, numbered from 0.
struct Ticks {
    begun: Arc<AtomicU64>,
    supervisor: Supervisor,
}

impl Ticks {
    fn start(shared: &Shared, engine: &Engine, family: &str) -> Result<Self, Box<Failure>> {
        let appender = engine.appender::<Ticked>(family)?;
        let (begun, supervisor) = (Arc::new(AtomicU64::new(0)), Supervisor::new());
        let counting = begun.clone();
        shared.block_on(async { supervisor.spawn("ticks", OnStop::Abort, |_| tick(appender, counting)) });
        Ok(Self { begun, supervisor })
    }

    /// How many were begun: the number of the next one.
    fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    fn stop(&self, shared: &Shared) -> Result<(), Box<Failure>> {
        Ok(shared.block_on(self.supervisor.stop(Duration::ZERO))?)
    }
}

async fn tick(appender: Appender<Ticked>, begun: Arc<AtomicU64>) -> Result<(), BoxError> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let number = begun.fetch_add(1, Ordering::SeqCst);
        appender.append(Ticked { number }).await?;
    }
}
