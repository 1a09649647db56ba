//! The event log an adapter implements.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::{AppendError, BackendError, Epoch, Family, Head, Key, Offset, Reply};

/// An append-only log per family, tailed by every pod.
///
/// # Guarantees
///
/// The conformance suite names its cases after these numbers.
///
/// - **L1** [`append`](Self::append) returns only after the records are committed as durably as the adapter promises.
/// - **L2** Per family, offsets strictly increase in commit order; concurrent appends never share or lose one.
/// - **L3** [`subscribe`](Self::subscribe) yields every retained record from its starting point, in order, none twice
///   within one subscription, then live-tails, in bounded batches of whatever is ready. A batch carries a
///   [`Hole`] where the adapter knows that records are gone.
/// - **L4** A subscription that ends because the backend went away says so: its last item is an error, never a
///   silent end, and subscribing again at the last record misses nothing. It never ends by itself while the
///   backend is up. A slow reader is bounded by the adapter without losing records. While the backend is away, calls answer
///   so within a time the adapter bounds; nobody else does.
/// - **L5** An append of several entries is adjacent, in order, all or none, and takes at most one expectation
///   per key. A failed one is [`AppendError::Conflict`]; one of another epoch than the log's present one fails, whatever
///   offset it names. `limits().max_batch` says how many entries it may have.
/// - **L6** An append id is scoped to the key of the append's first entry and remembered for at least
///   `limits().id_window`, whatever is compacted: a repeat returns the first append's offsets (or
///   [`AppendError::Duplicate`] where the backend cannot recall them), and beats a failed expectation.
/// - **L7** An append whose outcome is unknown is [`AppendError::MaybeCommitted`]. With an id, repeating it inside the
///   window is safe; without one it stays unknown.
/// - **L8** [`read`](Self::read) is a bounded read that ends.
/// - **L9** [`instances`](Self::instances) lists the keys of a family that have a retained record, in key order.
/// - **L10** [`head`](Self::head) answers offset and epoch from the backend, never from a local copy.
///
/// Oversized records and batches are refused before anything is sent (**S6**).
pub trait EventLog: Send + Sync {
    /// Appends entries of one family, all or none.
    ///
    /// # Cancel safety
    /// Dropping the reply abandons the answer, not the append: it may still be committed.
    fn append(&self, append: Append) -> Reply<'_, Result<Appended, AppendError>>;

    /// Opens a tail. The reply answers when the subscription is established.
    ///
    /// # Cancel safety
    /// Cancel-safe; dropping the subscription ends it.
    fn subscribe<'a>(
        &'a self,
        selector: &'a Selector,
        from: Resume,
    ) -> Reply<'a, Result<Subscription, BackendError>>;

    /// Reads at most `limit` records with `after < offset <= up_to`, in order.
    ///
    /// Fewer than `limit` records mean that the range is exhausted.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn read<'a>(&'a self, selector: &'a Selector, range: ReadRange)
    -> Reply<'a, Result<Batch, BackendError>>;

    /// Lists up to `page.limit` keys of a family, after `page.after`.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn instances<'a>(&'a self, family: &'a Family, page: Page) -> Reply<'a, Result<Vec<Key>, BackendError>>;

    /// The last committed offset of a key or a family.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn head<'a>(&'a self, selector: &'a Selector) -> Reply<'a, Result<Head, BackendError>>;
}

/// What a reader wants: one key or a whole family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The records of one key.
    Key(Key),
    /// The records of all keys of a family.
    Family(Family),
}

impl Selector {
    /// The family read from.
    #[must_use]
    pub fn family(&self) -> &Family {
        match self {
            Self::Key(key) => key.family(),
            Self::Family(family) => family,
        }
    }

    /// Whether a record of `key` is wanted; `key` is of the same family.
    #[must_use]
    pub fn wants(&self, key: &Key) -> bool {
        match self {
            Self::Key(wanted) => wanted == key,
            Self::Family(family) => family == key.family(),
        }
    }
}

/// Where a subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// With the first retained record above this offset.
    After(Offset),
    /// With the first retained record at or above this offset: a resuming tail starts *at* its cursor and compares
    /// the record's id (PROTOCOL §1).
    At(Offset),
}

