//! Appends that go on while things die, and are looked up afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nats_servers::Cluster;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval, sleep};
use via_backplane::{
    AppendFailed, AppendId, AppendOptions, Engine, Event, Events, Fold, OnStop, Position, Recorded, Retry,
    Stop, Waited,
};

const FAMILY: &str = "check.noted";

/// How many append at once, and how often each: about 400 a second, which leaves two cores room for a browser.
const WRITERS: usize = 16;
const PACE: Duration = Duration::from_millis(40);

/// How long to wait before an append that failed is repeated.
const BREATH: Duration = Duration::from_millis(50);

/// How long everything may take to be folded at the end.
const PATIENCE: Duration = Duration::from_secs(60);

const GRACE: Duration = Duration::from_secs(10);

/// A number nobody else notes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Event)]
#[event(name = "check.noted", version = 1)]
struct Noted {
    number: u64,
}

/// Where each number was found in the log; more than once would be a repeat that was not recognised.
type Found = BTreeMap<u64, Vec<u64>>;

impl Fold<Found> for Noted {
    fn fold(self, found: &mut Found, at: &Recorded) {
        found.entry(self.number).or_default().push(at.offset().0);
    }
}

/// Writers that append through their own connection to the cluster.
pub(crate) struct Ledger {
    engine: Engine,
    shared: Arc<Shared>,
}

struct Shared {
    noted: Events<Noted, Found>,
    next: AtomicU64,
    acked: Mutex<BTreeMap<u64, Position>>,
    repeats: AtomicU64,
    failure: Mutex<Option<AppendFailed>>,
}

/// What was found of what was acknowledged.
pub(crate) struct Audit {
    pub(crate) acked: usize,
    pub(crate) repeats: u64,
    pub(crate) missing: usize,
    pub(crate) elsewhere: usize,
    pub(crate) twice: usize,
}

impl Ledger {
    pub(crate) async fn open(nats: &Cluster) -> Result<Self, String> {
        let (engine, noted) = connect(nats).await?;
        let shared = Arc::new(Shared {
            noted,
            next: AtomicU64::new(0),
            acked: Mutex::default(),
            repeats: AtomicU64::new(0),
            failure: Mutex::default(),
        });
        for number in 0..WRITERS {
            let shared = Arc::clone(&shared);
            engine.supervisor().spawn(format!("writer {number}"), OnStop::Drain, |stop| async move {
                shared.write(stop).await;
                Ok(())
            });
        }
        Ok(Self { engine, shared })
    }

    pub(crate) fn acked(&self) -> usize {
        self.shared.acked.lock().len()
    }

    /// Waits until so many more are acknowledged.
    pub(crate) async fn more(&self, count: usize) -> Result<(), String> {
        let (goal, start) = (self.acked() + count, Instant::now());
        while self.acked() < goal {
            if let Some(failure) = &*self.shared.failure.lock() {
                return Err(format!("an append failed for good: {failure:?}"));
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("{PATIENCE:?} were not enough for {count} more appends"));
            }
            sleep(PACE).await;
        }
        Ok(())
    }

    /// Stops appending, and looks up every number in the log over a connection that knows nothing yet.
    pub(crate) async fn close(self, nats: &Cluster) -> Result<Audit, String> {
        self.engine.shutdown(GRACE).await.map_err(|fault| format!("{fault:?}"))?;
        let acked = std::mem::take(&mut *self.shared.acked.lock());
        let (engine, noted) = connect(nats).await?;
        if let Some(last) = acked.values().max_by_key(|position| position.cursor.offset) {
            let waited = noted.wait_for(last, PATIENCE).await;
            if !matches!(waited, Waited::Reached) {
                return Err(format!("the log could not be read to its end: {waited:?}"));
            }
        }
        let found = noted.loaded().await;
        let (mut missing, mut elsewhere) = (0, 0);
        for (number, position) in &acked {
            match found.get(number) {
                None => missing += 1,
                Some(offsets) if !offsets.contains(&position.cursor.offset.0) => elsewhere += 1,
                Some(_) => {}
            }
        }
        let twice = found.values().filter(|offsets| offsets.len() > 1).count();
        engine.shutdown(GRACE).await.map_err(|fault| format!("{fault:?}"))?;
        let repeats = self.shared.repeats.load(Ordering::Relaxed);
        Ok(Audit { acked: acked.len(), repeats, missing, elsewhere, twice })
    }
}

impl Shared {
    async fn write(&self, stop: Stop) {
        let mut ticks = interval(PACE);
        // After a pause, a writer goes on at its pace: a burst would be another test.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            ticks.tick().await;
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if let Err(failure) = self.note(number, &stop).await {
                *self.failure.lock() = Some(failure);
                return;
            }
        }
    }

    /// Appends one number, again and again under the same id until the answer is known.
    async fn note(&self, number: u64, stop: &Stop) -> Result<(), AppendFailed> {
        let id = AppendId::new(format!("noted-{number}")).expect("a short name is a valid id");
        loop {
            match self.noted.append_with(Noted { number }, AppendOptions::default().id(id.clone())).await {
                Ok(position) => {
                    self.acked.lock().insert(number, position);
                    return Ok(());
                }
                // What was never acknowledged is not looked up.
                Err(_) if stop.is_cancelled() => return Ok(()),
                Err(failure) if failure.retry() == Retry::Never => return Err(failure),
                Err(_) => {
                    self.repeats.fetch_add(1, Ordering::Relaxed);
                    sleep(BREATH).await;
                }
            }
        }
    }
}

async fn connect(nats: &Cluster) -> Result<(Engine, Events<Noted, Found>), String> {
    let backplane = vianats::connect(&nats.urls().join(",")).await.map_err(|error| format!("{error:?}"))?;
    // Without snapshots and compaction, what is found at the end was found in the log.
    let engine = Engine::builder(Arc::new(backplane)).with_snapshot_interval(u64::MAX).keep_history().start();
    let noted = engine.events(FAMILY).map_err(|error| error.to_string())?;
    Ok((engine, noted))
}
