//! The cells, their revisions and their ends.

use std::{borrow::Borrow, collections::BTreeMap, ops::Bound, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use rapidhash::RapidHashMap;
use tokio::time::Instant;
use via_backplane::{CasError, CellKey, CellSelector, Expected, Incarnation, Rev, Ttl, Versioned};

use super::watch::Watcher;

/// How many expired cells one call removes beside its own, so that no call pays for all of them.
const EXPIRE: usize = 64;

/// Every cell of a cluster.
///
/// Revisions come from one counter, so that none repeats or falls for any key, without a memory of removed cells.
#[derive(Default)]
pub(crate) struct Cells(Mutex<State>);

#[derive(Default)]
pub(crate) struct State {
    incarnation: u128,
    /// Counts the times the store was replaced under its watches; a watch ends when it changes.
    generation: u64,
    rev: u64,
    cells: BTreeMap<Path, Cell>,
    ends: BTreeMap<(Instant, u64), CellKey>,
    watchers: Watchers,
}

pub(crate) struct Cell {
    pub(crate) rev: u64,
    pub(crate) bytes: Bytes,
    end: Option<Instant>,
}

/// A cell's key, ordered and found by its path.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Path(CellKey);

impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

/// Who follows what: by key where a watch follows one, so that 10,000 of them cost a write nothing.
#[derive(Default)]
struct Watchers {
    one: RapidHashMap<CellKey, Vec<Arc<Watcher>>>,
    below: Vec<Arc<Watcher>>,
}

/// The watchers a change concerns, to be rung outside the lock.
#[must_use = "watchers that are not rung sleep on"]
#[derive(Default)]
pub(crate) struct News(Vec<Arc<Watcher>>);

impl News {
    pub(crate) fn ring(self) {
        self.0.iter().for_each(|watcher| watcher.ring());
    }
}

impl Cells {
    pub(crate) fn new(incarnation: u128) -> Self {
        Self(Mutex::new(State { incarnation, ..State::default() }))
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation(self.0.lock().incarnation)
    }

    pub(crate) fn load(&self, key: &CellKey, now: Instant) -> Option<Versioned> {
        self.with(key, now, |state, _| {
            let cell = state.cells.get(key.as_str())?;
            Some(Versioned { rev: Rev(cell.rev), bytes: cell.bytes.clone() })
        })
    }

    pub(crate) fn cas(
        &self,
        key: &CellKey,
        expected: Expected,
        bytes: Bytes,
        ttl: Ttl,
        now: Instant,
    ) -> Result<Rev, CasError> {
        self.with(key, now, |state, news| {
            let rev = state.cells.get(key.as_str()).map(|cell| Rev(cell.rev));
            match (expected, rev) {
                (Expected::Absent, None) => {}
                (Expected::At(expected), Some(rev)) if expected == rev => {}
                _ => return Err(CasError::Conflict { rev }),
            }
            state.remove(key);
            Ok(Rev(state.put(key, bytes, ttl, now, news)))
        })
    }

    pub(crate) fn delete(&self, key: &CellKey, expected: Rev, now: Instant) -> Result<(), CasError> {
        self.with(key, now, |state, news| {
            let rev = state.cells.get(key.as_str()).map(|cell| Rev(cell.rev));
            if rev != Some(expected) {
                return Err(CasError::Conflict { rev });
            }
            state.end(key, news);
            Ok(())
        })
    }

    /// Runs one step on a store in which `key` has expired if it is due.
    fn with<T>(&self, key: &CellKey, now: Instant, step: impl FnOnce(&mut State, &mut News) -> T) -> T {
        let mut news = News::default();
        let answer = {
            let mut state = self.0.lock();
            state.expire(now, &mut news);
            if state.cells.get(key.as_str()).is_some_and(|cell| cell.end.is_some_and(|end| end <= now)) {
                state.end(key, &mut news);
            }
            step(&mut state, &mut news)
        };
        news.ring();
        answer
    }

    /// Runs one step of a watch on a store in which some of what is due has expired.
    pub(crate) fn watch<T>(&self, now: Instant, step: impl FnOnce(&mut State) -> T) -> T {
        let mut news = News::default();
        let answer = {
            let mut state = self.0.lock();
            state.expire(now, &mut news);
            step(&mut state)
        };
        news.ring();
        answer
    }

    /// Empties the store: revisions restart under a new incarnation, and every watch ends.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn recreate(&self, incarnation: impl FnOnce(u64) -> u128) {
        let mut state = self.0.lock();
        let generation = state.generation + 1;
        let fresh = State { incarnation: incarnation(generation), generation, ..State::default() };
        let old = std::mem::replace(&mut *state, fresh);
        drop(state);
        News(old.watchers.one.into_values().flatten().chain(old.watchers.below).collect()).ring();
    }
}

