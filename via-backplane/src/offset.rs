//! Where things stand: offsets, epochs, revisions, and the cursors made of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Key;

/// Where a record stands in its family's log.
///
/// Opaque and strictly increasing within a family, **not** contiguous. [`Offset::BEGIN`] is before the first. A state may
/// keep offsets: it is a number in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// Before the first record.
    pub const BEGIN: Self = Self(0);
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The generation of a log's offset space.
///
/// It changes when the log was recreated, or restored through the backend's API. A store directory put back
/// from a copy may keep it, which is why cursors also carry a [`RecordId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Epoch(pub u128);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The revision of a cell. It never repeats or falls for a key, through delete and expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rev(pub u64);

/// The generation of a [`Store`](crate::Store): it changes when the store was recreated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(pub u128);

/// The identity of one record, for telling a rewritten log from the one a reader knew.
///
/// It is the event id where the record is a readable envelope, else a digest of the bytes (see
/// [`envelope::record_id`](crate::envelope::record_id)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RecordId(pub [u8; 16]);

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({:032x})", u128::from_be_bytes(self.0))
    }
}

/// The last committed offset of a key or of a family, in its epoch.
///
/// Compare like with like: a key's head says nothing about its family's, and an offset nothing about another epoch's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The generation of the offsets.
    pub epoch: Epoch,
    /// The last committed offset, [`Offset::BEGIN`] if there is none.
    pub offset: Offset,
}

/// Where a reader stands: the last record it has handled, and which record that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The generation of `offset`.
    pub epoch: Epoch,
    /// The last record handled.
    pub offset: Offset,
    /// Which record that was. Meaningless at [`Offset::BEGIN`].
    pub id: RecordId,
}

impl Cursor {
    /// The head of the key whose last record this is: what an append that follows it expects.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { epoch: self.epoch, offset: self.offset }
    }

    /// Before the first record of an epoch.
    #[must_use]
    pub fn begin(epoch: Epoch) -> Self {
        Self { epoch, offset: Offset::BEGIN, id: RecordId::default() }
    }
}

/// A cursor with its key: what an append returns and a reader can wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Whose state to wait for.
    pub key: Key,
    /// The record that must have been folded.
    pub cursor: Cursor,
}
