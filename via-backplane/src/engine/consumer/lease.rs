//! Holding a consumer, and coming to hold it (PROTOCOL §5).
//!
//! Every write is a compare-and-swap on the consumer's cell, so whoever was deposed learns of it with the next one. What a deposed owner
//! still does meanwhile, it does under its old term; so it begins nothing that may outlast its lease.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use futures_util::StreamExt as _;

use super::{
    cell::{ConsumerCell, Owner},
    spread,
    stillness::Stillness,
};
use crate::{
    BackendError, Backplane, CellKey, CellSelector, Change, ErrorKind, Expected, Rev,
    engine::{
        ambient::Ambient,
        owned_cell::{self, Held, OwnedError, Put},
        retry::Delays,
    },
};

/// How many looks there are within a lease.
const LOOKS: u32 = 10;
/// How long to wait at least before another look, after one that came to nothing or a race for the consumer that was lost, or while
/// the store does not tell what changes.
const SHORTEST_REST: Duration = Duration::from_millis(20);
/// How long to wait at most: the end of an outage is noticed within seconds, however long a lease lasts.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Where a consumer's cell is, and who asks.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) backplane: Arc<dyn Backplane>,
    pub(super) ambient: Ambient,
    pub(super) key: CellKey,
    pub(super) owner: Owner,
    /// How long a lease lasts that is not renewed.
    pub(super) lasts: Duration,
    /// How many records this pod may begin at once.
    pub(super) spread: u32,
    /// How many consumers this pod runs.
    pub(super) owned: Arc<AtomicUsize>,
}

/// A consumer that this pod holds.
pub(super) struct Lease {
    place: Place,
    held: Held<ConsumerCell>,
    /// The term of the owner it was taken from, if that went without a word.
    displaced: Option<u64>,
    /// When the last write was sent that was acknowledged.
    renewed: Duration,
}

/// Why a write did not take place as it was meant.
#[derive(Debug)]
pub(super) enum Lost {
    /// Somebody else holds the consumer, or nobody may: it is over.
    Deposed,
    /// Somebody has changed the cell, and this pod holds it all the same: what is in it now decides.
    Changed,
    /// The store did not take the write, or nobody knows: once more, later.
    Unreached(OwnedError),
}

/// The store does not tell what changes.
struct Deaf;

impl Place {
    pub(super) async fn load(&self) -> Result<Option<Held<ConsumerCell>>, OwnedError> {
        owned_cell::load(self.backplane.store(), &self.key).await
    }

    pub(super) async fn put(
        &self,
        at: &Held<ConsumerCell>,
        value: ConsumerCell,
    ) -> Result<Put<ConsumerCell>, OwnedError> {
        let (store, entropy) = (self.backplane.store(), &*self.ambient.entropy);
        owned_cell::put_at(store, entropy, &self.key, Expected::At(at.rev), value).await
    }

    pub(super) fn now(&self) -> Duration {
        self.ambient.monotonic.now()
    }

    /// Gives up what this pod may have come to hold without knowing, because it stopped contending in the middle of a write.
    ///
    /// # Cancel safety
    /// As [`contend`](Self::contend).
    pub(super) async fn give_up(&self) {
        let Ok(Some(found)) = self.load().await else { return };
        if found.value.is_owned_by(&self.owner) {
            let mut value = found.value.clone();
            value.release();
            self.put(&found, value).await.ok(); // Whoever is next waits for as long as a lease lasts, then.
        }
    }

    /// Waits until this pod holds the consumer; `None` once there is none any more.
    ///
    /// It is taken at once where nobody holds it, and after it was still for as long as a lease lasts. Then what is cas is the very
    /// revision that was still: an owner that renewed in the last moment keeps it. `may` says whether this pod can run what it finds.
    ///
    /// # Cancel safety
    /// Dropped in the middle of a write, it may hold the consumer without a word: its successor waits for as long as a lease lasts.
    pub(super) async fn contend(&self, may: impl Fn(&ConsumerCell) -> bool) -> Option<Lease> {
        let mut stillness = Stillness::default();
        let mut left_to_others = None;
        // While it rests it is deaf to an owner that leaves, so not at once for as long as between two looks.
        let longest = self.look_every().min(LONGEST_REST);
        let mut rests = Delays::new(SHORTEST_REST, longest, self.ambient.seed());
        loop {
            let sent = self.now();
            let found = match self.load().await {
                Ok(None) => return None,
                Ok(Some(found)) => found,
                Err(error) => {
                    tracing::debug!(cell = %self.key, %error, "a consumer's cell cannot be looked at");
                    if self.ambient.rules().count_answered_looks {
                        stillness.failed();
                    }
                    self.rest(&mut rests).await;
                    continue;
                }
            };
            let still = stillness.found(found.rev, sent, self.now());
            // Its owner may have been told to hold it for longer.
            let is_left = still >= self.lasts.max(found.value.lease());
            let found = if is_left { self.as_timed(found).await } else { found };
            let is_free = found.value.is_free() || found.value.is_owned_by(&self.owner) || is_left;
            if is_free && may(&found.value) {
                let modesty = spread::modesty(&self.owned);
                if !modesty.is_zero() && left_to_others.replace(found.rev) != Some(found.rev) {
                    // Those that run fewer have the first choice.
                    tokio::time::sleep(modesty).await;
                    continue;
                }
                match self.take(&found).await {
                    Ok(Put::Written(held)) => {
                        let went = !found.value.is_free() && !found.value.is_owned_by(&self.owner);
                        let displaced = went.then_some(found.value.term);
                        return Some(Lease { place: self.clone(), held, displaced, renewed: sent });
                    }
                    // Somebody was faster, or the store answered what was before: asking again at once would ask for ever.
                    Ok(Put::Conflict) => {
                        self.rest(&mut rests).await;
                        continue;
                    }
                    Err(error) => tracing::debug!(cell = %self.key, %error, "a consumer was not taken over"),
                }
            }
            match self.wait_for_a_change(found.rev).await {
                Ok(()) => rests.reset(),
                Err(Deaf) => self.rest(&mut rests).await,
            }
        }
    }