impl State {
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn get(&self, key: &CellKey) -> Option<&Cell> {
        self.cells.get(key.as_str())
    }

    fn put(&mut self, key: &CellKey, bytes: Bytes, ttl: Ttl, now: Instant, news: &mut News) -> u64 {
        self.rev += 1;
        let rev = self.rev;
        let end = match ttl {
            Ttl::Forever => None,
            // A time beyond what the clock can tell is for ever.
            Ttl::For(time) => now.checked_add(time),
        };
        if let Some(end) = end {
            self.ends.insert((end, rev), key.clone());
        }
        self.cells.insert(Path(key.clone()), Cell { rev, bytes, end });
        self.watchers.tell(key, rev, news);
        rev
    }

    fn remove(&mut self, key: &CellKey) {
        if let Some(cell) = self.cells.remove(key.as_str())
            && let Some(end) = cell.end
        {
            self.ends.remove(&(end, cell.rev));
        }
    }

    /// Deletes or expires a cell; that has a revision too.
    fn end(&mut self, key: &CellKey, news: &mut News) {
        self.remove(key);
        self.rev += 1;
        self.watchers.tell(key, self.rev, news);
    }

    fn expire(&mut self, now: Instant, news: &mut News) {
        for _ in 0..EXPIRE {
            let Some((_, key)) = self.ends.first_key_value().filter(|((end, _), _)| *end <= now) else {
                return;
            };
            let key = key.clone();
            self.end(&key, news);
        }
    }

    /// When a watch has to look again, because a cell it follows may have expired by then.
    ///
    /// Below a prefix this is the store's next end, which is at worst early.
    pub(crate) fn next_end(&self, selector: &CellSelector) -> Option<Instant> {
        match selector {
            CellSelector::One(key) => self.get(key)?.end,
            CellSelector::Below(_) => self.ends.first_key_value().map(|((end, _), _)| *end),
        }
    }

    /// The cells a watch follows, in order, after `position`.
    pub(crate) fn following<'a>(
        &'a self,
        selector: &'a CellSelector,
        position: Option<&'a CellKey>,
    ) -> impl Iterator<Item = (&'a CellKey, &'a Cell)> {
        let (from, to) = match selector {
            CellSelector::One(key) => (key.as_str().to_owned(), format!("{}\0", key.as_str())),
            // Exactly the paths that begin with the prefix and a slash: "0" is the character after it.
            CellSelector::Below(prefix) => (format!("{prefix}/"), format!("{prefix}0")),
        };
        let from = position.map_or(Bound::Included(from.as_str()), |key| Bound::Excluded(key.as_str()));
        self.cells
            .range::<str, _>((from, Bound::Excluded(to.as_str())))
            .map(|(path, cell)| (&path.0, cell))
            .filter(|(key, _)| selector.wants(key))
    }

    pub(crate) fn add_watcher(&mut self, watcher: &Arc<Watcher>) {
        match watcher.selector() {
            CellSelector::One(key) => self.watchers.one.entry(key.clone()).or_default().push(watcher.clone()),
            CellSelector::Below(_) => self.watchers.below.push(watcher.clone()),
        }
    }

    pub(crate) fn remove_watcher(&mut self, watcher: &Arc<Watcher>) {
        let is_other = |other: &Arc<Watcher>| !Arc::ptr_eq(other, watcher);
        match watcher.selector() {
            CellSelector::One(key) => {
                let Some(watchers) = self.watchers.one.get_mut(key) else { return };
                watchers.retain(is_other);
                if watchers.is_empty() {
                    self.watchers.one.remove(key);
                }
            }
            CellSelector::Below(_) => self.watchers.below.retain(is_other),
        }
    }
}

impl Watchers {
    fn tell(&self, key: &CellKey, rev: u64, news: &mut News) {
        let one = self.one.get(key).into_iter().flatten();
        let below = self.below.iter().filter(|watcher| watcher.selector().wants(key));
        news.0.extend(one.chain(below).filter(|watcher| watcher.note(key, rev)).cloned());
    }
}
