//! A backplane of a scripted store and a log that is nothing but its heads and floors.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::map_store::MapStore;
use crate::{
    Append, AppendError, Appended, BackendError, Backplane, Batch, CasError, CellKey, CellSelector,
    Compactor, Epoch, ErrorKind, EventLog, Expected, Family, Feed, Head, Incarnation, Key, Limits, Offset,
    Page, ReadRange, Reply, Resume, Rev, Selector, Store, Subscription, Ttl, Versioned, Watch,
};

/// One pod's connection: its store goes wrong as scripted, and each of its calls may have to wait for its turn.
pub(crate) struct Bench {
    pub(crate) store: MapStore,
    pub(crate) log: Arc<Log>,
    turns: Option<Semaphore>,
    has_compactor: bool,
}

/// What the pods of one bench share.
#[derive(Default)]
pub(crate) struct Log {
    held: Mutex<Held>,
    /// Something was compacted.
    dropped: Notify,
}

#[derive(Default, Clone)]
struct Held {
    epoch: u128,
    head: u64,
    floors: BTreeMap<Key, Offset>,
    /// Every compaction, in order.
    compacted: Vec<(Key, Offset)>,
    failing: Vec<Key>,
    closed: bool,
}

impl Log {
    pub(crate) fn set_head(&self, offset: u64) {
        self.held.lock().head = offset;
    }

    /// Another epoch, with this head and without floors.
    pub(crate) fn recreate(&self, epoch: u128, head: u64) {
        *self.held.lock() = Held { epoch, head, ..Held::default() };
    }

    pub(crate) fn set_floor(&self, key: &Key, floor: u64) {
        self.held.lock().floors.insert(key.clone(), Offset(floor));
    }

    pub(crate) fn compacted(&self) -> Vec<(Key, Offset)> {
        self.held.lock().compacted.clone()
    }

    /// Waits until so many compactions have taken place.
    pub(crate) async fn until_compacted(&self, count: usize) {
        loop {
            let dropped = self.dropped.notified();
            if self.held.lock().compacted.len() >= count {
                return;
            }
            dropped.await;
        }
    }

    /// Lets every compaction of a key fail, until `None`.
    pub(crate) fn fail(&self, keys: &[Key]) {
        self.held.lock().failing = keys.to_vec();
    }

    pub(crate) fn close(&self) {
        self.held.lock().closed = true;
    }

    fn look<T>(&self, look: impl FnOnce(&mut Held) -> T) -> Result<T, BackendError> {
        let mut held = self.held.lock();
        if held.closed { Err(BackendError::closed()) } else { Ok(look(&mut held)) }
    }
}

impl Bench {
    /// A pod on a log in epoch 1 whose head is at 100.
    pub(crate) fn new(store: MapStore) -> Self {
        let log = Log::default();
        log.recreate(1, 100);
        Self { store, log: Arc::new(log), turns: None, has_compactor: true }
    }

    /// Another pod, whose store is scripted by `script`.
    pub(crate) fn another(&self, script: impl FnOnce(MapStore) -> MapStore) -> Self {
        Self { store: script(self.store.another()), log: self.log.clone(), turns: None, has_compactor: true }
    }

    /// A backplane that cannot drop records.
    pub(crate) fn without_compactor(mut self) -> Self {
        self.has_compactor = false;
        self
    }

    /// Lets each call wait until it is given a turn.
    pub(crate) fn by_turns(mut self) -> Self {
        self.turns = Some(Semaphore::new(0));
        self
    }

    pub(crate) fn give_turns(&self, turns: usize) {
        self.turns.as_ref().expect("a bench by turns").add_permits(turns);
    }

    async fn turn(&self) {
        if let Some(turns) = &self.turns {
            turns.acquire().await.expect("never closed").forget();
        }
    }
}

