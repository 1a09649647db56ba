//! Everything that was ever in a log: what compaction drops is written down first.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use via_backplane::{
    BackendError, Backplane, Compactor, EventLog, Family, Feed, Key, Limits, Offset, OwnedRecord, ReadRange,
    Reply, Selector, Store,
};
use via_inmem::{InMemory, LogCopy};

/// Remembers the whole history of a memory's logs.
#[derive(Debug, Default)]
pub(crate) struct Witness(Mutex<BTreeMap<Family, Vec<OwnedRecord>>>);

/// One pod's connection to the memory, watched by a witness.
#[derive(Debug)]
pub(crate) struct Witnessed {
    memory: InMemory,
    witness: Arc<Witness>,
}

/// A copy of a log with the history that led to it.
pub(crate) struct Copied {
    log: LogCopy,
    history: Vec<OwnedRecord>,
}

impl Witness {
    pub(crate) fn over(self: &Arc<Self>, memory: &InMemory) -> Witnessed {
        Witnessed { memory: memory.clone(), witness: self.clone() }
    }

    /// The whole history of a family, dropped records included.
    pub(crate) async fn history(&self, memory: &InMemory, family: &Family) -> Vec<OwnedRecord> {
        self.catch_up(memory, family).await;
        self.0.lock().get(family).cloned().unwrap_or_default()
    }

    pub(crate) async fn copy_log(&self, memory: &InMemory, family: &Family) -> Copied {
        Copied { log: memory.copy_log(family), history: self.history(memory, family).await }
    }

    pub(crate) fn restore_log(&self, memory: &InMemory, family: &Family, copied: &Copied) {
        memory.restore_log(&copied.log);
        self.0.lock().insert(family.clone(), copied.history.clone());
    }

    pub(crate) fn recreate_log(&self, memory: &InMemory, family: &Family) {
        memory.recreate_log(family);
        self.0.lock().remove(family);
    }

    /// Writes down what has come since the last time. The memory answers at once, so nothing comes between.
    async fn catch_up(&self, memory: &InMemory, family: &Family) {
        let last = self.0.lock().get(family).and_then(|kept| kept.last()).map(|record| record.offset);
        let range = ReadRange { after: last.unwrap_or_default(), up_to: Offset(u64::MAX), limit: usize::MAX };
        let selector = Selector::Family(family.clone());
        let batch = memory.log().read(&selector, range).await.expect("the memory is open");
        let records = batch.iter().map(|record| OwnedRecord {
            offset: record.offset,
            key: record.key.clone(),
            bytes: record.bytes.to_vec().into(),
        });
        self.0.lock().entry(family.clone()).or_default().extend(records);
    }
}

impl Backplane for Witnessed {
    fn name(&self) -> &'static str {
        self.memory.name()
    }

    fn log(&self) -> &dyn EventLog {
        self.memory.log()
    }

    fn store(&self) -> &dyn Store {
        self.memory.store()
    }

    fn compactor(&self) -> Option<&dyn Compactor> {
        Some(self)
    }

    fn feed(&self) -> Option<&dyn Feed> {
        self.memory.feed()
    }

    fn limits(&self) -> Limits {
        self.memory.limits()
    }

    fn ping(&self) -> Reply<'_, Result<(), BackendError>> {
        self.memory.ping()
    }

    fn close(&self) -> Reply<'_, ()> {
        self.memory.close()
    }
}

impl Witnessed {
    fn inner(&self) -> &dyn Compactor {
        self.memory.compactor().expect("memory compacts")
    }
}

impl Compactor for Witnessed {
    fn compact<'a>(&'a self, key: &'a Key, before: Offset) -> Reply<'a, Result<Offset, BackendError>> {
        Reply::later(async move {
            // A connection that was closed reads no more; it compacts no more either.
            let open = self.memory.clone();
            self.witness.catch_up(&open, key.family()).await;
            self.inner().compact(key, before).await
        })
    }

    fn floor<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<Offset, BackendError>> {
        self.inner().floor(key)
    }

    fn is_compacted<'a>(&'a self, family: &'a Family) -> Reply<'a, Result<bool, BackendError>> {
        self.inner().is_compacted(family)
    }
}
