//! The cell that says which snapshots a key has; `proto/snapshot.proto` and `docs/wire-format.md` describe it.

use std::fmt;

use bytes::Bytes;

use super::{super::owned_cell::Owned, LogNotes};
use crate::{CodecId, Cursor, Epoch, Offset, RecordId};

/// Which attempt at a snapshot; no two attempts of a key share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Generation(pub(crate) u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a state's type is called, and which shape it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateType {
    pub(crate) name: String,
    pub(crate) version: u32,
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The family's cursor up to which the value is complete.
    pub(crate) covered: Cursor,
    /// The key's own last record in the value, or the beginning of the epoch.
    pub(crate) key_head: Cursor,
    pub(crate) state: StateType,
    /// How many bytes the state has.
    pub(crate) len: u64,
    /// The BLAKE3 digest of the state's bytes.
    pub(crate) digest: Bytes,
}

/// Which snapshots a key has, and what is known of its log.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Manifest {
    /// The last generation anybody was given.
    #[prost(uint64, tag = "2")]
    pub(super) generation: u64,
    /// Chunks of this generation are being written.
    #[prost(message, optional, tag = "3")]
    pub(super) claim: Option<Chunks>,
    #[prost(message, optional, tag = "4")]
    pub(super) current: Option<Snapshot>,
    #[prost(message, optional, tag = "5")]
    pub(super) previous: Option<Snapshot>,
    #[prost(message, optional, tag = "6")]
    pub(super) rollback: Option<Snapshot>,
    /// Chunks that nothing names any more, and nothing ever will.
    #[prost(message, repeated, tag = "7")]
    pub(super) retired: Vec<Chunks>,
    #[prost(message, repeated, tag = "8")]
    pub(super) notes: Vec<LogNotes>,
}

impl Owned for Manifest {
    const FORMAT: u32 = 1;
}

/// The chunks of one generation.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Chunks {
    #[prost(uint64, tag = "1")]
    pub(super) generation: u64,
    #[prost(uint32, tag = "2")]
    pub(super) count: u32,
}

impl Chunks {
    pub(super) fn generation(self) -> Generation {
        Generation(self.generation)
    }
}

/// One snapshot as the manifest names it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Snapshot {
    #[prost(uint64, tag = "1")]
    pub(super) generation: u64,
    #[prost(message, required, tag = "2")]
    pub(super) header: StoredHeader,
    /// The state's bytes, where there are no chunks.
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) inline: Bytes,
    /// How many cells the state's bytes are in; none: `inline`.
    #[prost(uint32, tag = "4")]
    pub(super) chunks: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct StoredHeader {
    /// How the state's bytes are written: a codec's number.
    #[prost(uint32, tag = "1")]
    pub(super) format: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) epoch: Bytes,
    #[prost(uint64, tag = "3")]
    pub(super) covered: u64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) covered_id: Bytes,
    #[prost(uint64, tag = "5")]
    pub(super) key_head: u64,
    #[prost(bytes = "bytes", tag = "6")]
    pub(super) key_head_id: Bytes,
    #[prost(string, tag = "7")]
    pub(super) state: String,
    #[prost(uint32, tag = "8")]
    pub(super) state_version: u32,
    #[prost(uint64, tag = "9")]
    pub(super) len: u64,
    #[prost(bytes = "bytes", tag = "10")]
    pub(super) digest: Bytes,
}

impl StoredHeader {
    pub(super) fn new(header: Header) -> Self {
        Self {
            format: CodecId::MESSAGE_PACK.0,
            epoch: store_epoch(header.covered.epoch),
            covered: header.covered.offset.0,
            covered_id: store_id(&header.covered),
            key_head: header.key_head.offset.0,
            key_head_id: store_id(&header.key_head),
            state: header.state.name,
            state_version: header.state.version,
            len: header.len,
            digest: header.digest,
        }
    }
}

impl Snapshot {
    pub(crate) fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    pub(crate) fn header(&self) -> Header {
        let header = &self.header;
        let cursor =
            |offset, id: &Bytes| Cursor { epoch: self.epoch(), offset: Offset(offset), id: read_id(id) };
        Header {
            covered: cursor(header.covered, &header.covered_id),
            key_head: cursor(header.key_head, &header.key_head_id),
            state: StateType { name: header.state.clone(), version: header.state_version },
            len: header.len,
            digest: header.digest.clone(),
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        read_epoch(&self.header.epoch)
    }

    pub(super) fn covered(&self) -> Offset {
        Offset(self.header.covered)
    }

    fn is_of(&self, state: &StateType) -> bool {
        self.header.state == state.name && self.header.state_version == state.version
    }

    fn chunks(&self) -> Option<Chunks> {
        (self.chunks > 0).then_some(Chunks { generation: self.generation, count: self.chunks })
    }
}

impl Manifest {
    pub(crate) fn current(&self) -> Option<&Snapshot> {
        self.current.as_ref()
    }

