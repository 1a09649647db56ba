//! How a sleeping stream is woken.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;

/// The bell of one stream: rung by whoever has news for it.
#[derive(Default)]
pub(crate) struct Signal {
    waker: AtomicWaker,
    queued: AtomicBool,
}

impl Signal {
    /// Whom to wake. It comes before the last look for news, so that none falls in between.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(crate) fn ring(&self) {
        self.waker.wake();
    }
}

/// The streams that have seen everything and sleep. It lives under its owner's lock.
#[derive(Default)]
pub(crate) struct Sleepers {
    signals: Vec<Arc<Signal>>,
}

impl Sleepers {
    pub(crate) fn add(&mut self, signal: &Arc<Signal>) {
        if !signal.queued.swap(true, Ordering::Relaxed) {
            self.signals.push(signal.clone());
        }
    }

    pub(crate) fn remove(&mut self, signal: &Arc<Signal>) {
        if signal.queued.swap(false, Ordering::Relaxed) {
            self.signals.retain(|other| !Arc::ptr_eq(other, signal));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.signals.is_empty()
    }

    /// Moves everyone to `woken`, to be rung outside the lock.
    pub(crate) fn leave(&mut self, woken: &mut Vec<Arc<Signal>>) {
        for signal in &self.signals {
            signal.queued.store(false, Ordering::Relaxed);
        }
        woken.append(&mut self.signals);
    }
}
