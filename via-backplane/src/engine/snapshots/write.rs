//! Writing a snapshot: claim, chunks, commit, read back.

use std::convert::Infallible;

use bytes::Bytes;

use super::{
    super::owned_cell::{self, Change, ChangeError, Held, OwnedError, Put},
    Generation, Header, LogNotes, MAX_CHUNKS, MAX_INLINE, Manifest, Snapshot, Snapshots, StateType, Unusable,
    manifest::StoredHeader,
};
use crate::{BackendError, Cursor, Expected, Offset, Retry, Rev, TooLarge};

/// How often a writer looks again because somebody changed the manifest before it had a claim.
const MAX_ATTEMPTS: usize = 16;

/// A snapshot to be.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// The family's cursor up to which the state is complete.
    pub(crate) covered: Cursor,
    /// The key's own last record in the state, or the beginning of the epoch.
    pub(crate) key_head: Cursor,
    pub(crate) state: StateType,
    /// The state, in MessagePack.
    pub(crate) bytes: Bytes,
    /// Snapshots of another log: the log has other records where they stand. They are displaced, whatever they cover, and what was
    /// known of their log is forgotten.
    pub(crate) refuted: Vec<Generation>,
    /// Snapshots that could not be read or taken over: they are displaced as well, and are none to fall back on.
    pub(crate) unreadable: Vec<Generation>,
    /// Undecodable records up to here were folded by this pod, so nothing holds them any more.
    pub(crate) clears_holds_up_to: Option<Offset>,
    /// Claims of generations up to this one are taken for dead. The default believes every claim; see [`Outcome::Claimed`].
    pub(crate) displaces: Generation,
}

/// What became of a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is the current snapshot, or was; the one before it is complete up to `previous`.
    Written { generation: Generation, bytes: usize, previous: Option<Cursor> },
    /// There is one that covers as much.
    Superseded { by: Header },
    /// The current one is of another epoch. Ask the log which epoch is its own; if it is the draft's, this generation is refuted.
    Foreign { generation: Generation, header: Header },
    /// Somebody is writing. Write again, displacing this generation, when it has been told for longer than a write takes: a writer
    /// may have died.
    Claimed { by: Generation, chunks: u32 },
    /// Somebody changed the manifest meanwhile, and this writer's chunks are deleted.
    LostClaim,
}

/// Why a draft may not have become a snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the manifest could not be read or written")]
    Manifest(#[from] OwnedError),
    #[error("a chunk could not be written or deleted")]
    Chunk(#[source] BackendError),
    #[error("a chunk is too large")]
    ChunkTooLarge(#[source] TooLarge),
    /// Nothing was written.
    #[error("the state has {bytes} bytes, a snapshot in cells of this backplane has at most {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// It is the current snapshot and cannot be read: the next draft says so.
    #[error("snapshot {generation} was committed and cannot be read back")]
    Unreadable { generation: Generation, source: Unusable },
    #[error("others kept changing the manifest")]
    Contended,
}

impl WriteError {
    /// Whether repeating the write is right. It never does harm: at worst it is superseded by itself.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Manifest(error) => error.retry(),
            Self::Chunk(error) => error.retry(),
            Self::Unreadable { .. } | Self::Contended => Retry::Safe,
            Self::ChunkTooLarge(_) | Self::TooLarge { .. } => Retry::Never,
        }
    }
}