    /// Takes the consumer at the revision that was found.
    async fn take(&self, found: &Held<ConsumerCell>) -> Result<Put<ConsumerCell>, OwnedError> {
        let mut value = found.value.clone();
        if !self.ambient.rules().count_deaths {
            value.release();
        }
        value.claim(&self.owner, self.spread, self.lasts);
        self.put(found, value).await
    }

    /// What was timed is what is taken. Without the rule, whatever is there by now.
    async fn as_timed(&self, found: Held<ConsumerCell>) -> Held<ConsumerCell> {
        if self.ambient.rules().take_what_was_timed {
            return found;
        }
        self.load().await.ok().flatten().unwrap_or(found)
    }

    fn look_every(&self) -> Duration {
        self.lasts / LOOKS
    }

    /// Waits before another look, for no longer than there is between two looks.
    async fn rest(&self, rests: &mut Delays) {
        tokio::time::sleep(rests.next().min(self.look_every())).await;
    }

    /// Waits until the cell is at another revision, or gone; cancel-safe.
    pub(super) async fn changes(&self, known: Rev) {
        let mut rests = Delays::new(SHORTEST_REST, self.look_every(), self.ambient.seed());
        loop {
            let heard = self.wait_for_a_change(known).await;
            if self.load().await.is_ok_and(|found| found.is_none_or(|found| found.rev > known)) {
                return;
            }
            if heard.is_err() {
                self.rest(&mut rests).await;
            }
        }
    }

    /// Waits until the cell is at another revision, as far as the store tells, or until it is time for another look.
    async fn wait_for_a_change(&self, known: Rev) -> Result<(), Deaf> {
        let selector = CellSelector::One(self.key.clone());
        let changes = async {
            let watch = self.backplane.store().watch(&selector).await;
            let Ok(watch) = watch else { return Err(Deaf) };
            let is_news = |change: &Result<Change, _>| match change {
                Ok(Change::Put { rev, .. }) => *rev > known,
                Ok(Change::Begin | Change::End) => false,
                _ => true,
            };
            let news = watch.filter(|change| std::future::ready(is_news(change))).boxed().next().await;
            if matches!(news, Some(Ok(_))) { Ok(()) } else { Err(Deaf) }
        };
        tokio::select! {
            biased;
            heard = changes => heard,
            () = tokio::time::sleep(self.look_every()) => Ok(()),
        }
    }
}

impl Lease {
    pub(super) fn cell(&self) -> &ConsumerCell {
        &self.held.value
    }

    pub(super) fn rev(&self) -> Rev {
        self.held.rev
    }

    pub(super) fn displaced(&self) -> Option<u64> {
        self.displaced
    }

    /// Until when an attempt may begin, by this pod's clock: before anybody takes over. A handler that goes on for longer than a third of
    /// the lease after a last renewal may still overlap with its successor's, which is what terms are for.
    pub(super) fn begins_until(&self) -> Duration {
        self.renewed + self.place.lasts * 2 / 3
    }

    /// When the lease is to be renewed.
    pub(super) fn renews_at(&self) -> Duration {
        self.renewed + self.place.lasts / 3
    }

    /// Changes the cell, which renews the lease.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the write: the next one finds out.
    pub(super) async fn write(&mut self, edit: impl FnOnce(&mut ConsumerCell)) -> Result<(), Lost> {
        let mut value = self.held.value.clone();
        edit(&mut value);
        let sent = self.place.now();
        match self.place.put(&self.held, value).await {
            Ok(Put::Written(held)) => {
                (self.held, self.renewed) = (held, sent);
                Ok(())
            }
            Ok(Put::Conflict) => self.find_out().await,
            Err(error) => Err(Lost::Unreached(error)),
        }
    }

    /// Somebody else wrote, or an earlier write of this pod landed after all.
    async fn find_out(&mut self) -> Result<(), Lost> {
        match self.place.load().await {
            Err(error) => Err(Lost::Unreached(error)),
            Ok(Some(found)) if found.rev <= self.held.rev => {
                let lags = BackendError::new(ErrorKind::Unavailable, "the store answers what was before");
                Err(Lost::Unreached(OwnedError::Backend(lags)))
            }
            Ok(Some(found)) if self.is_mine(&found.value) => {
                // The lease counts from what this pod itself has sent.
                self.held = found;
                Err(Lost::Changed)
            }
            Ok(_) => Err(Lost::Deposed),
        }
    }

    fn is_mine(&self, cell: &ConsumerCell) -> bool {
        cell.is_owned_by(&self.place.owner) && cell.term == self.cell().term
    }
}

#[cfg(test)]
mod tests;
