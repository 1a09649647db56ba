//! What keeps a key's records, and how far they may be dropped.

use std::convert::Infallible;

use super::{
    super::{
        ambient::Rules,
        owned_cell::{self, Change, ChangeError, Held, OwnedError},
    },
    Generation, LogNotes, Manifest, Snapshot, Snapshots,
};
use crate::{Epoch, Offset};

/// What became of a wish to keep a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It stays until it was folded or its loss is accepted.
    Held,
    /// Compaction past it was confirmed before: it may be gone.
    TooLate,
    /// Its loss was accepted: it holds nothing.
    Accepted,
}

/// Why the loss of a record is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The key has accepted as many losses as it can remember.
    TooMany,
    /// A snapshot covers the record, so some binary has folded it.
    Folded { covered: Offset },
}

impl Snapshots<'_> {
    /// Keeps a record that this pod cannot decode from being dropped.
    pub(crate) async fn hold_undecodable(
        &self,
        epoch: Epoch,
        offset: Offset,
    ) -> Result<Hold, ChangeError<Infallible>> {
        let mut answer = Hold::Held;
        let hold = |notes: &mut LogNotes| {
            answer = if notes.has_accepted(offset) {
                Hold::Accepted
            } else if offset < notes.compacting_to() {
                Hold::TooLate
            } else {
                notes.hold(offset);
                Hold::Held
            };
            Ok(())
        };
        self.change_notes(epoch, hold).await?;
        Ok(answer)
    }

    /// Makes the loss of a record final: it is skipped by everybody, and holds nothing.
    pub(crate) async fn accept_loss(&self, epoch: Epoch, offset: Offset) -> Result<(), ChangeError<Refused>> {
        let accept = |manifest: &mut Manifest| {
            let covered =
                manifest.current().filter(|current| current.epoch() == epoch).map(Snapshot::covered);
            let notes = LogNotes::of(&mut manifest.notes, epoch);
            match covered.filter(|covered| *covered >= offset && !notes.has_accepted(offset)) {
                Some(covered) => Err(Refused::Folded { covered }),
                None => notes.accept(offset).then_some(()).ok_or(Refused::TooMany),
            }
        };
        self.change_manifest(epoch, accept).await
    }

    /// The losses that were accepted of the log of this epoch, in order. It may lag.
    pub(crate) async fn accepted_losses(&self, epoch: Epoch) -> Result<Vec<Offset>, OwnedError> {
        let held = self.manifest().await?;
        let notes = held.as_ref().and_then(|held| held.value.notes(epoch));
        Ok(notes.map(|notes| notes.accepted().collect()).unwrap_or_default())
    }

    /// Keeps every record of the key: pods disagree at `offset`, and since when nobody knows.
    pub(crate) async fn hold_diverged(
        &self,
        epoch: Epoch,
        offset: Offset,
    ) -> Result<(), ChangeError<Infallible>> {
        self.change_notes(epoch, |notes| {
            notes.diverge(offset);
            Ok(())
        })
        .await
    }

    /// Ends what [`hold_diverged`](Self::hold_diverged) began.
    pub(crate) async fn clear_diverged(&self, epoch: Epoch) -> Result<(), ChangeError<Infallible>> {
        self.change_notes(epoch, |notes| {
            notes.agree();
            Ok(())
        })
        .await
    }

    /// How far the key may be compacted now: records below may be dropped, from this answer on and for ever. `None`: none may.
    ///
    /// `limit` is the family's ceiling. `checked` are the snapshots that the log of this epoch does not refute: a manifest can
    /// outlive its log, and current and previous are believed only if they are among them. Asking again, after a crash
    /// say, answers the same or more.
    pub(crate) async fn confirm_compaction(
        &self,
        epoch: Epoch,
        limit: Offset,
        checked: &[Generation],
    ) -> Result<Option<Offset>, ChangeError<Infallible>> {
        let ended = self.ended_rollback().await?;
        let mut confirmed = None;
        let confirm = |held: Option<&Held<Manifest>>| {
            let Some(held) = held else { return Ok(Change::Keep) };
            let mut manifest = held.value.clone();
            if let Some(ended) = ended {
                manifest.end_rollback(ended);
            }
            confirmed = manifest.compactable(epoch, limit, checked, self.rules);
            if let Some(before) = confirmed {
                let key_head =
                    manifest.current().map_or(Offset::BEGIN, |current| current.header().key_head.offset);
                // A key's head stays whatever is dropped, and may be a loss that was accepted.
                LogNotes::of(&mut manifest.notes, epoch).compact(before, before.min(key_head));
            }
            Ok(if manifest == held.value { Change::Keep } else { Change::Put(manifest) })
        };
        owned_cell::change(self.store, self.entropy, self.names.manifest(), confirm).await?;
        Ok(confirmed)
    }

    /// The snapshot to roll back to, if its window is over.
    async fn ended_rollback(&self) -> Result<Option<Generation>, OwnedError> {
        let Some(held) = self.manifest().await? else { return Ok(None) };
        let Some(rollback) = held.value.rollback() else { return Ok(None) };
        Ok(self.window_is_over().await?.then_some(rollback.generation()))
    }

    async fn change_notes<R: std::fmt::Debug>(
        &self,
        epoch: Epoch,
        mut edit: impl FnMut(&mut LogNotes) -> Result<(), R>,
    ) -> Result<(), ChangeError<R>> {
        self.change_manifest(epoch, |manifest| edit(LogNotes::of(&mut manifest.notes, epoch))).await
    }

    async fn change_manifest<R: std::fmt::Debug>(
        &self,
        epoch: Epoch,
        mut edit: impl FnMut(&mut Manifest) -> Result<(), R>,
    ) -> Result<(), ChangeError<R>> {
        let change = |held: Option<&Held<Manifest>>| {
            let present = held.map(|held| held.value.clone()).unwrap_or_default();
            let mut manifest = present.clone();
            edit(&mut manifest)?;
            let says_nothing = manifest.notes(epoch).is_none_or(LogNotes::is_empty);
            let is_new = present.notes(epoch).is_none();
            let is_news = manifest != present && !(is_new && says_nothing);
            Ok(if is_news { Change::Put(manifest) } else { Change::Keep })
        };
        owned_cell::change(self.store, self.entropy, self.names.manifest(), change).await?;
        Ok(())
    }
}

impl Manifest {
    /// How far the records of this epoch are needed by nobody.
    fn compactable(
        &self,
        epoch: Epoch,
        limit: Offset,
        checked: &[Generation],
        rules: Rules,
    ) -> Option<Offset> {
        let believed =
            |snapshot: &&Snapshot| snapshot.epoch() == epoch && checked.contains(&snapshot.generation());
        let covers = |snapshot: &Snapshot| Offset(snapshot.covered().0.saturating_add(1));
        self.current().filter(believed)?;
        let kept = if rules.keep_previous { self.previous() } else { self.current() };
        let previous = kept.filter(believed).map(covers)?;
        let rollback = self.rollback().filter(|rollback| rollback.epoch() == epoch).map(covers);
        let hold = self.notes(epoch).and_then(LogNotes::lowest_hold).filter(|_| rules.respect_holds);
        let before = [Some(limit), Some(previous), rollback, hold].into_iter().flatten().min();
        // The first record is at 1: a limit of 1 drops nothing.
        before.filter(|before| *before > Offset(1))
    }
}
