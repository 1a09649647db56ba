//! One pod's dice, counters and gate.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    link::{Link, Sent, Then, When},
    plan::{Kind, Plan},
};
use crate::{BackendError, CellKey, ErrorKind, Versioned};

/// How many fired faults are kept for printing.
const MAX_TRACE: usize = 10_000;
/// How many cells' earlier values are kept for stale answers.
const MAX_STALE: usize = 1024;

/// The state of one pod's wrapper.
pub(super) struct Pod {
    plan: Plan,
    pub(super) link: Link,
    rng: Mutex<SmallRng>,
    steps: AtomicU64,
    fired: [AtomicU64; Kind::ALL.len()],
    trace: Mutex<VecDeque<Fired>>,
    stopped: watch::Sender<bool>,
    is_paused: AtomicBool,
    /// Wakes what waits in the order in which it fell asleep, as the link does.
    resumed: Notify,
    /// The step at which the pod stops; `u64::MAX` for never.
    stop_at: AtomicU64,
    late: Mutex<Vec<BoxFuture<'static, ()>>>,
    seen: Mutex<VecDeque<(CellKey, Seen)>>,
}

/// What loads of a cell answered: the latest value, and the one before it, each with when it was answered last.
struct Seen {
    latest: (Instant, Option<Versioned>),
    older: Option<(Instant, Option<Versioned>)>,
}

/// A fault that struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fired {
    /// At which of the pod's steps.
    pub step: u64,
    /// In which call or stream.
    pub call: &'static str,
    /// What it was.
    pub kind: Kind,
}

/// What a wrapper has done, and the gate of its pod.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Pod>);

impl Faults {
    pub(super) fn of(pod: &Arc<Pod>) -> Self {
        Self(pod.clone())
    }

    /// How often a kind of fault struck this pod.
    #[must_use]
    pub fn fired(&self, kind: Kind) -> u64 {
        self.0.fired[kind.index()].load(Ordering::SeqCst)
    }

    /// The faults that struck, in order; the last ten thousand of them.
    #[must_use]
    pub fn trace(&self) -> Vec<Fired> {
        self.0.trace.lock().iter().copied().collect()
    }

    /// How many steps the pod has taken.
    ///
    /// Each call has two, one before it is sent and one before its answer is seen, and each item of a stream has one. So
    /// between any two of a pod's awaits on the backplane there is a step to [stop](Plan::stop_after) it at, with the
    /// write before it committed or not.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::SeqCst)
    }

    /// Stops the pod at its next step.
    pub fn stop(&self) {
        self.0.stop_at.store(0, Ordering::SeqCst);
    }

    /// Has the pod stand still, as under SIGSTOP: its calls and its streams wait until it is [resumed](Self::resume). What was
    /// under way has reached the backend or not.
    pub fn pause(&self) {
        if !self.0.is_paused.swap(true, Ordering::SeqCst) {
            self.0.strike(Kind::Pause, "pod");
        }
    }

    /// Has a paused pod go on.
    pub fn resume(&self) {
        self.0.is_paused.store(false, Ordering::SeqCst);
        self.0.resumed.notify_waiters();
    }

    /// Answers once the pod has stopped: now its tasks may be aborted.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn stopped(&self) {
        let mut stopped = self.0.stopped.subscribe();
        stopped.wait_for(|stopped| *stopped).await.ok(); // The sender lives in `self`: there is no other answer.
    }
}

