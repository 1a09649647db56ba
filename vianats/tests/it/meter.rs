//! Counters that are asked afterwards.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString, Unit,
    set_default_local_recorder,
};
use parking_lot::Mutex;

/// What is counted on one thread, which runs the whole test; by name and family.
#[derive(Default)]
pub(crate) struct Meter(Mutex<BTreeMap<(String, String), Arc<AtomicU64>>>);

impl Meter {
    /// Counts for as long as the answer lives.
    pub(crate) fn here(&self) -> LocalRecorderGuard<'_> {
        set_default_local_recorder(self)
    }

    pub(crate) fn count(&self, name: &str, family: &str) -> u64 {
        let name = (name.to_owned(), family.to_owned());
        self.0.lock().get(&name).map_or(0, |counter| counter.load(Ordering::SeqCst))
    }
}

impl Recorder for Meter {
    fn describe_counter(&self, _name: KeyName, _unit: Option<Unit>, _help: SharedString) {}
    fn describe_gauge(&self, _name: KeyName, _unit: Option<Unit>, _help: SharedString) {}
    fn describe_histogram(&self, _name: KeyName, _unit: Option<Unit>, _help: SharedString) {}

    fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
        let family = key.labels().find(|label| label.key() == "family");
        let family = family.map_or_else(String::new, |label| label.value().to_owned());
        let counter = self.0.lock().entry((key.name().to_owned(), family)).or_default().clone();
        Counter::from_arc(counter)
    }

    fn register_gauge(&self, _key: &Key, _metadata: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