impl Backplane for Bench {
    fn name(&self) -> &'static str {
        "bench"
    }

    fn log(&self) -> &dyn EventLog {
        self
    }

    fn store(&self) -> &dyn Store {
        self
    }

    fn compactor(&self) -> Option<&dyn Compactor> {
        self.has_compactor.then_some(self)
    }

    fn feed(&self) -> Option<&dyn Feed> {
        None
    }

    fn limits(&self) -> Limits {
        const MIB: usize = 1 << 20;
        Limits { max_record: MIB, max_batch: 1, max_cell: MIB, max_message: MIB, id_window: Duration::ZERO }
    }

    fn ping(&self) -> Reply<'_, Result<(), BackendError>> {
        Reply::ready(Ok(()))
    }

    fn close(&self) -> Reply<'_, ()> {
        self.log.close();
        Reply::ready(())
    }
}

impl EventLog for Bench {
    fn head<'a>(&'a self, _selector: &'a Selector) -> Reply<'a, Result<Head, BackendError>> {
        Reply::later(async move {
            self.turn().await;
            self.log.look(|held| Head { epoch: Epoch(held.epoch), offset: Offset(held.head) })
        })
    }

    fn append(&self, _append: Append) -> Reply<'_, Result<Appended, AppendError>> {
        Reply::ready(Err(AppendError::Backend(no_records())))
    }

    fn subscribe<'a>(
        &'a self,
        _selector: &'a Selector,
        _from: Resume,
    ) -> Reply<'a, Result<Subscription, BackendError>> {
        Reply::ready(Err(no_records()))
    }

    fn read<'a>(
        &'a self,
        _selector: &'a Selector,
        _range: ReadRange,
    ) -> Reply<'a, Result<Batch, BackendError>> {
        Reply::ready(Err(no_records()))
    }

    fn instances<'a>(
        &'a self,
        _family: &'a Family,
        _page: Page,
    ) -> Reply<'a, Result<Vec<Key>, BackendError>> {
        Reply::ready(Err(no_records()))
    }
}

impl Compactor for Bench {
    fn compact<'a>(&'a self, key: &'a Key, before: Offset) -> Reply<'a, Result<Offset, BackendError>> {
        Reply::later(async move {
            self.turn().await;
            self.log.look(|held| {
                if held.failing.contains(key) {
                    return Err(BackendError::new(
                        ErrorKind::Unavailable,
                        "this key cannot be compacted now",
                    ));
                }
                let floor = held.floors.entry(key.clone()).or_default();
                *floor = before.min(Offset(held.head)).max(*floor);
                held.compacted.push((key.clone(), before));
                self.log.dropped.notify_waiters();
                Ok(*floor)
            })?
        })
    }

    fn floor<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<Offset, BackendError>> {
        Reply::later(async move {
            self.turn().await;
            self.log.look(|held| held.floors.get(key).copied().unwrap_or_default())
        })
    }

    fn is_compacted<'a>(&'a self, _family: &'a Family) -> Reply<'a, Result<bool, BackendError>> {
        Reply::later(async move {
            self.turn().await;
            self.log.look(|held| !held.floors.is_empty())
        })
    }
}

impl Store for Bench {
    fn incarnation(&self) -> Reply<'_, Result<Incarnation, BackendError>> {
        self.store.incarnation()
    }

    fn load<'a>(&'a self, key: &'a CellKey) -> Reply<'a, Result<Option<Versioned>, BackendError>> {
        Reply::later(async move {
            self.turn().await;
            self.store.load(key).await
        })
    }

    fn cas<'a>(
        &'a self,
        key: &'a CellKey,
        expected: Expected,
        bytes: Bytes,
        ttl: Ttl,
    ) -> Reply<'a, Result<Rev, CasError>> {
        Reply::later(async move {
            self.turn().await;
            self.store.cas(key, expected, bytes, ttl).await
        })
    }

    fn delete<'a>(&'a self, key: &'a CellKey, expected: Rev) -> Reply<'a, Result<(), CasError>> {
        self.store.delete(key, expected)
    }

    fn watch<'a>(&'a self, selector: &'a CellSelector) -> Reply<'a, Result<Watch, BackendError>> {
        self.store.watch(selector)
    }
}

fn no_records() -> BackendError {
    BackendError::new(ErrorKind::Internal, "a bench has no records")
}
