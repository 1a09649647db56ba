//! A projector's keys: those whose value is on this pod, or on its way. Found once per run, not once per record.

use std::collections::HashMap;

use rapidhash::fast::RandomState;
use tokio::sync::oneshot;

use super::{projection::Copies, refold::Answer, sampling::Sampling, saving::Saving, shadow::Shadow};
use crate::{Key, Offset, OwnedRecord, Stored};

/// Records that may be kept for one key while it is being loaded; beyond that its load goes another round.
const MAX_BUFFERED_RECORDS: usize = 16_384;
/// The same bound in bytes.
const MAX_BUFFERED_BYTES: usize = 8 << 20;

/// Which key, for as long as it is the same one: an index is used again once its key was evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyId {
    index: usize,
    serial: u64,
}

/// The keys of a family that this pod folds.
///
/// What is in here is what a family costs a pod: keys that nobody reads are not.
pub(super) struct Keys<S> {
    index: HashMap<Key, KeyId, RandomState>,
    slots: Vec<Slot<S>>,
    free: Vec<usize>,
    touched: Vec<KeyId>,
    serial: u64,
}

struct Slot<S> {
    serial: u64,
    keyed: Option<Keyed<S>>,
}

/// One key of them.
pub(super) struct Keyed<S> {
    pub(super) copies: Copies<S>,
    /// The key's records since its load began; `None` once the value follows the log.
    pub(super) loading: Option<Buffer>,
    /// The value holds all records up to here already, although the tail may still bring some: a load can be ahead of it.
    pub(super) complete_to: Offset,
    /// A load that is under way began when the family's head was here, or above.
    pub(super) began_at: Offset,
    pub(super) halted: bool,
    /// A copy is being made off the fold path.
    pub(super) copying: bool,
    pub(super) saving: Saving,
    pub(super) sampling: Sampling,
    /// Whether the losses it has skipped are accepted meanwhile is asked again before long.
    pub(super) is_reviewed: bool,
    /// Its value is being computed anew.
    pub(super) refolding: Option<Box<Refolding>>,
    /// What its records fold to once more, where folds are verified.
    pub(super) shadow: Option<Box<Shadow<S>>>,
    touched: bool,
}

impl<S> Default for Keys<S> {
    fn default() -> Self {
        Self {
            index: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            touched: Vec::new(),
            serial: 0,
        }
    }
}

impl<S> Keys<S> {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub(super) fn find(&self, key: &Key) -> Option<KeyId> {
        self.index.get(key).copied()
    }

    pub(super) fn is(&self, id: KeyId, key: &Key) -> bool {
        self.get(id).is_some_and(|keyed| keyed.copies.shared.key == *key)
    }

    /// Adds a key that is not among them.
    pub(super) fn insert(&mut self, keyed: Keyed<S>) -> KeyId {
        self.serial += 1;
        let key = keyed.copies.shared.key.clone();
        let slot = Slot { serial: self.serial, keyed: Some(keyed) };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        let id = KeyId { index, serial: self.serial };
        self.index.insert(key, id);
        id
    }

    pub(super) fn remove(&mut self, id: KeyId) -> Option<Keyed<S>> {
        let slot = self.slots.get_mut(id.index).filter(|slot| slot.serial == id.serial)?;
        let keyed = slot.keyed.take()?;
        self.index.remove(&keyed.copies.shared.key);
        self.free.push(id.index);
        Some(keyed)
    }

    /// The key of this id; `None` once it is no longer among them.
    pub(super) fn get(&self, id: KeyId) -> Option<&Keyed<S>> {
        self.slots.get(id.index).filter(|slot| slot.serial == id.serial)?.keyed.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: KeyId) -> Option<&mut Keyed<S>> {
        self.slots.get_mut(id.index).filter(|slot| slot.serial == id.serial)?.keyed.as_mut()
    }

    /// Forgets what is kept for a load in progress: what must not be, and a test does to show why.
    pub(super) fn forget_buffer(&mut self, id: KeyId) {
        if let Some(buffer) = self.get_mut(id).and_then(|keyed| keyed.loading.as_mut()) {
            *buffer = Buffer::new();
        }
    }