impl Pod {
    pub(super) fn new(plan: Plan, link: Link) -> Self {
        Self {
            rng: Mutex::new(SmallRng::seed_from_u64(plan.seed.unwrap_or_default())),
            stop_at: AtomicU64::new(plan.stop_after.unwrap_or(u64::MAX)),
            plan,
            link,
            steps: AtomicU64::new(0),
            fired: Default::default(),
            trace: Mutex::default(),
            stopped: watch::Sender::new(false),
            is_paused: AtomicBool::new(false),
            resumed: Notify::new(),
            late: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// Whether a call can go straight through: nothing is planned, and nothing is wrong with the way.
    pub(super) fn is_clear(&self) -> bool {
        let unplanned = self.plan.seed.is_none() && self.stop_at.load(Ordering::SeqCst) == u64::MAX;
        let stands = self.is_paused.load(Ordering::SeqCst);
        let clear = unplanned && !stands && !self.link.is_cut() && !self.link.will_take_ack();
        if clear {
            self.steps.fetch_add(2, Ordering::SeqCst);
        }
        clear
    }

    /// Takes a step; if the pod stops here, it is the last thing that happens.
    pub(super) async fn step(&self, call: &'static str) {
        self.goes_on().await;
        let step = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        if step < self.stop_at.load(Ordering::SeqCst) {
            return;
        }
        if !self.stopped.send_replace(true) {
            self.strike(Kind::Stop, call);
        }
        std::future::pending::<()>().await;
    }

    async fn goes_on(&self) {
        while self.is_paused.load(Ordering::SeqCst) {
            // Made before the second look, so that no resumption falls in between.
            let resumed = self.resumed.notified();
            if self.is_paused.load(Ordering::SeqCst) {
                resumed.await;
            }
        }
    }

    /// Decides what becomes of a call, and waits as long as it is held up on its way.
    pub(super) async fn send(&self, call: &'static str, writes: bool) -> Sent {
        self.step(call).await;
        let (held_up, sent) = self.decide(call, writes);
        if let Some(time) = held_up {
            tokio::time::sleep(time).await;
        }
        if self.link.is_cut() {
            self.strike(Kind::Interrupt, call);
            return Sent::Refused;
        }
        if writes {
            self.land_late_writes().await;
            if self.link.takes_ack() {
                self.strike(Kind::LostAck, call);
                return Sent::AckLost(When::Now);
            }
        }
        sent
    }

    /// Waits before the answer of a call is seen.
    pub(super) async fn answer(&self, then: Then) {
        if let Some(time) = then.delay {
            tokio::time::sleep(time).await;
        }
        self.step("answer").await;
    }

    fn decide(&self, call: &'static str, writes: bool) -> (Option<Duration>, Sent) {
        // The order of the draws is part of what a seed means.
        let before = self.delay(call);
        let after = Then { delay: self.delay(call) };
        let sent = if self.strikes(Kind::Refused, call) {
            Sent::Refused
        } else if writes && self.strikes(Kind::LostRequest, call) {
            Sent::RequestLost
        } else if writes && self.strikes(Kind::LostAck, call) {
            Sent::AckLost(When::Now)
        } else if writes && self.strikes(Kind::LateCommit, call) {
            Sent::AckLost(When::Later)
        } else {
            Sent::Through(after)
        };
        (before, sent)
    }

    pub(super) fn delay(&self, call: &'static str) -> Option<Duration> {
        self.strikes(Kind::Delay, call).then(|| self.plan.max_delay.mul_f64(self.rng.lock().random()))
    }

    pub(super) fn strikes(&self, kind: Kind, call: &'static str) -> bool {
        let strikes = self.rolls(kind);
        if strikes {
            self.strike(kind, call);
        }
        strikes
    }

    fn rolls(&self, kind: Kind) -> bool {
        let odds = self.plan.odds[kind.index()];
        odds > 0.0 && self.rng.lock().random_bool(odds)
    }

    pub(super) fn strike(&self, kind: Kind, call: &'static str) {
        self.fired[kind.index()].fetch_add(1, Ordering::SeqCst);
        let mut trace = self.trace.lock();
        if trace.len() == MAX_TRACE {
            trace.pop_front();
        }
        trace.push_back(Fired { step: self.steps.load(Ordering::SeqCst), call, kind });
    }

    /// Keeps a write for later, when its pod has long been told that nobody knows.
    pub(super) fn postpone(&self, write: BoxFuture<'static, ()>) {
        self.late.lock().push(write);
    }

    async fn land_late_writes(&self) {
        let late = std::mem::take(&mut *self.late.lock());
        for write in late {
            write.await;
        }
    }

    /// The answer of a load, or an older one.
    pub(super) fn maybe_stale(&self, key: &CellKey, now: Option<Versioned>) -> Option<Versioned> {
        if self.plan.odds[Kind::StaleLoad.index()] == 0.0 {
            return now;
        }
        let older = self.see(key, &now).filter(|(seen, _)| seen.elapsed() <= self.plan.max_staleness);
        match older {
            Some((_, older)) if self.strikes(Kind::StaleLoad, "load") => older,
            _ => now,
        }
    }

    /// Takes note of a load's answer; the one before it, if there was one and it differed.
    fn see(&self, key: &CellKey, now: &Option<Versioned>) -> Option<(Instant, Option<Versioned>)> {
        let latest = (Instant::now(), now.clone());
        let mut seen = self.seen.lock();
        let Some((_, known)) = seen.iter_mut().find(|(other, _)| other == key) else {
            if seen.len() == MAX_STALE {
                seen.pop_front();
            }
            seen.push_back((key.clone(), Seen { latest, older: None }));
            return None;
        };
        if known.latest.1 != *now {
            known.older = Some(known.latest.clone());
        }
        known.latest = latest;
        known.older.clone()
    }

    pub(super) fn unavailable(&self) -> BackendError {
        BackendError::new(ErrorKind::Unavailable, "a planned fault: the backend did not answer")
    }
}

impl fmt::Debug for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pod").field("plan", &self.plan).field("steps", &self.steps).finish_non_exhaustive()
    }
}