impl Resume {
    /// The offset the first record has to exceed.
    #[must_use]
    pub fn exclusive(self) -> Offset {
        match self {
            Self::After(offset) => offset,
            Self::At(offset) => Offset(offset.0.saturating_sub(1)),
        }
    }
}

/// The bounds of one [`EventLog::read`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRange {
    /// Records above this offset.
    pub after: Offset,
    /// Records up to and including this offset.
    pub up_to: Offset,
    /// At most this many records.
    pub limit: usize,
}

/// One page of [`EventLog::instances`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Keys after this one; `None` starts at the first.
    pub after: Option<Key>,
    /// At most this many keys.
    pub limit: usize,
}

/// One record to append, with its key.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose record this is.
    pub key: Key,
    /// The record's bytes, an [envelope](crate::envelope).
    pub record: Bytes,
}

/// What has to be true of a key for an append to take place: its head is exactly this one.
///
/// Offsets start over when a log is recreated, so an offset alone would also be met by a log that holds other records.
/// An expectation of another epoch than the log's present one fails, whatever its offset, [`Offset::BEGIN`] included.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// The key; it need not have an entry in the append.
    pub key: Key,
    /// Its head, [`Offset::BEGIN`] of an epoch if it must have no record.
    pub head: Head,
}

/// An append: entries of one family, all or none. It is passed by value, so that an adapter keeps the record's bytes
/// without copying them or counting references.
#[derive(Debug, Clone)]
pub struct Append {
    /// What to append, in this order; never empty, and all of one family.
    pub entries: Entries,
    /// At most one expectation per key.
    pub expect: Vec<Expectation>,
    /// Makes a repeat harmless (L6).
    pub id: Option<AppendId>,
}

impl Append {
    /// An append without expectation or id.
    #[must_use]
    pub fn new(entries: Entries) -> Self {
        Self { entries, expect: Vec::new(), id: None }
    }

    /// The family appended to.
    ///
    /// # Panics
    /// If there are no entries, which no caller may pass to an adapter.
    #[must_use]
    pub fn family(&self) -> &Family {
        self.entries.first().expect("an append has at least one entry").key.family()
    }
}

/// The entries of an append; a single one needs no allocation.
#[derive(Debug, Clone)]
pub enum Entries {
    /// Exactly one.
    One(Entry),
    /// Any number, never none.
    Many(Vec<Entry>),
}

impl std::ops::Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Many(entries) => entries,
        }
    }
}

/// The longest append id, in bytes.
pub const MAX_APPEND_ID_BYTES: usize = 256;

/// A caller's name for one append, so that repeating it appends nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppendId(Arc<str>);

impl AppendId {
    /// Names an append.
    ///
    /// # Errors
    /// [`InvalidKey`](crate::InvalidKey) if the name is empty or longer than [`MAX_APPEND_ID_BYTES`].
    pub fn new(id: impl AsRef<str>) -> Result<Self, crate::InvalidKey> {
        crate::key::check("append id", id.as_ref(), MAX_APPEND_ID_BYTES).map(|id| Self(id.into()))
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where an append's records stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The generation of the offsets.
    pub epoch: Epoch,
    /// One offset per entry, in the order of the entries.
    pub offsets: Offsets,
}

/// The offsets of an append's entries, strictly increasing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offsets {
    /// `count` offsets, each one above the last.
    Run {
        /// The first entry's offset.
        first: Offset,
        /// How many there are.
        count: usize,
    },
    /// Offsets with gaps.
    List(Vec<Offset>),
}

impl Offsets {
    /// The offset of the entry at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Offset> {
        match self {
            Self::Run { first, count } => (index < *count).then(|| Offset(first.0 + index as u64)),
            Self::List(offsets) => offsets.get(index).copied(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Run { count, .. } => *count,
            Self::List(offsets) => offsets.len(),
        }
    }