    /// All of them, in the order of their places: the same for one history.
    pub(super) fn ids(&self) -> Vec<KeyId> {
        let id = |(index, slot): (usize, &Slot<S>)| {
            slot.keyed.is_some().then_some(KeyId { index, serial: slot.serial })
        };
        self.slots.iter().enumerate().filter_map(id).collect()
    }

    /// The key at a place, if there is one: for a hand that goes round.
    pub(super) fn at(&self, place: usize) -> Option<KeyId> {
        let slot = self.slots.get(place)?;
        slot.keyed.is_some().then_some(KeyId { index: place, serial: slot.serial })
    }

    /// How many places there are, taken or not.
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }

    /// Gives up every spare: together they lag too much.
    pub(super) fn give_up_spares(&mut self) {
        let keyed = self.slots.iter_mut().filter_map(|slot| slot.keyed.as_mut());
        keyed.for_each(|keyed| keyed.copies.give_up_the_spare());
    }

    /// Notes that a key's readers have to be told.
    pub(super) fn touch(&mut self, id: KeyId) {
        let Some(keyed) = self.get_mut(id) else { return };
        if !std::mem::replace(&mut keyed.touched, true) {
            self.touched.push(id);
        }
    }

    /// Wakes the readers of every key touched since the last time, each once.
    pub(super) fn announce_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            let Some(keyed) = self.get_mut(id) else { continue };
            keyed.touched = false;
            keyed.copies.announce();
        }
        self.touched = touched;
    }
}

impl<S> Keyed<S> {
    /// Keeps a record for a value that is being computed anew.
    pub(super) fn keep(&mut self, record: &Stored<'_>) {
        if let Some(refolding) = &mut self.refolding {
            refolding.buffer.add(record);
        }
    }

    /// A key whose load is about to begin.
    pub(super) fn loading(copies: Copies<S>) -> Self {
        Self {
            copies,
            loading: Some(Buffer::new()),
            complete_to: Offset::BEGIN,
            began_at: Offset::BEGIN,
            halted: false,
            copying: false,
            saving: Saving::default(),
            sampling: Sampling::default(),
            is_reviewed: false,
            refolding: None,
            shadow: None,
            touched: false,
        }
    }
}

/// A value that is being computed anew.
pub(super) struct Refolding {
    /// The key's records since that began.
    pub(super) buffer: Buffer,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// A key's records that came while its value was on its way (PROTOCOL §7).
///
/// Copied out of their batches, which may be slices of something larger.
pub(super) struct Buffer {
    records: Vec<OwnedRecord>,
    bytes: usize,
    overflowed: bool,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self { records: Vec::new(), bytes: 0, overflowed: false }
    }

    pub(super) fn add(&mut self, record: &Stored<'_>) {
        if self.overflowed {
            return;
        }
        self.bytes += record.bytes.len() + size_of::<OwnedRecord>();
        if self.records.len() >= MAX_BUFFERED_RECORDS || self.bytes > MAX_BUFFERED_BYTES {
            // They are in the log: the next round of the load reads them there.
            self.give_up();
            return;
        }
        self.records.push(OwnedRecord {
            offset: record.offset,
            key: record.key.clone(),
            bytes: bytes::Bytes::copy_from_slice(record.bytes),
        });
    }

    /// What was kept may not be whole: the load goes another round.
    pub(super) fn give_up(&mut self) {
        (self.overflowed, self.records, self.bytes) = (true, Vec::new(), 0);
    }

    /// The records above what was loaded; `None` if some were not kept.
    pub(super) fn above(mut self, loaded: Offset) -> Option<Vec<OwnedRecord>> {
        self.records.retain(|record| record.offset > loaded);
        // Those that were kept for a load as well came twice.
        self.records.sort_by_key(|record| record.offset);
        self.records.dedup_by_key(|record| record.offset);
        (!self.overflowed).then_some(self.records)
    }
}
