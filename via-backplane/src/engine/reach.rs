//! Whether the backplane answers: the gauge, and the news that it is back.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::{Core, metrics::BACKPLANE_UP};
use crate::BoxError;

/// How often the backplane is asked whether it is there: an outage is known within this and [`PING_WITHIN`].
const PING_EVERY: Duration = Duration::from_secs(1);
/// A backplane that answers later than this is away.
const PING_WITHIN: Duration = Duration::from_secs(2);

/// What this pod knows of the way to its backplane.
#[derive(Debug, Default)]
pub(super) struct Reach {
    is_up: AtomicBool,
    returned: Notify,
}

impl Reach {
    /// Whether the last ping was answered.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Waits until the backplane answers again after it did not. Cancel-safe.
    pub(super) async fn returned(&self) {
        self.returned.notified().await;
    }

    fn note(&self, is_up: bool) {
        if !self.is_up.swap(is_up, Ordering::Relaxed) && is_up {
            self.returned.notify_waiters();
        }
    }
}

/// Asks the backplane whether it is there, for as long as the engine lives.
pub(super) async fn ping(core: Core) -> Result<(), BoxError> {
    let up = ::metrics::gauge!(BACKPLANE_UP);
    loop {
        let answer = timeout(PING_WITHIN, core.backplane.ping()).await;
        let is_up = matches!(answer, Ok(Ok(())));
        up.set(if is_up { 1.0 } else { 0.0 });
        core.reach.note(is_up);
        tokio::time::sleep(PING_EVERY).await;
    }
}
