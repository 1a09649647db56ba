//! A pod whose store never tells it what changes.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use via_backplane::{
    BackendError, Backplane, CasError, CellKey, CellSelector, Change, Compactor, EventLog, Expected, Feed,
    Incarnation, Limits, Reply, Rev, Store, Ttl, Versioned, Watch,
};
use via_inmem::InMemory;

/// A connection to a memory, whose watches stay silent after what is there when they begin.
pub(super) struct Deaf(InMemory);

impl Deaf {
    pub(super) fn new(memory: &InMemory) -> Self {
        Self(memory.clone())
    }
}

impl Backplane for Deaf {
    fn name(&self) -> &'static str {
        "deaf"
    }

    fn log(&self) -> &dyn EventLog {
        self.0.log()
    }

    fn store(&self) -> &dyn Store {
        self
    }

    fn compactor(&self) -> Option<&dyn Compactor> {
        self.0.compactor()
    }

    fn feed(&self) -> Option<&dyn Feed> {
        self.0.feed()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn ping(&self) -> Reply<'_, Result<(), BackendError>> {
        self.0.ping()
    }

    fn close(&self) -> Reply<'_, ()> {
        self.0.close()
    }
}

impl Store for Deaf {
    fn incarnation(&self) -> Reply<'_, Result<Incarnation, BackendError>> {
        self.0.store().incarnation()
    }

    fn load<'a>(&'a self, key: &'a CellKey) -> Reply<'a, Result<Option<Versioned>, BackendError>> {
        self.0.store().load(key)
    }

    fn cas<'a>(
        &'a self,
        key: &'a CellKey,
        expected: Expected,
        bytes: Bytes,
        ttl: Ttl,
    ) -> Reply<'a, Result<Rev, CasError>> {
        self.0.store().cas(key, expected, bytes, ttl)
    }

    fn delete<'a>(&'a self, key: &'a CellKey, expected: Rev) -> Reply<'a, Result<(), CasError>> {
        self.0.store().delete(key, expected)
    }

    fn watch<'a>(&'a self, selector: &'a CellSelector) -> Reply<'a, Result<Watch, BackendError>> {
        Reply::later(async move {
            let watch = self.0.store().watch(selector).await?;
            let is_over = |change: &Result<Change, BackendError>| matches!(change, Ok(Change::End));
            let present = watch.scan(false, move |over, change| {
                let item = if *over { None } else { Some(change) };
                *over |= item.as_ref().is_some_and(is_over);
                std::future::ready(item)
            });
            let silent: Watch = present.chain(stream::pending()).boxed();
            Ok(silent)
        })
    }
}
