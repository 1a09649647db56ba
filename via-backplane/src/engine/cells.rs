//! The task that keeps the local copies of cells right.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Core,
    cell::{Replay, Watched},
    tail::{Tail, silent_end},
};
use crate::{BackendError, BoxError, CellKey, CellSelector, Change, ErrorKind, Incarnation, Rev};

/// The cells this pod holds a copy of.
#[derive(Default)]
pub(super) struct Cells {
    /// Cells are added and never removed.
    all: Mutex<BTreeMap<CellKey, Arc<dyn Watched>>>,
    registered: Notify,
}

impl Cells {
    pub(super) fn add(&self, cell: Arc<dyn Watched>) {
        self.all.lock().insert(cell.key().clone(), cell);
        self.registered.notify_one();
    }

    fn find(&self, key: &CellKey) -> Option<Arc<dyn Watched>> {
        self.all.lock().get(key).cloned()
    }

    fn count(&self) -> usize {
        self.all.lock().len()
    }

    /// Those whose stored value this binary cannot read, in order.
    pub(super) fn undecodable(&self) -> Vec<CellKey> {
        let every = self.every();
        every.iter().filter(|cell| cell.is_undecodable()).map(|cell| cell.key().clone()).collect()
    }

    fn every(&self) -> Vec<Arc<dyn Watched>> {
        self.all.lock().values().cloned().collect()
    }
}

/// Follows every cell below `prefix` for as long as the engine lives.
pub(super) async fn follow(core: Core, cells: Arc<Cells>, prefix: CellKey) -> Result<(), BoxError> {
    let mut tail = Tail::new(&core, format!("cells {prefix}"));
    let mut follower = Follower {
        core,
        cells,
        selector: CellSelector::Below(prefix),
        incarnation: None,
        replayed: BTreeSet::new(),
    };
    loop {
        let error = match follower.watch(&mut tail).await {
            Ok(Declared) => continue,
            Err(error) => error,
        };
        tail.ended();
        if error.kind() == ErrorKind::Closed {
            return Ok(());
        }
        tail.wait_after(&error).await;
    }
}

/// A cell was declared after the watch had told of it, so the watch is opened anew.
///
/// Loading it instead would be cheaper and wrong: a load may lag, and what the watch has passed over never comes again.
struct Declared;

struct Follower {
    core: Core,
    cells: Arc<Cells>,
    selector: CellSelector,
    incarnation: Option<Incarnation>,
    /// What the replay under way has brought.
    replayed: BTreeSet<CellKey>,
}

impl Follower {
    async fn watch(&mut self, tail: &mut Tail) -> Result<Declared, BackendError> {
        let core = self.core.clone();
        let store = core.backplane.store();
        let incarnation = store.incarnation().await?;
        let mut changes = store.watch(&self.selector).await?;
        // A store recreated between the two calls would replay revisions below those this pod holds, and lose to them.
        if store.incarnation().await? != incarnation {
            return Err(recreated());
        }
        tail.opened();
        let cells = self.cells.clone();
        let mut followed = None;
        loop {
            tokio::select! {
                biased;
                () = cells.registered.notified() => {
                    if followed.is_some_and(|followed| followed < cells.count()) {
                        return Ok(Declared);
                    }
                }
                change = changes.next() => {
                    let change = change.unwrap_or_else(|| Err(silent_end()))?;
                    match change {
                        Change::Begin => followed = Some(cells.count()),
                        Change::End => tail.settled(),
                        _ => {}
                    }
                    if let Some((left_out, rev)) = self.take(change, incarnation) {
                        self.load(&*left_out, rev).await?;
                    }
                }
            }
        }
    }

    /// Loads a value that the watch left out.
    async fn load(&self, cell: &dyn Watched, at: Rev) -> Result<(), BackendError> {
        match self.core.backplane.store().load(cell.key()).await? {
            Some(found) if found.rev >= at => cell.put(found.rev, &found.bytes),
            // The load lags, or the cell is gone since: the next replay says which.
            _ => return Err(lagging()),
        }
        Ok(())
    }

    /// Applies a change; answers the cell whose value was left out.
    fn take(&mut self, change: Change, incarnation: Incarnation) -> Option<(Arc<dyn Watched>, Rev)> {
        match change {
            Change::Begin => {
                self.replayed.clear();
                // Kept only now: an attempt that fails before its replay has told the cells nothing.
                let replay = match self.incarnation.replace(incarnation) {
                    None => Replay::First,
                    Some(before) if before == incarnation => Replay::SameStore,
                    Some(_) => Replay::OtherStore,
                };
                self.cells.every().iter().for_each(|cell| cell.begin(replay));
            }
            Change::End => {
                let replayed = std::mem::take(&mut self.replayed);
                let missing = |cell: &&Arc<dyn Watched>| !replayed.contains(cell.key());
                self.cells.every().iter().filter(missing).for_each(|cell| cell.was_not_replayed());
            }
            Change::Put { key, rev, bytes } => {
                let cell = self.cells.find(&key)?;
                self.replayed.insert(key);
                match bytes {
                    Some(bytes) => cell.put(rev, &bytes),
                    None => return Some((cell, rev)),
                }
            }
            Change::Gone { key, rev } => self.cells.find(&key)?.gone(Some(rev)),
        }
        None
    }
}

fn recreated() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the store was recreated while its watch was opened")
}

fn lagging() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "a load lagged behind the watch")
}
