//! One pod's connection to the memory, and what ends with it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use rapidhash::RapidHashMap;
use via_backplane::BackendError;

use crate::{memory::Memory, signal::Signal};

/// What one handle stands for. Closing it leaves the memory to the others.
pub(crate) struct Pod {
    pub(crate) memory: Arc<Memory>,
    link: Arc<Link>,
}

impl Pod {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, link: Arc::default() }
    }

    /// Fails once the handle is closed (B1).
    pub(crate) fn open(&self) -> Result<(), BackendError> {
        self.link.open()
    }

    /// A stream of this pod, which ends when the pod is closed.
    pub(crate) fn enrol(&self) -> Membership {
        let signal = Arc::new(Signal::default());
        self.link.streams.lock().insert(Arc::as_ptr(&signal).addr(), signal.clone());
        Membership { link: self.link.clone(), signal }
    }

    pub(crate) fn close(&self) {
        self.link.closed.store(true, Ordering::SeqCst);
        let streams: Vec<_> = self.link.streams.lock().values().cloned().collect();
        streams.iter().for_each(|signal| signal.ring());
    }
}

#[derive(Default)]
struct Link {
    closed: AtomicBool,
    streams: Mutex<RapidHashMap<usize, Arc<Signal>>>,
}

impl Link {
    fn open(&self) -> Result<(), BackendError> {
        if self.closed.load(Ordering::SeqCst) { Err(BackendError::closed()) } else { Ok(()) }
    }
}

/// A live stream's place among its pod's streams; dropping it gives the place up.
pub(crate) struct Membership {
    link: Arc<Link>,
    signal: Arc<Signal>,
}

impl Membership {
    pub(crate) fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    pub(crate) fn open(&self) -> Result<(), BackendError> {
        self.link.open()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.link.streams.lock().remove(&Arc::as_ptr(&self.signal).addr());
    }
}