    /// Whether there are none; no adapter returns that.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The offsets in order.
    pub fn iter(&self) -> impl Iterator<Item = Offset> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

/// A live tail. Its last item is an error (L4); after [`ErrorKind::Closed`](crate::ErrorKind::Closed) resubscribing is in vain.
pub type Subscription = BoxStream<'static, Result<Batch, BackendError>>;

/// Records that arrived together, in order, without copying what the adapter holds.
#[derive(Clone)]
pub struct Batch {
    epoch: Epoch,
    records: Arc<dyn Records>,
    range: Range<usize>,
    hole: Option<Hole>,
}

impl Batch {
    /// A batch over the slots `range` of what the adapter holds. Empty slots are passed over.
    #[must_use]
    pub fn new(epoch: Epoch, records: Arc<dyn Records>, range: Range<usize>) -> Self {
        Self { epoch, records, range, hole: None }
    }

    /// A batch of owned records, in order.
    #[must_use]
    pub fn of(epoch: Epoch, records: Vec<OwnedRecord>) -> Self {
        let range = 0..records.len();
        Self::new(epoch, Arc::new(records), range)
    }

    /// Says that records before this batch are gone.
    #[must_use = "returns the batch with its hole"]
    pub fn with_hole(mut self, hole: Hole) -> Self {
        self.hole = Some(hole);
        self
    }

    /// The epoch of the offsets.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where the adapter knows that records between the previous batch (or the start) and the end of this one are gone.
    #[must_use]
    pub fn hole(&self) -> Option<&Hole> {
        self.hole.as_ref()
    }

    /// The records in order.
    pub fn iter(&self) -> impl Iterator<Item = Stored<'_>> + Clone {
        self.range.clone().filter_map(|index| self.records.get(index))
    }

    /// The last record.
    pub(crate) fn last(&self) -> Option<Stored<'_>> {
        self.range.clone().rev().find_map(|index| self.records.get(index))
    }

    /// The records in order, each with its slot.
    pub fn slots(&self) -> impl Iterator<Item = (usize, Stored<'_>)> + Clone {
        self.range.clone().filter_map(|slot| Some((slot, self.records.get(slot)?)))
    }

    /// The records from a slot on, each with its slot.
    pub(crate) fn slots_from(&self, from: usize) -> impl Iterator<Item = (usize, Stored<'_>)> {
        let slots = self.range.start.max(from)..self.range.end;
        slots.filter_map(|slot| Some((slot, self.records.get(slot)?)))
    }

    /// What holds the records.
    pub(crate) fn records(&self) -> &Arc<dyn Records> {
        &self.records
    }

    /// The records in `slots`, in order.
    pub(crate) fn records_in(&self, slots: Range<usize>) -> impl Iterator<Item = Stored<'_>> {
        slots.filter_map(|slot| self.records.get(slot))
    }

    /// Whether there is no record; true only of a batch that brings a hole, and of a read past the end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// At most this many records: the slots, empty ones counted.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.range.len()
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let offsets: Vec<_> = self.iter().map(|record| record.offset).collect();
        f.debug_struct("Batch")
            .field("epoch", &self.epoch)
            .field("offsets", &offsets)
            .field("hole", &self.hole)
            .finish()
    }
}

/// The records behind a [`Batch`], as the adapter holds them.
pub trait Records: Send + Sync {
    /// The record in a slot, or `None` where the slot is empty. Constant time.
    fn get(&self, index: usize) -> Option<Stored<'_>>;
}

/// One record as the log holds it.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// Where it stands.
    pub offset: Offset,
    /// Whose record it is.
    pub key: &'a Key,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// One record, owned; for adapters that receive records one by one.
#[derive(Debug, Clone)]
pub struct OwnedRecord {
    /// Where it stands.
    pub offset: Offset,
    /// Whose record it is.
    pub key: Key,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Records for Vec<OwnedRecord> {
    fn get(&self, index: usize) -> Option<Stored<'_>> {
        let record = <[OwnedRecord]>::get(self, index)?;
        Some(Stored { offset: record.offset, key: &record.key, bytes: &record.bytes })
    }
}

/// "Records are gone": all of `selector`'s records with `after < offset < before` that are not delivered.
///
/// A record that was delivered, or that comes at or above `before`, is not affected. Offsets have gaps by nature; a
/// hole is only what the adapter knows to have been dropped by compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// The keys that lost records, with their floors.
    pub floors: Vec<(Key, Offset)>,
}
