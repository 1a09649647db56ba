//! A tail of a log or a watch of cells, from the outside: whether it is connected, and what to do while it is not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, Gauge, counter, gauge};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Core,
    metrics::{RECONNECTS, TAILER_UP},
    retry::Delays,
};
use crate::{BackendError, ErrorKind, Retry};

/// The least a tail waits before it is opened again.
const SHORTEST_DELAY: Duration = Duration::from_millis(10);
/// The most it waits, jitter aside; and a tail that was open for longer is no longer the outage before.
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Different errors of one outage that are remembered, so that each is said once.
const MAX_SAID: usize = 8;

/// What a tail or a watch has come to that ended without an error, which none may (L4, S5).
pub(super) fn silent_end() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "it ended without saying why")
}

/// Every tail and watch of this pod, by name.
#[derive(Debug, Default)]
pub(super) struct Tails(Mutex<BTreeMap<String, Arc<AtomicBool>>>);

impl Tails {
    /// Those that are not connected, in order.
    pub(super) fn disconnected(&self) -> Vec<String> {
        let tails = self.0.lock();
        let is_down = |(_, connected): &(&String, &Arc<AtomicBool>)| !connected.load(Ordering::Relaxed);
        tails.iter().filter(is_down).map(|(name, _)| name.clone()).collect()
    }

    fn add(&self, name: &str) -> Arc<AtomicBool> {
        self.0.lock().entry(name.to_owned()).or_default().clone()
    }

    fn remove(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

/// One of them, held by the task that keeps it open.
///
/// It is opened again for ever, at jittered delays that grow while nothing comes of it. What waiting cannot mend (a missing
/// permission, a stream that an operator deleted) is tried at the longest delay: it works again once somebody has mended
/// it. Each error is a warning once per outage, however often it comes back; a tail that breaks off again and again at once is
/// one outage.
pub(super) struct Tail {
    name: String,
    core: Core,
    up: Gauge,
    reconnects: Counter,
    connected: Arc<AtomicBool>,
    opened: Option<Instant>,
    delays: Delays,
    /// What this outage has said already; empty while all is well.
    said: Vec<String>,
    /// A warning was given and nobody has said yet that it is over.
    is_missed: bool,
}

impl Tail {
    pub(super) fn new(core: &Core, name: String) -> Self {
        Self {
            up: gauge!(TAILER_UP, "tail" => name.clone()),
            reconnects: counter!(RECONNECTS, "tail" => name.clone()),
            connected: core.tails.add(&name),
            delays: Delays::new(SHORTEST_DELAY, LONGEST_DELAY, core.ambient.seed()),
            opened: None,
            said: Vec::new(),
            is_missed: false,
            core: core.clone(),
            name,
        }
    }

    /// It is open.
    pub(super) fn opened(&mut self) {
        self.show(true);
        self.opened = Some(Instant::now());
        if std::mem::take(&mut self.is_missed) {
            tracing::info!(tail = self.name, "connected again");
        }
    }

    /// It came to something: after the next failure it is opened soon.
    pub(super) fn settled(&mut self) {
        self.delays.reset();
    }

    /// It ended, and will be opened again.
    pub(super) fn ended(&mut self) {
        self.show(false);
        self.reconnects.increment(1);
        if self.opened.take().is_some_and(|opened| opened.elapsed() > LONGEST_DELAY) {
            self.delays.reset();
            self.said.clear();
        }
    }

    /// Waits before it is opened again, no longer than until the backplane is back.
    pub(super) async fn wait_after(&mut self, error: &BackendError) {
        self.say(error);
        let core = self.core.clone();
        if error.retry() == Retry::Safe {
            tokio::select! {
                biased;
                () = core.reach.returned() => {
                    // Soon, and soon again: it may be back without yet having all it had. The jitter keeps all tails from
                    // coming at the same moment.
                    self.delays.reset();
                    self.delays.wait().await;
                }
                () = self.delays.wait() => {}
            }
        } else {
            self.delays.wait_longest().await;
        }
    }

    /// Waits before it is opened again, although nothing went wrong.
    pub(super) async fn wait(&mut self) {
        self.delays.wait().await;
    }

    fn say(&mut self, error: &BackendError) {
        let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        let saying = format!("{:?}: {error}: {source}", error.kind());
        if self.said.len() < MAX_SAID && !self.said.contains(&saying) {
            tracing::warn!(tail = self.name, kind = ?error.kind(), %error, source, "not connected; trying again");
            self.said.push(saying);
            self.is_missed = true;
        } else {
            tracing::debug!(tail = self.name, kind = ?error.kind(), %error, source, "still not connected");
        }
    }

    fn show(&self, is_up: bool) {
        self.up.set(if is_up { 1.0 } else { 0.0 });
        self.connected.store(is_up, Ordering::Relaxed);
    }
}

/// Nobody misses a tail that is no longer wanted: that of a consumer which another pod runs now.
impl Drop for Tail {
    fn drop(&mut self) {
        self.core.tails.remove(&self.name);
        self.up.set(1.0);
    }
}
