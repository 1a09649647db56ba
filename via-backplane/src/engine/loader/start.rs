//! What a load begins with: a snapshot that this binary reads and the log does not refute, or nothing.

use std::{
    any::type_name,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{Failed, From, Load, Loaded, Origin, unreadable};
use crate::{
    BackendError, Batch, CodecId, Cursor, Event, Fold, FoldState, Head, MigrateError, Offset,
    engine::{
        Core,
        decode::identity,
        lineage,
        projection::{HaltReason, Published},
        snapshots::{Candidate, Generation, Read},
        supervisor,
    },
    fold::restore,
};

/// What a round begins with.
pub(super) struct Start<S> {
    pub(super) loaded: Loaded<S>,
    /// The snapshot it is.
    pub(super) snapshot: Option<Generation>,
}

impl<S: FoldState> Load<S> {
    /// What to begin with. The head is asked for again where a snapshot was written since.
    pub(super) async fn begin<E: Event + Fold<S>>(
        &mut self,
        core: &Core,
        head: &mut Head,
    ) -> Result<Start<S>, Failed> {
        let before = self.before.take().filter(|loaded| loaded.epoch == head.epoch && loaded.value.is_some());
        if let Some(loaded) = before {
            return Ok(Start { loaded, snapshot: None });
        }
        let mut start = self.best::<E>(core, head).await?.unwrap_or_else(|| {
            let loaded = Loaded::begin(Published::begin(), head.epoch, Origin::Genesis);
            Start { loaded, snapshot: None }
        });
        start.loaded.accepted = std::mem::take(&mut self.accepted);
        Ok(start)
    }

    /// The snapshot to begin with, if there is one.
    async fn best<E: Event + Fold<S>>(
        &mut self,
        core: &Core,
        head: &mut Head,
    ) -> Result<Option<Start<S>>, Failed> {
        let snapshots = core.snapshots(&self.key);
        let mut candidates = match snapshots.candidates().await {
            Ok(candidates) => candidates,
            Err(error) => {
                let error = unreadable(error)?;
                tracing::error!(key = %self.key, %error, "the key's snapshots cannot be told; folding without them");
                core.snapshot_unusable(&self.key);
                return Ok(None);
            }
        };
        let notes = candidates.manifest().and_then(|manifest| manifest.notes(head.epoch));
        self.accepted = notes.map(|notes| notes.accepted().collect()).unwrap_or_default();
        if self.from == From::Oldest && !self.is_compacted(core).await? {
            return Ok(None);
        }
        let mut oldest = None;
        while let Some(candidate) = candidates.next() {
            if !self.may_begin_with::<E>(core, &candidate, head).await? {
                continue;
            }
            let bytes = match candidates.read(&candidate).await {
                Ok(Read::Bytes(bytes)) => bytes,
                Ok(Read::Displaced) => continue,
                Ok(Read::Unusable(unusable)) => {
                    self.cannot_use(core, &candidate, &unusable);
                    continue;
                }
                Err(error) => {
                    self.cannot_use(core, &candidate, &unreadable(error)?);
                    continue;
                }
            };
            let Some(state) = self.restored::<E>(core, &candidate, &bytes) else { continue };
            let key_head = candidate.header.key_head;
            let value = Published { state, version: 0, key_head };
            let origin = Origin::Snapshot(candidate.header);
            let loaded = Loaded::begin(value, head.epoch, origin);
            let start = Start { loaded, snapshot: Some(candidate.generation) };
            if self.from == From::Newest {
                return Ok(Some(start));
            }
            oldest = Some(start);
        }
        Ok(oldest)
    }

    async fn is_compacted(&self, core: &Core) -> Result<bool, BackendError> {
        lineage::floor_is_above(core, &self.key, Offset::BEGIN).await
    }

    /// What its header alone says against a snapshot.
    async fn may_begin_with<E: Event>(
        &mut self,
        core: &Core,
        candidate: &Candidate,
        head: &mut Head,
    ) -> Result<bool, Failed> {
        let header = &candidate.header;
        let generation = candidate.generation;
        if self.findings.refuted.contains(&generation) || self.findings.unreadable.contains(&generation) {
            return Ok(false);
        }
        if header.state.name != E::NAME {
            self.cannot_use(core, candidate, &format!("it is folded from `{}`", header.state.name));
            return Ok(false);
        }
        let rules = core.ambient.rules();
        if header.covered.epoch != head.epoch && rules.compare_epochs {
            return Ok(false);
        }
        if header.key_head.offset > head.offset && rules.compare_record_ids {
            // Written since the head was asked for, or of a log that was put back from an older copy. A head is never behind a
            // record that somebody has seen, so the present one tells.
            let present = core.backplane.log().head(&self.selector).await?;
            if present.epoch != head.epoch {
                return Err(Failed::Replaced);
            }
            *head = present;
            if header.key_head.offset > head.offset {
                self.findings.refuted.push(generation);
                return Ok(false);
            }
        }
        Ok(self.bound.has(header.key_head.offset))
    }

    /// The state of a snapshot, whichever version of the fold wrote it.
    fn restored<E: Event + Fold<S>>(
        &mut self,
        core: &Core,
        candidate: &Candidate,
        bytes: &[u8],
    ) -> Option<S> {
        let version = candidate.header.state.version;
        // A migration is the user's own code.
        let restored =
            catch_unwind(AssertUnwindSafe(|| restore::<E, S>(version, CodecId::MESSAGE_PACK, bytes)));
        let error = match restored {
            Ok(Ok(state)) => return Some(state),
            Ok(Err(error)) => error,
            Err(panic) => {
                let message = supervisor::message(&*panic);
                self.misfit = Some(HaltReason::Unbridgeable {
                    message: format!(
                        "migrating `{}` from version {version} panicked: {message}",
                        type_name::<S>()
                    ),
                });
                core.snapshot_unusable(&self.key);
                return None;
            }
        };
        match &error {
            // Whole, and right for another binary: it must not be displaced as if it were damaged.
            MigrateError::NoMigration { .. } => {
                self.misfit = Some(HaltReason::Unbridgeable { message: error.to_string() });
            }
            MigrateError::Newer { .. } => {
                self.misfit.get_or_insert(HaltReason::NewerState { message: error.to_string() });
            }
            _ => {
                self.cannot_use(core, candidate, &error);
                return None;
            }
        }
        tracing::warn!(key = %self.key, generation = %candidate.generation, %error, "a snapshot is none for this binary");
        core.snapshot_unusable(&self.key);
        None
    }

    fn cannot_use(&mut self, core: &Core, candidate: &Candidate, why: &dyn std::fmt::Display) {
        tracing::error!(key = %self.key, generation = %candidate.generation, %why, "a snapshot cannot be used");
        core.snapshot_unusable(&self.key);
        self.findings.unreadable.push(candidate.generation);
    }

    /// Whether the log still holds the record the value stands on (PROTOCOL §1). Below the floor it may be gone.
    pub(super) async fn agrees(
        &self,
        core: &Core,
        page: &Batch,
        stands_at: Cursor,
    ) -> Result<bool, BackendError> {
        if stands_at.offset == Offset::BEGIN {
            return Ok(true);
        }
        if let Some(record) = page.iter().next().filter(|record| record.offset == stands_at.offset) {
            return Ok(identity(&record) == stands_at.id);
        }
        lineage::floor_is_above(core, &self.key, stands_at.offset).await
    }
}
