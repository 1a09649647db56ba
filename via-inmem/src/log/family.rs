//! One family's log.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rapidhash::RapidHashMap;
use via_backplane::{Epoch, Head, Key, Offset, Page, Selector};

use super::{
    chunk::{Chunk, MAX_SLOTS, MIN_SLOTS, Segment},
    ids::Ids,
    keys::Keys,
    losses::{Holes, Losses},
};
use crate::signal::{Signal, Sleepers};

/// A family's records, keys and sleeping tails, under a lock of its own.
pub(crate) struct Log {
    pub(crate) state: Mutex<State>,
    pub(crate) holes: Holes,
    /// Counts the times the log was replaced under its readers; a tail ends when it changes.
    generation: AtomicU64,
}

/// What the log holds. A copy of it is a copy of the log: it shares the chunks and nothing that changes.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) epoch: Epoch,
    pub(crate) head: u64,
    /// By first offset. What was dropped wholly is not here, so the map is as large as what is retained.
    pub(crate) segments: BTreeMap<u64, Segment>,
    pub(crate) open: Open,
    pub(crate) keys: Keys,
    pub(crate) losses: Losses,
    /// Whether any key has a floor.
    pub(crate) is_compacted: bool,
    pub(crate) ids: Ids,
    pub(crate) sleeping: Sleeping,
}

/// The chunk that is being filled, which is also the last segment.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) filled: usize,
}

/// The tails that wait for a record.
#[derive(Default)]
pub(crate) struct Sleeping {
    family: Sleepers,
    keys: RapidHashMap<Key, Sleepers>,
    /// The buffer of an earlier waking, so that waking does not allocate.
    pub(crate) spare: Vec<Arc<Signal>>,
}

impl Log {
    pub(crate) fn new(epoch: u128, holes: Holes) -> Self {
        Self { state: Mutex::new(State::new(Epoch(epoch))), holes, generation: AtomicU64::new(0) }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn head(&self, selector: &Selector) -> Head {
        let state = self.state.lock();
        Head { epoch: state.epoch, offset: Offset(state.head_of(selector)) }
    }

    pub(crate) fn instances(&self, page: &Page) -> Vec<Key> {
        self.state.lock().keys.page(page)
    }

    pub(crate) fn floor(&self, key: &Key) -> Offset {
        let state = self.state.lock();
        Offset(state.keys.find(key).map_or(0, |number| state.keys.get(number).floor))
    }

    pub(crate) fn is_compacted(&self) -> bool {
        self.state.lock().is_compacted
    }

    /// Wakes outside the lock: a woken tail's first act is to take it.
    pub(crate) fn wake(&self, mut woken: Vec<Arc<Signal>>) {
        for signal in woken.drain(..) {
            signal.ring();
        }
        if let Some(mut state) = self.state.try_lock() {
            state.sleeping.spare = woken;
        }
    }

    /// Puts another log in this one's place and ends every tail.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn replace(&self, with: State) {
        let mut woken = Vec::new();
        {
            let mut state = self.state.lock();
            self.generation.fetch_add(1, Ordering::Release);
            let mut sleeping = std::mem::replace(&mut *state, with).sleeping;
            sleeping.leave_all(&mut woken);
        }
        self.wake(woken);
    }
}

impl State {
    pub(crate) fn new(epoch: Epoch) -> Self {
        let chunk = Arc::new(Chunk::new(1, MIN_SLOTS));
        Self {
            epoch,
            head: 0,
            segments: BTreeMap::from([(1, Segment::of(chunk.clone()))]),
            open: Open { chunk, filled: 0 },
            keys: Keys::default(),
            losses: Losses::default(),
            is_compacted: false,
            ids: Ids::default(),
            sleeping: Sleeping::default(),
        }
    }

    pub(crate) fn head_of(&self, selector: &Selector) -> u64 {
        match selector {
            Selector::Family(_) => self.head,
            Selector::Key(key) => self.keys.head(key),
        }
    }

    /// Seals the open chunk as it is and goes on in a fresh one.
    pub(crate) fn open_next(&mut self) {
        let capacity = (self.open.chunk.capacity() * 4).min(MAX_SLOTS);
        let first = self.head + 1;
        // An open chunk without a record would have the same first offset; it gives way.
        let chunk = Arc::new(Chunk::new(first, capacity));
        self.segments.insert(first, Segment::of(chunk.clone()));
        self.open = Open { chunk, filled: 0 };
    }

    /// The segment that holds `offset`, if it was not dropped, and where the segment starts.
    pub(crate) fn segment_with(&mut self, offset: u64) -> Option<(u64, &mut Segment)> {
        self.segments.range_mut(..=offset).next_back().map(|(first, segment)| (*first, segment))
    }
}

impl Sleeping {
    pub(crate) fn add(&mut self, selector: &Selector, signal: &Arc<Signal>) {
        match selector {
            Selector::Family(_) => self.family.add(signal),
            Selector::Key(key) => self.keys.entry(key.clone()).or_default().add(signal),
        }
    }

    pub(crate) fn remove(&mut self, selector: &Selector, signal: &Arc<Signal>) {
        match selector {
            Selector::Family(_) => self.family.remove(signal),
            Selector::Key(key) => {
                let Some(sleepers) = self.keys.get_mut(key) else { return };
                sleepers.remove(signal);
                if sleepers.is_empty() {
                    self.keys.remove(key);
                }
            }
        }
    }

    /// Takes the tails that a record of one of these keys concerns; empty, without an allocation, if none sleeps.
    pub(crate) fn leave<'a>(&mut self, keys: impl Iterator<Item = &'a Key>) -> Vec<Arc<Signal>> {
        if self.family.is_empty() && self.keys.is_empty() {
            return Vec::new();
        }
        let mut woken = std::mem::take(&mut self.spare);
        self.family.leave(&mut woken);
        if !self.keys.is_empty() {
            for key in keys {
                if let Some(mut sleepers) = self.keys.remove(key) {
                    sleepers.leave(&mut woken);
                }
            }
        }
        if woken.is_empty() {
            self.spare = std::mem::take(&mut woken);
        }
        woken
    }

    #[cfg(any(test, feature = "testing"))]
    fn leave_all(&mut self, woken: &mut Vec<Arc<Signal>>) {
        self.family.leave(woken);
        self.keys.drain().for_each(|(_, mut sleepers)| sleepers.leave(woken));
    }
}

impl Clone for Sleeping {
    /// Nobody sleeps in a copy of a log.
    fn clone(&self) -> Self {
        Self::default()
    }
}