impl Snapshots<'_> {
    /// Makes a snapshot of `draft`, unless there is one that covers as much.
    pub(crate) async fn write(&self, draft: &Draft) -> Result<Outcome, WriteError> {
        let chunks = self.chunks(draft.bytes.len())?;
        let header = draft.header().await;
        let mut delays = self.delays();
        for _ in 0..MAX_ATTEMPTS {
            let held = self.manifest().await?;
            let present = held.as_ref().map(|held| held.value.clone()).unwrap_or_default();
            if let Some(refused) = draft.refused(&present) {
                return Ok(refused);
            }
            // Retired is for ever: even a lagging manifest is right about it.
            self.delete_chunks(&present.retired).await?;
            if let Some(present) = self.rolls_back_to(&present, draft) {
                self.open_window(present).await?;
            }
            let expected = held.map_or(Expected::Absent, |held| Expected::At(held.rev));
            let swept = Manifest { retired: Vec::new(), ..present };
            let done = match self.inline(&swept, draft, &header) {
                Some(next) => self.write_inline(expected, next).await?,
                None => self.write_chunked(expected, swept, chunks, draft, &header).await?,
            };
            if let Some(outcome) = done {
                return Ok(outcome);
            }
            delays.wait().await;
        }
        Err(WriteError::Contended)
    }

    /// How many chunks so many bytes are.
    fn chunks(&self, bytes: usize) -> Result<u32, WriteError> {
        let limit = self.max_cell.saturating_mul(MAX_CHUNKS);
        match u32::try_from(bytes.div_ceil(self.max_cell.max(1))) {
            Ok(chunks) if bytes <= limit => Ok(chunks),
            _ => Err(WriteError::TooLarge { bytes, limit }),
        }
    }

    fn rolls_back_to(&self, present: &Manifest, draft: &Draft) -> Option<Generation> {
        let present = present.changes_state(&draft.state, &draft.distrusted())?;
        self.keeps_rollback().then_some(present)
    }

    fn keeps_rollback(&self) -> bool {
        !self.rollback_window.is_zero()
    }

    /// The manifest with the draft in it, if it is small enough.
    ///
    /// Three snapshots may be inline, and a quarter of the cell is left for the rest.
    fn inline(&self, present: &Manifest, draft: &Draft, header: &StoredHeader) -> Option<Manifest> {
        if draft.bytes.len() > MAX_INLINE.min(self.max_cell / 4) {
            return None;
        }
        let mut next = present.clone();
        next.generation += 1;
        let (generation, inline) = (next.generation, draft.bytes.clone());
        let snapshot = Snapshot { generation, header: header.clone(), inline, chunks: 0 };
        self.commit(&mut next, snapshot, draft);
        (owned_cell::sealed_len(&next) <= self.max_cell).then_some(next)
    }

    /// `None`: somebody was faster.
    async fn write_inline(&self, expected: Expected, next: Manifest) -> Result<Option<Outcome>, WriteError> {
        match self.put(expected, next).await? {
            Put::Written(held) => self.finish(held).await.map(Some),
            Put::Conflict => Ok(None),
        }
    }

    /// `None`: somebody was faster than the claim.
    async fn write_chunked(
        &self,
        expected: Expected,
        mut next: Manifest,
        chunks: u32,
        draft: &Draft,
        header: &StoredHeader,
    ) -> Result<Option<Outcome>, WriteError> {
        // An empty state that finds no room in the manifest has a chunk too.
        let chunks = chunks.max(1);
        let generation = next.claim(chunks);
        let Put::Written(claimed) = self.put(expected, next).await? else { return Ok(None) };
        if let Err(error) = self.put_chunks(generation, &draft.bytes).await {
            self.withdraw(generation).await;
            return Err(error);
        }
        let mut next = claimed.value;
        let (header, inline) = (header.clone(), Bytes::new());
        let snapshot = Snapshot { generation: generation.0, header, inline, chunks };
        self.commit(&mut next, snapshot, draft);
        let expected = if self.rules.commit_at_claim {
            Expected::At(claimed.rev)
        } else {
            self.manifest().await?.map_or(Expected::Absent, |held| Expected::At(held.rev))
        };
        match self.put(expected, next).await? {
            Put::Written(held) => self.finish(held).await.map(Some),
            Put::Conflict => {
                self.lose(generation, chunks).await;
                Ok(Some(Outcome::LostClaim))
            }
        }
    }

    async fn put(&self, expected: Expected, next: Manifest) -> Result<Put<Manifest>, OwnedError> {
        owned_cell::put_at(self.store, self.entropy, self.names.manifest(), expected, next).await
    }

    fn commit(&self, next: &mut Manifest, snapshot: Snapshot, draft: &Draft) {
        let epoch = draft.covered.epoch;
        let is_refuted = |snapshot: &&Snapshot| {
            snapshot.epoch() == epoch && draft.refuted.contains(&snapshot.generation())
        };
        if next.snapshots().iter().any(is_refuted) {
            LogNotes::of(&mut next.notes, epoch).forget_log();
        }
        next.commit(snapshot, &draft.distrusted(), self.keeps_rollback());
        if let Some(offset) = draft.clears_holds_up_to {
            LogNotes::of(&mut next.notes, epoch).release_up_to(offset);
        }
    }

    /// Reads back what was committed, and deletes what it displaced.
    async fn finish(&self, committed: Held<Manifest>) -> Result<Outcome, WriteError> {
        let written = committed.value.current().expect("it was committed as current");
        let (generation, bytes) = (written.generation(), written.header.len as usize);
        let previous = committed.value.previous().map(|previous| previous.header().covered);
        self.read_back(written, committed.rev).await?;
        // What is left of them, the next writer deletes.
        self.delete_chunks(&committed.value.retired).await.ok();
        Ok(Outcome::Written { generation, bytes, previous })
    }

    async fn read_back(&self, written: &Snapshot, rev: Rev) -> Result<(), WriteError> {
        let generation = written.generation();
        let mut seen = None;
        loop {
            let Some(fresh) = self.manifest().await? else { return Ok(()) };
            // A load that lags says nothing about the commit; the cells can be read all the same.
            let is_fresh = fresh.rev >= rev;
            let named = if is_fresh { fresh.value.find(generation) } else { Some(written) };
            // Displaced already: what is there now, its own writer reads back.
            let Some(named) = named else { return Ok(()) };
            match self.bytes_of(named).await.map_err(WriteError::Chunk)? {
                Ok(_) => return Ok(()),
                // It may have been displaced just now, and then the manifest is another one.
                Err(Unusable::Missing(_)) if seen != Some(fresh.rev) => seen = Some(fresh.rev),
                Err(source) => return Err(WriteError::Unreadable { generation, source }),
            }
        }
    }

    /// Cleans up after a commit that certainly did not take place.
    async fn lose(&self, generation: Generation, count: u32) {
        self.withdraw(generation).await;
        let chunks = super::manifest::Chunks { generation: generation.0, count };
        // If this fails, whoever displaced the claim deletes them.
        self.delete_chunks(&[chunks]).await.ok();
    }

    /// Gives up a claim, so that the next writer need not wait for it. It is none the worse where this fails.
    async fn withdraw(&self, generation: Generation) {
        let withdraw = |held: Option<&Held<Manifest>>| {
            let mut manifest = held.map(|held| held.value.clone()).unwrap_or_default();
            let is_withdrawn = manifest.withdraw(generation);
            Ok::<_, Infallible>(if is_withdrawn { Change::Put(manifest) } else { Change::Keep })
        };
        let withdrawn: Result<_, ChangeError<Infallible>> =
            owned_cell::change(self.store, self.entropy, self.names.manifest(), withdraw).await;
        if let Err(error) = withdrawn {
            tracing::debug!(cell = %self.names.manifest(), %error, "a claim could not be given up");
        }
    }
}

impl Draft {
    async fn header(&self) -> StoredHeader {
        let digest = Bytes::copy_from_slice(&super::chunks::digest(&self.bytes).await);
        StoredHeader::new(Header {
            covered: self.covered,
            key_head: self.key_head,
            state: self.state.clone(),
            len: self.bytes.len() as u64,
            digest,
        })
    }

    fn distrusted(&self) -> Vec<Generation> {
        [&self.refuted[..], &self.unreadable].concat()
    }

    /// Why the draft is not written, as far as the manifest says.
    fn refused(&self, present: &Manifest) -> Option<Outcome> {
        if let Some(current) = present.trusted(&self.distrusted()) {
            if current.epoch() != self.covered.epoch {
                let generation = current.generation();
                return Some(Outcome::Foreign { generation, header: current.header() });
            }
            if self.covered.offset <= current.covered() {
                return Some(Outcome::Superseded { by: current.header() });
            }
        }
        let claim = present.claim.filter(|claim| claim.generation() > self.displaces)?;
        Some(Outcome::Claimed { by: claim.generation(), chunks: claim.count })
    }
}
