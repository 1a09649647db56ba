//! What via itself counts, for programs that say how often something took place while they measured.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;

/// Counters by name, whatever their labels.
#[derive(Default)]
pub(crate) struct Counters(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

static COUNTERS: OnceLock<&'static Counters> = OnceLock::new();

/// Counts from now on, before any engine is started.
pub(crate) fn start_recording() -> &'static Counters {
    COUNTERS.get_or_init(|| {
        let counters: &'static Counters = Box::leak(Box::default());
        metrics::set_global_recorder(counters).expect("nobody else records in this program");
        counters
    })
}

impl Counters {
    /// What a counter has come to.
    pub(crate) fn value(&self, name: &str) -> u64 {
        self.counter(name).load(Ordering::Relaxed)
    }

    fn counter(&self, name: &str) -> Arc<AtomicU64> {
        let mut counters = self.0.lock();
        counters.entry(name.to_owned()).or_default().clone()
    }
}

impl Recorder for &'static Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.counter(key.name()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
