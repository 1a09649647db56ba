//! Where records lie: chunks that fill up in place, and what is left of them after compaction.

use std::{
    iter,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use via_backplane::{Key, Offset, OwnedRecord, Records, Stored};

/// The most slots a chunk has, hence the most records a batch of a tail brings.
pub(crate) const MAX_SLOTS: usize = 256;
/// A family's first chunk is small, so that thousands of quiet families stay cheap.
pub(crate) const MIN_SLOTS: usize = 16;

/// A run of slots that is written once, in order, and read without a lock.
///
/// Slots are written under the family's lock; readers see those below `published`. A chunk never changes what it has
/// published, so whoever holds it can go on reading whatever happens to the log.
pub(crate) struct Chunk {
    first: u64,
    slots: Box<[OnceLock<Slot>]>,
    published: AtomicUsize,
    thinned: AtomicBool,
}

struct Slot {
    key: Key,
    bytes: Bytes,
}

impl Chunk {
    pub(crate) fn new(first: u64, capacity: usize) -> Self {
        Self {
            first,
            slots: iter::repeat_with(OnceLock::new).take(capacity).collect(),
            published: AtomicUsize::new(0),
            thinned: AtomicBool::new(false),
        }
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Writes a slot that stays invisible until it is published.
    pub(crate) fn write(&self, index: usize, key: Key, bytes: Bytes) {
        let written = self.slots[index].set(Slot { key, bytes });
        assert!(written.is_ok(), "a slot is written once, under the family's lock");
    }

    /// Makes the first `count` slots visible to readers that hold no lock.
    pub(crate) fn publish(&self, count: usize) {
        self.published.store(count, Ordering::Release);
    }

    pub(crate) fn published(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    /// Whether compaction has dropped any of its records; then only the segment knows which are left.
    pub(crate) fn is_thinned(&self) -> bool {
        self.thinned.load(Ordering::Acquire)
    }
}

impl Records for Chunk {
    fn get(&self, index: usize) -> Option<Stored<'_>> {
        let slot = self.slots.get(index)?.get()?;
        Some(Stored { offset: Offset(self.first + index as u64), key: &slot.key, bytes: &slot.bytes })
    }
}

/// A stretch of the log as the family holds it: the slots, and which of them were dropped.
#[derive(Clone)]
pub(crate) struct Segment {
    body: Body,
    dropped: Bits,
}

#[derive(Clone)]
pub(crate) enum Body {
    /// Every offset from the chunk's first on has a slot.
    Dense(Arc<Chunk>),
    /// What is left of a chunk that was mostly dropped, in order.
    Sparse(Arc<Vec<OwnedRecord>>),
}

impl Segment {
    pub(crate) fn of(chunk: Arc<Chunk>) -> Self {
        Self { body: Body::Dense(chunk), dropped: Bits::default() }
    }

    pub(crate) fn chunk(&self) -> Option<&Arc<Chunk>> {
        match &self.body {
            Body::Dense(chunk) => Some(chunk),
            Body::Sparse(_) => None,
        }
    }

    fn len(&self) -> usize {
        match &self.body {
            Body::Dense(chunk) => chunk.published(),
            Body::Sparse(records) => records.len(),
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.len() - self.dropped.count()
    }

    /// Whether keeping the few records that are left wastes most of the memory.
    ///
    /// At a quarter, rebuilding moves at most one handle per three dropped records, so a drop stays constant on
    /// average; and what a survivor keeps alive is bounded by three dropped neighbours, however long it lives.
    pub(crate) fn is_mostly_dropped(&self) -> bool {
        let dropped = self.dropped.count();
        dropped > 0 && (self.len() - dropped) * 4 <= self.len()
    }

    pub(crate) fn records(&self) -> Arc<dyn Records> {
        match &self.body {
            Body::Dense(chunk) => chunk.clone(),
            Body::Sparse(records) => records.clone(),
        }
    }

    /// The slots of the offsets in `offsets`, dropped ones included.
    pub(crate) fn slots(&self, offsets: Range<u64>) -> Range<usize> {
        match &self.body {
            Body::Dense(chunk) => {
                let len = chunk.published();
                let slot = |offset: u64| usize::try_from(offset.saturating_sub(chunk.first)).unwrap_or(len);
                slot(offsets.start).min(len)..slot(offsets.end).min(len)
            }
            Body::Sparse(records) => {
                let slot = |offset: u64| records.partition_point(|record| record.offset.0 < offset);
                slot(offsets.start)..slot(offsets.end)
            }
        }
    }

    pub(crate) fn offset_of(&self, slot: usize) -> u64 {
        match &self.body {
            Body::Dense(chunk) => chunk.first + slot as u64,
            Body::Sparse(records) => records[slot].offset.0,
        }
    }

    /// Whether some slot in the range was dropped.
    pub(crate) fn has_dropped(&self, slots: Range<usize>) -> bool {
        self.dropped.any(slots)
    }

    /// The slots in the range that were not dropped.
    pub(crate) fn live_slots(&self, slots: Range<usize>) -> impl Iterator<Item = usize> + '_ {
        slots.filter(|slot| !self.dropped.has(*slot))
    }

    /// Forgets the records of the offsets in `offsets`.
    pub(crate) fn drop_records(&mut self, offsets: Range<u64>) {
        let slots = self.slots(offsets);
        if let Body::Dense(chunk) = &self.body {
            // A tail that has this chunk at hand must come back for the lock before it reads on.
            chunk.thinned.store(true, Ordering::Release);
        }
        self.dropped.set(slots);
    }

    /// Moves what is left into a body of its own; answers the old one, to be freed outside the lock.
    pub(crate) fn thin(&mut self) -> Body {
        let records = self.records();
        let left = self
            .live_slots(0..self.len())
            .map(|slot| match &self.body {
                Body::Dense(chunk) => chunk.owned(slot),
                Body::Sparse(records) => records[slot].clone(),
            })
            .collect();
        drop(records);
        self.dropped = Bits::default();
        std::mem::replace(&mut self.body, Body::Sparse(Arc::new(left)))
    }

    pub(crate) fn into_body(self) -> Body {
        self.body
    }
}

impl Chunk {
    fn owned(&self, index: usize) -> OwnedRecord {
        let slot = self.slots[index].get().expect("a published slot is written");
        OwnedRecord {
            offset: Offset(self.first + index as u64),
            key: slot.key.clone(),
            bytes: slot.bytes.clone(),
        }
    }
}

/// One bit per slot.
#[derive(Clone, Default)]
struct Bits([u64; MAX_SLOTS / 64]);

impl Bits {
    fn has(&self, slot: usize) -> bool {
        self.0[slot / 64] >> (slot % 64) & 1 == 1
    }

    fn set(&mut self, slots: Range<usize>) {
        for slot in slots {
            self.0[slot / 64] |= 1 << (slot % 64);
        }
    }

    fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn any(&self, mut slots: Range<usize>) -> bool {
        self.0.iter().any(|word| *word != 0) && slots.any(|slot| self.has(slot))
    }
}

/// Slots of several bodies, in order, as one batch.
#[derive(Default)]
pub(crate) struct Picked {
    bodies: Vec<Arc<dyn Records>>,
    slots: Vec<(u32, u32)>,
}

impl Picked {
    pub(crate) fn add(&mut self, body: Arc<dyn Records>, slots: impl IntoIterator<Item = usize>) {
        let index = u32::try_from(self.bodies.len()).expect("a batch has fewer than 2^32 segments");
        self.bodies.push(body);
        self.slots.extend(
            slots
                .into_iter()
                .map(|slot| (index, u32::try_from(slot).expect("a segment has fewer than 2^32 slots"))),
        );
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

impl Records for Picked {
    fn get(&self, index: usize) -> Option<Stored<'_>> {
        let (body, slot) = *self.slots.get(index)?;
        self.bodies[body as usize].get(slot as usize)
    }
}
