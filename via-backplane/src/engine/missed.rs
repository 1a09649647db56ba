//! Records that a copy of a value has yet to fold, kept for it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    decode::{Decoded, decode},
    projection::Run,
};
use crate::{Epoch, Event, Key, Offset, Stored};

/// What the spares of one family may lag together, in bytes. Beyond it all of them are given up, which costs each key whose
/// value is held again one copy: once in so many bytes of events.
const MAX_FAMILY_BYTES: usize = 64 << 20;
/// Larger buffers are not kept for the next spare.
const MAX_KEPT_BYTES: usize = 64 << 10;

/// One key's records, oldest first, copied out of the batches they came in.
///
/// Keeping the batches would be no cheaper to bound: a batch holds other keys' records too, and what an adapter's records
/// are slices of, a read buffer of its connection for instance, is larger still.
#[derive(Debug, Default)]
pub(super) struct Missed {
    epoch: Epoch,
    bytes: Vec<u8>,
    /// Where each record stands in the log, and where it ends in `bytes`.
    records: Vec<(Offset, usize)>,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl std::ops::AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

impl std::ops::SubAssign for Load {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl std::ops::Sub for Load {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { records: self.records - other.records, bytes: self.bytes - other.bytes }
    }
}

impl Missed {
    /// Copies a run's records; answers how much they are.
    pub(super) fn add(&mut self, run: Run<'_>) -> Load {
        let before = self.load();
        self.epoch = run.batch.epoch();
        for record in run.records() {
            self.bytes.extend_from_slice(record.bytes);
            self.records.push((record.offset, self.bytes.len()));
        }
        self.load() - before
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn load(&self) -> Load {
        Load { records: self.records.len(), bytes: self.bytes.len() + size_of_val(&*self.records) }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn first(&self) -> Option<Offset> {
        self.records.first().map(|(offset, _)| *offset)
    }

    /// Decodes the records anew. Those that cannot be decoded were skipped the first time too.
    pub(super) fn decode<'a, E: Event>(&'a self, key: &'a Key) -> impl Iterator<Item = Decoded<E>> + 'a {
        let mut start = 0;
        let records = self.records.iter().map(move |&(offset, end)| {
            let bytes = &self.bytes[start..end];
            start = end;
            Stored { offset, key, bytes }
        });
        records.filter_map(|record| decode::<E>(&record).ok())
    }

    /// The buffers alone, unless they grew large.
    pub(super) fn emptied(mut self) -> Self {
        if self.bytes.capacity() + self.records.capacity() * size_of::<(Offset, usize)>() > MAX_KEPT_BYTES {
            return Self::default();
        }
        self.bytes.clear();
        self.records.clear();
        self
    }
}

/// How many bytes the spares of one family lag together.
#[derive(Debug, Clone, Default)]
pub(super) struct Lag(Arc<AtomicUsize>);

impl Lag {
    pub(super) fn is_too_large(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MAX_FAMILY_BYTES
    }

    pub(super) fn share(&self) -> Share {
        Share { of: self.clone(), bytes: 0 }
    }
}

/// One spare's part of it, given back when the spare is dropped.
#[derive(Debug)]
pub(super) struct Share {
    of: Lag,
    bytes: usize,
}

impl Share {
    pub(super) fn set(&mut self, bytes: usize) {
        // The projector alone changes it, so the order of the two does not matter.
        self.of.0.fetch_add(bytes, Ordering::Relaxed);
        self.of.0.fetch_sub(std::mem::replace(&mut self.bytes, bytes), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Weak};

    use bytes::Bytes;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::{
        Batch, CodecId, Envelope, EventId, Fold, OwnedRecord, Recorded,
        engine::{
            decode::decode,
            projection::{Copies, Folded, Projection, Published},
        },
    };

    #[derive(Serialize, Deserialize, crate::Event)]
    #[event(name = "test.counted")]
    struct Counted(u64);

    impl Fold<u64> for Counted {
        fn fold(self, sum: &mut u64, _at: &Recorded) {
            *sum += self.0;
        }
    }

    /// The read buffer of a connection, of which an adapter's records are slices.
    struct ReadBuffer(Arc<Vec<u8>>);

    impl AsRef<[u8]> for ReadBuffer {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    fn record(count: u64) -> Vec<u8> {
        let mut payload = Vec::new();
        Counted(count).encode(&mut payload).expect("a number encodes");
        let envelope = Envelope {
            id: EventId([1; 16]),
            time: 1,
            name: Counted::NAME,
            version: 1,
            codec: CodecId::MESSAGE_PACK,
            payload: &payload,
            trace: None,
            trace_state: None,
            subject: None,
            unknown: Default::default(),
        };
        let mut record = Vec::new();
        envelope.encode(&mut record);
        record
    }

    fn key(instance: &str) -> Key {
        Key::instance(&crate::Family::new("rooms").expect("a valid name"), instance).expect("a valid name")
    }

    /// A record of `key` among many others in one read buffer.
    fn batch(key: &Key, offset: u64) -> (Batch, Weak<Vec<u8>>) {
        let one = record(offset);
        let buffer = Arc::new([one.repeat(2), vec![0; 64 << 10]].concat());
        let watched = Arc::downgrade(&buffer);
        let buffer = Bytes::from_owner(ReadBuffer(buffer));
        let owned = |key: &Key, offset, start: usize| OwnedRecord {
            offset: Offset(offset),
            key: key.clone(),
            bytes: buffer.slice(start..start + one.len()),
        };
        let other = self::key("other");
        let records = vec![owned(&other, offset * 2, 0), owned(key, offset * 2 + 1, one.len())];
        (Batch::of(Epoch(7), records), watched)
    }

    fn fold(copies: &mut Copies<u64>, batch: &Batch) -> Folded {
        let run = Run { batch, first_slot: 1, last_slot: 1 };
        let decoded = run.records().map(|record| decode::<Counted>(&record).expect("it was just encoded"));
        copies.fold(run, &mut decoded.collect())
    }

    fn value(copies: &Copies<u64>) -> Arc<Published<u64>> {
        copies.hold().expect("nothing is being rebuilt")
    }

    #[test]
    fn neither_a_spare_that_lags_nor_what_waits_keeps_a_batch_alive() {
        let key = key("1");
        let mut copies = Copies::new(Arc::new(Projection::new(key.clone(), None)), &Lag::default());
        copies.replace(Some(Published::begin()), None, Offset::BEGIN, None);
        let mut buffers = Vec::new();
        let mut fold_next = |copies: &mut Copies<u64>| {
            let (batch, buffer) = batch(&key, buffers.len() as u64 + 1);
            buffers.push(buffer);
            fold(copies, &batch)
        };
        // The only copy is held, so what comes waits for another one.
        let held = value(&copies);
        let waits = (0..3).map(|_| fold_next(&mut copies)).collect::<Vec<_>>();
        assert!(waits.iter().all(|folded| matches!(folded, Folded::Held(_))), "{waits:?}");
        let (load, outcome) = copies.fold_waiting::<Counted>(Published::clone(&held));
        assert_eq!((load.records, outcome), (3, Ok(())));
        drop(held);
        // Nobody holds anything: the published value moves on, and the spare lags.
        for _ in 0..100 {
            assert_eq!(fold_next(&mut copies), Folded::Published);
        }
        // The published value is held again, so the spare catches up on all of it.
        let held = value(&copies);
        assert_eq!(fold_next(&mut copies), Folded::Published);
        let sum = |upto: u64| (1..=upto).sum::<u64>();
        assert_eq!((held.state, value(&copies).state), (sum(103), sum(104)));
        assert_eq!(value(&copies).key_head.offset, Offset(104 * 2 + 1));
        let alive = buffers.iter().filter(|buffer| buffer.strong_count() > 0).count();
        assert_eq!(alive, 0, "of {} read buffers", buffers.len());
    }

    #[test]
    fn a_share_is_given_back_when_its_spare_is_gone() {
        let lag = Lag::default();
        let (mut one, mut other) = (lag.share(), lag.share());
        one.set(MAX_FAMILY_BYTES);
        assert!(!lag.is_too_large());
        other.set(10);
        assert!(lag.is_too_large());
        one.set(5);
        assert!(!lag.is_too_large());
        one.set(MAX_FAMILY_BYTES);
        drop(other);
        assert!(!lag.is_too_large());
        drop(one);
        assert_eq!(lag.0.load(Ordering::Relaxed), 0);
    }
}
