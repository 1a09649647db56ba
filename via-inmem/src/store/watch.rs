//! Watches: the present in order, then the latest change of each cell.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use parking_lot::Mutex;
use rapidhash::RapidHashMap;
use tokio::time::{Instant, Sleep, sleep_until};
use via_backplane::{BackendError, CellKey, CellSelector, Change, ErrorKind, Rev};

use super::cells::{Cells, State};
use crate::{pod::Membership, signal::Signal};

/// How many changes a watch takes under one hold of the store's lock.
const STEP: usize = 64;

/// How many changed cells a watch that is not polled remembers. Beyond it the watch ends with an error, and watching
/// again replays the present: nothing is missed, and memory stays bounded.
const MAX_CHANGED: usize = 65_536;

/// The store's side of a watch.
pub(crate) struct Watcher {
    selector: CellSelector,
    signal: Arc<Signal>,
    // Only ever locked under the store's lock, hence never contended.
    changed: Mutex<Changed>,
}

/// The cells that changed since they were last told of, each with its latest revision only.
#[derive(Default)]
struct Changed {
    present: Present,
    revs: RapidHashMap<CellKey, u64>,
    by_rev: BTreeMap<u64, CellKey>,
    overflown: bool,
}

/// How much of the present has been replayed. What has not been will be replayed as it is by then.
#[derive(Default)]
enum Present {
    #[default]
    Untold,
    UpTo(CellKey),
    Told,
}

impl Watcher {
    pub(crate) fn selector(&self) -> &CellSelector {
        &self.selector
    }

    pub(crate) fn ring(&self) {
        self.signal.ring();
    }

    /// Takes note of a change; whether that is news.
    pub(crate) fn note(&self, key: &CellKey, rev: u64) -> bool {
        let mut changed = self.changed.lock();
        match &changed.present {
            Present::Untold => return false,
            Present::UpTo(position) if key > position => return false,
            _ => {}
        }
        if let Some(old) = changed.revs.insert(key.clone(), rev) {
            changed.by_rev.remove(&old);
        }
        changed.by_rev.insert(rev, key.clone());
        if changed.revs.len() > MAX_CHANGED {
            *changed = Changed { overflown: true, present: Present::Untold, ..Changed::default() };
        }
        true
    }
}

/// A pod's side of a watch.
pub(crate) struct Watching {
    cells: Arc<Cells>,
    pod: Membership,
    watcher: Arc<Watcher>,
    generation: u64,
    ready: VecDeque<Change>,
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Watching {
    pub(crate) fn new(cells: Arc<Cells>, pod: Membership, selector: CellSelector) -> Self {
        let signal = pod.signal().clone();
        let watcher = Arc::new(Watcher { selector, signal, changed: Mutex::default() });
        let generation = cells.watch(Instant::now(), |state| {
            state.add_watcher(&watcher);
            state.generation()
        });
        let ready = VecDeque::from([Change::Begin]);
        Self { cells, pod, watcher, generation, ready, timer: None, ended: false }
    }

    /// Takes what is next from the store, and when to look again if nothing is.
    fn refill(&mut self) -> Result<Option<Instant>, BackendError> {
        self.pod.open()?;
        let Self { cells, watcher, generation, ready, .. } = self;
        cells.watch(Instant::now(), |state| {
            if state.generation() != *generation {
                return Err(BackendError::new(ErrorKind::Unavailable, "the store was recreated"));
            }
            let mut changed = watcher.changed.lock();
            if changed.overflown {
                let error = "the watch fell too far behind: watch again";
                return Err(BackendError::new(ErrorKind::Unavailable, error));
            }
            match changed.present {
                Present::Told => changed.take(state, ready),
                _ => changed.replay(&watcher.selector, state, ready),
            }
            Ok(state.next_end(&watcher.selector))
        })
    }

    /// Whether the time has come at which a cell may have expired.
    fn is_due(&mut self, at: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let Some(at) = at else {
            self.timer = None;
            return false;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

impl Changed {
    fn replay(&mut self, selector: &CellSelector, state: &State, ready: &mut VecDeque<Change>) {
        let position = match &self.present {
            Present::UpTo(key) => Some(key),
            _ => None,
        };
        let mut last = None;
        for (key, cell) in state.following(selector, position).take(STEP) {
            ready.push_back(Change::Put {
                key: key.clone(),
                rev: Rev(cell.rev),
                bytes: Some(cell.bytes.clone()),
            });
            last = Some(key.clone());
        }
        self.present = match last {
            Some(key) if ready.len() == STEP => Present::UpTo(key),
            _ => {
                ready.push_back(Change::End);
                Present::Told
            }
        };
    }

    /// Changes in the order of their revisions, each as the cell is now.
    fn take(&mut self, state: &State, ready: &mut VecDeque<Change>) {
        while ready.len() < STEP
            && let Some((rev, key)) = self.by_rev.pop_first()
        {
            self.revs.remove(&key);
            ready.push_back(match state.get(&key) {
                Some(cell) => Change::Put { key, rev: Rev(cell.rev), bytes: Some(cell.bytes.clone()) },
                None => Change::Gone { key, rev: Rev(rev) },
            });
        }
    }
}

impl Stream for Watching {
    type Item = Result<Change, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.pod.open().is_ok()
            && let Some(change) = self.ready.pop_front()
        {
            return Poll::Ready(Some(Ok(change)));
        }
        self.pod.signal().register(cx.waker());
        loop {
            let next_end = match self.refill() {
                Ok(next_end) => next_end,
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            };
            if let Some(change) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            if !self.is_due(next_end, cx) {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.cells.watch(Instant::now(), |state| state.remove_watcher(&self.watcher));
    }
}
