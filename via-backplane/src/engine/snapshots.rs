//! Durable projections of one key: a manifest that names them, and the chunks the larger ones are kept in.
//!
//! A snapshot is written in three steps (PROTOCOL §4). A compare-and-swap puts a *claim* on a generation nobody else will ever have
//! into the manifest; the chunks are written under that generation; a second compare-and-swap, at exactly the revision of the claim, makes
//! it *current*, and what was current *previous*. Then it is read back. A small snapshot is kept in the manifest itself, and one
//! compare-and-swap is claim, chunks and commit at once. A writer may die between any two of these calls: before the commit, the manifest
//! still names what it named, and whoever displaces the claim *retires* its generation; after it, the manifest lists what the
//! commit displaced as retired. Retired generations are deleted by who retired them and once more by the next writer, before it drops them
//! from the list, so a crash leaves nothing behind for longer than two commits. (One thing is left for ever: chunks written by a
//! writer that slept through two commits of others and died before it learned that it had lost.) Nothing is deleted but what a
//! *stored* manifest calls retired, or what a writer wrote itself and can no longer commit; being retired is for ever, so a
//! lagging load deletes nothing that is needed. An outcome that stays unknown deletes nothing.
//!
//! The manifest also holds what the pods know of the key: records that some could not decode, losses that were accepted, a
//! divergence, and how far compaction was confirmed. These and the confirmation are compare-and-swaps on the one cell, so a record that is
//! held is not dropped, and one that may be dropped is not held.

mod chunks;
mod compaction;
mod manifest;
mod names;
mod notes;
mod read;
mod rollback;
mod write;

use std::time::Duration;

pub(crate) use compaction::{Hold, Refused};
pub(crate) use manifest::{Generation, Header, Manifest, Snapshot, StateType};
pub(crate) use notes::LogNotes;
pub(crate) use read::{Candidate, Read, Unusable};
pub(crate) use write::{Draft, Outcome, WriteError};

use self::names::Names;
use super::{
    ambient::{Entropy, Rules},
    owned_cell::{self, Held, OwnedError},
};
use crate::{Key, Store};

/// The most chunks one snapshot has: with cells of 1 MiB, 4 GiB.
const MAX_CHUNKS: usize = 4096;
/// The largest snapshot that is kept in the manifest, however large cells may be: every change of the manifest writes it again.
const MAX_INLINE: usize = 64 << 10;

/// The snapshots of one key.
pub(crate) struct Snapshots<'a> {
    store: &'a dyn Store,
    entropy: &'a dyn Entropy,
    names: Names,
    max_cell: usize,
    /// How long the last snapshot of a previous state version is kept; zero keeps none.
    rollback_window: Duration,
    rules: Rules,
}

impl<'a> Snapshots<'a> {
    /// `max_cell` is the backplane's limit.
    pub(crate) fn of(
        store: &'a dyn Store,
        entropy: &'a dyn Entropy,
        key: &Key,
        max_cell: usize,
        rollback_window: Duration,
    ) -> Self {
        Self { store, entropy, names: Names::of(key), max_cell, rollback_window, rules: Rules::ALL }
    }

    /// Under these rules instead of all.
    pub(crate) fn under(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// The manifest, or `None` if nothing was ever written of this key. It may lag.
    pub(crate) async fn manifest(&self) -> Result<Option<Held<Manifest>>, OwnedError> {
        owned_cell::load(self.store, self.names.manifest()).await
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
