//! The event log: one [`Log`] per family, each under its own lock.

mod append;
mod chunk;
mod compaction;
mod family;
mod ids;
mod keys;
mod losses;
mod reader;
mod runs;
mod tail;

use std::sync::Arc;

use futures_util::StreamExt;
use via_backplane::{
    Append, AppendError, Appended, BackendError, Batch, Compactor, EventLog, Family, Head, Key, Offset, Page,
    ReadRange, Reply, Resume, Selector, Subscription,
};

#[cfg(any(test, feature = "testing"))]
pub(crate) use self::family::State;
use self::{compaction::Progress, tail::Tail};
pub(crate) use self::{family::Log, losses::Holes};
use crate::pod::Pod;

impl EventLog for Pod {
    fn append(&self, append: Append) -> Reply<'_, Result<Appended, AppendError>> {
        Reply::ready(self.append_now(append))
    }

    fn subscribe<'a>(
        &'a self,
        selector: &'a Selector,
        from: Resume,
    ) -> Reply<'a, Result<Subscription, BackendError>> {
        Reply::ready(self.open().map(|()| {
            let log = self.memory.family(selector.family());
            Tail::new(log, self.enrol(), selector.clone(), from.exclusive()).boxed()
        }))
    }

    fn read<'a>(
        &'a self,
        selector: &'a Selector,
        range: ReadRange,
    ) -> Reply<'a, Result<Batch, BackendError>> {
        Reply::ready(self.open().and_then(|()| self.memory.family(selector.family()).read(selector, range)))
    }

    fn instances<'a>(&'a self, family: &'a Family, page: Page) -> Reply<'a, Result<Vec<Key>, BackendError>> {
        Reply::ready(self.open().map(|()| self.memory.family(family).instances(&page)))
    }

    fn head<'a>(&'a self, selector: &'a Selector) -> Reply<'a, Result<Head, BackendError>> {
        Reply::ready(self.open().map(|()| self.memory.family(selector.family()).head(selector)))
    }
}

impl Pod {
    fn append_now(&self, append: Append) -> Result<Appended, AppendError> {
        self.open().map_err(AppendError::Backend)?;
        let families = self.memory.families.pin();
        if let Some(log) = families.get(append.family()) {
            return log.append(append, &self.memory.limits);
        }
        let log = self.memory.family(append.family());
        log.append(append, &self.memory.limits)
    }
}

impl Compactor for Pod {
    fn compact<'a>(&'a self, key: &'a Key, before: Offset) -> Reply<'a, Result<Offset, BackendError>> {
        if let Err(closed) = self.open() {
            return Reply::ready(Err(closed));
        }
        let log = self.memory.family(key.family());
        match log.compact_some(key, before) {
            Progress::Done(floor) => Reply::ready(Ok(floor)),
            Progress::More => Reply::later(compact_rest(log, key, before)),
        }
    }

    fn floor<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<Offset, BackendError>> {
        Reply::ready(self.open().map(|()| self.memory.family(key.family()).floor(key)))
    }

    fn is_compacted<'a>(&'a self, family: &'a Family) -> Reply<'a, Result<bool, BackendError>> {
        Reply::ready(self.open().map(|()| self.memory.family(family).is_compacted()))
    }
}

/// Lets others run between the steps: dropping a long log is work in proportion to what is dropped.
async fn compact_rest(log: Arc<Log>, key: &Key, before: Offset) -> Result<Offset, BackendError> {
    loop {
        tokio::task::yield_now().await;
        if let Progress::Done(floor) = log.compact_some(key, before) {
            return Ok(floor);
        }
    }
}

#[cfg(test)]
mod tests;