    pub(crate) fn previous(&self) -> Option<&Snapshot> {
        self.previous.as_ref()
    }

    /// The last snapshot of the previous state version, until its window has ended.
    pub(crate) fn rollback(&self) -> Option<&Snapshot> {
        self.rollback.as_ref()
    }

    /// What the pods know of the log of this epoch.
    pub(crate) fn notes(&self, epoch: Epoch) -> Option<&LogNotes> {
        self.notes.iter().find(|notes| notes.epoch() == epoch)
    }

    /// The snapshots there are, each once, the best first.
    pub(super) fn snapshots(&self) -> Vec<&Snapshot> {
        let mut each: Vec<&Snapshot> = Vec::new();
        for snapshot in [&self.current, &self.previous, &self.rollback].into_iter().flatten() {
            if each.iter().all(|other| other.generation != snapshot.generation) {
                each.push(snapshot);
            }
        }
        each
    }

    pub(super) fn find(&self, generation: Generation) -> Option<&Snapshot> {
        self.snapshots().into_iter().find(|snapshot| snapshot.generation() == generation)
    }

    /// The newest snapshot whose writer or reader did not find it wanting.
    pub(super) fn trusted(&self, distrusted: &[Generation]) -> Option<&Snapshot> {
        let pair = [&self.current, &self.previous].into_iter().flatten();
        pair.into_iter().find(|snapshot| !distrusted.contains(&snapshot.generation()))
    }

    /// Takes the next generation, to write chunks under it; who held one before has lost it.
    pub(super) fn claim(&mut self, count: u32) -> Generation {
        self.retired.extend(self.claim.take());
        self.generation += 1;
        self.claim = Some(Chunks { generation: self.generation, count });
        Generation(self.generation)
    }

    /// Gives a claim up; false if it is not, or no longer, there.
    pub(super) fn withdraw(&mut self, generation: Generation) -> bool {
        let withdrawn = self.claim.take_if(|claim| claim.generation() == generation);
        self.retired.extend(withdrawn);
        withdrawn.is_some()
    }

    /// Whether a snapshot of this state makes the present one the one to roll back to.
    pub(super) fn changes_state(&self, state: &StateType, distrusted: &[Generation]) -> Option<Generation> {
        self.trusted(distrusted).filter(|present| !present.is_of(state)).map(Snapshot::generation)
    }

    /// Makes `snapshot` the current one, and what nothing names any more retired.
    pub(super) fn commit(&mut self, snapshot: Snapshot, distrusted: &[Generation], keep_rollback: bool) {
        let named: Vec<Chunks> = self.snapshots().into_iter().filter_map(Snapshot::chunks).collect();
        let state = StateType { name: snapshot.header.state.clone(), version: snapshot.header.state_version };
        let present = self.trusted(distrusted).cloned();
        self.rollback = if keep_rollback && self.changes_state(&state, distrusted).is_some() {
            present.clone()
        } else {
            self.rollback.take().filter(|rollback| {
                !distrusted.contains(&rollback.generation()) && rollback.epoch() == snapshot.epoch()
            })
        };
        // Its own claim ends; another one, which a small snapshot displaces, is retired.
        let displaced = self.claim.take().filter(|claim| claim.generation != snapshot.generation);
        self.retired.extend(displaced);
        self.previous = present;
        self.current = Some(snapshot);
        self.retire(named);
    }

    /// Forgets the snapshot to roll back to, if it still is this one.
    pub(super) fn end_rollback(&mut self, generation: Generation) -> bool {
        let named: Vec<Chunks> = self.snapshots().into_iter().filter_map(Snapshot::chunks).collect();
        let ended = self.rollback.take_if(|rollback| rollback.generation() == generation).is_some();
        self.retire(named);
        ended
    }

    /// Retires those of `named` that nothing names any more.
    fn retire(&mut self, named: Vec<Chunks>) {
        let gone = named.into_iter().filter(|chunks| self.find(chunks.generation()).is_none());
        let gone: Vec<Chunks> = gone.collect();
        self.retired.extend(gone);
    }
}

pub(super) fn store_epoch(epoch: Epoch) -> Bytes {
    Bytes::copy_from_slice(&epoch.0.to_be_bytes())
}

/// Every byte string is some epoch: one of another length is none that a log has.
pub(super) fn read_epoch(bytes: &Bytes) -> Epoch {
    Epoch(bytes[..].try_into().map_or(0, u128::from_be_bytes))
}

/// The id of a record, and nothing where there is none.
fn store_id(cursor: &Cursor) -> Bytes {
    if cursor.offset == Offset::BEGIN { Bytes::new() } else { Bytes::copy_from_slice(&cursor.id.0) }
}

fn read_id(bytes: &Bytes) -> RecordId {
    bytes[..].try_into().map(RecordId).unwrap_or_default()
}
