//! The engine on both pods: append on one, seen on the other.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use via_backplane::{
    Engine, Event, EventId, Fold, Recorded,
    envelope::{Envelope, Unknown},
};
use vianats::Nats;

use super::Writer;
use crate::target::Failure;

/// How long an engine may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// An event that says when it was sent, by the clock that both processes have.
#[derive(Serialize, Deserialize, Event)]
#[event(name = "bench.sent")]
struct Sent {
    number: usize,
    at: u64,
}

/// When each event was folded first. This is beside the state because a fold knows no clock: a value of which there are
/// two copies is folded twice.
static FOLDED: OnceLock<Box<[AtomicU64]>> = OnceLock::new();

/// When each event was sent.
impl Fold<Vec<u64>> for Sent {
    fn fold(self, sent: &mut Vec<u64>, _at: &Recorded) {
        sent.push(self.at);
        if let Some(first) = FOLDED.get().and_then(|folded| folded.get(self.number)) {
            first.compare_exchange(0, now(), Ordering::Relaxed, Ordering::Relaxed).ok(); // The first one stays.
        }
    }
}

/// How many nanoseconds each event was on its way.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Took {
    /// Until it was received, or folded.
    pub(super) arrived: Vec<u64>,
    /// Until a reader who waited for changes saw it.
    pub(super) seen: Vec<u64>,
}

fn now() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970");
    u64::try_from(now.as_nanos()).expect("it is before 2554")
}

/// How long the record of such an event is.
pub(super) fn record_bytes() -> usize {
    let mut payload = Vec::new();
    Sent { number: 1_000, at: now() }.encode(&mut payload).expect("a number encodes");
    let envelope = Envelope {
        id: EventId([0; 16]),
        time: now() / 1_000,
        name: Sent::NAME,
        version: Sent::VERSION,
        codec: Sent::CODEC,
        payload: &payload,
        trace: None,
        trace_state: None,
        subject: None,
        unknown: Unknown::default(),
    };
    envelope.encoded_len()
}

/// Appends so many events, each with the time it was sent at; folds them too, if it is told to.
pub(super) async fn append(
    backplane: Arc<Nats>,
    family: String,
    count: usize,
    every: Duration,
    writer: Writer,
) -> Result<(), Box<Failure>> {
    let engine = Engine::start(backplane);
    let appender = engine.appender::<Sent>(&family)?;
    if writer == Writer::Reads {
        engine.events::<Sent, Vec<u64>>(&family)?.loaded().await;
    }
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..count {
        ticks.tick().await;
        appender.append(Sent { number, at: now() }).await?;
    }
    engine.shutdown(GRACE).await?;
    Ok(())
}

/// Waits until it sees so many events folded. `ready` is called when it listens.
pub(super) async fn see(
    backplane: Arc<Nats>,
    family: String,
    count: usize,
    ready: impl FnOnce(),
) -> Result<Took, Box<Failure>> {
    let folded = FOLDED.get_or_init(|| (0..count).map(|_| AtomicU64::new(0)).collect());
    let engine = Engine::start(backplane);
    let state = engine.events::<Sent, Vec<u64>>(&family)?;
    let mut changes = state.changes();
    state.loaded().await;
    ready();
    let mut took = Took::default();
    while took.seen.len() < count {
        changes.changed().await;
        let Some(sent) = state.read() else { continue };
        let now = now();
        for (number, sent) in sent.iter().enumerate().skip(took.seen.len()) {
            took.arrived.push(folded[number].load(Ordering::Relaxed).saturating_sub(*sent));
            took.seen.push(now.saturating_sub(*sent));
        }
    }
    engine.shutdown(GRACE).await?;
    Ok(took)
}
