//! Taking the place of another consumer (PROTOCOL §5).
//!
//! One write retires the other one: from then on nobody but its successor takes it. An owner that hears of it begins nothing more, commits
//! what it has handled and leaves; one that does not hear of it begins nothing late in its lease. Either way the successor comes to hold
//! the retired consumer itself, as it would any other. After that nothing is committed there, and it begins with what is above.
//!
//! So what both may have handled is what was under way on an owner that went without a word.

use std::time::Duration;

use super::{
    cell::ConsumerCell,
    lease::Place,
    on_event::{ConsumerError, cell_of, unchanged},
    runner::{Runner, control_failed},
};
use crate::{
    BackendError, Cursor, Event, Family,
    engine::{
        losses::as_backend,
        owned_cell::{self, Change, Held, Put},
        retry::Delays,
    },
};

/// Retires a consumer in favour of another one, once. Where there is none any more, there is nothing to retire.
pub(super) async fn retire(
    place: &Place,
    family: &Family,
    prior: &str,
    successor: &str,
) -> Result<(), ConsumerError> {
    let retires = |held: Option<&Held<ConsumerCell>>| {
        let Some(held) = held else { return Ok(Change::Keep) };
        let mut cell = held.value.clone();
        match cell.retired_by() {
            Some(known) if known == successor => return Ok(Change::Keep),
            Some(other) => return Err(retired(family, prior, other)),
            None => cell.retire(successor),
        }
        Ok(Change::Put(cell))
    };
    let (store, entropy) = (place.backplane.store(), &*place.ambient.entropy);
    owned_cell::change(store, entropy, &cell_of(family, prior), retires).await.map(drop).map_err(unchanged)
}

/// Somebody wants a consumer that another one has taken the place of.
pub(super) fn retired(family: &Family, name: &str, successor: &str) -> ConsumerError {
    let (family, name, successor) = (family.clone(), name.to_owned(), successor.to_owned());
    ConsumerError::Retired { family, name, successor }
}

impl<E: Event> Runner<E> {
    /// Comes back once this consumer takes no other one's place, or has taken it.
    ///
    /// # Cancel safety
    /// Dropped in the middle of it, another pod goes on after a lease.
    pub(super) async fn take_its_place(&self) {
        let mut delays =
            Delays::new(Duration::from_millis(20), self.place.lasts / 10, self.core.ambient.seed());
        loop {
            match self.is_in_its_place().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(consumer = %self.name, %error, "a consumer's place is not taken yet");
                }
            }
            delays.wait().await;
        }
    }

    /// Takes the place if there is one to take; `false` if another pod may have been faster.
    async fn is_in_its_place(&self) -> Result<bool, BackendError> {
        // One that was forgotten has no place to take, which contending for it finds out.
        let Some(own) = self.place.load().await.map_err(as_backend)? else { return Ok(true) };
        let Some(prior) = own.value.waits_for().map(str::to_owned) else { return Ok(true) };
        let there = Place { key: cell_of(self.selector.family(), &prior), ..self.place.clone() };
        if !self.core.ambient.rules().succeed_what_rests {
            let found = there.load().await.map_err(as_backend)?;
            return self.begin_after(own, found.map(|found| found.value.committed())).await;
        }
        let taken = tokio::select! {
            biased;
            () = self.place.changes(own.rev) => return Ok(false),
            taken = there.contend(|cell| cell.retired_by() == Some(&*self.name)) => taken,
        };
        // Nobody runs it any more, so it needs nothing. What this one needs was pinned when it was registered.
        self.control.forget(&prior).await.map_err(control_failed)?;
        let is_done = self.begin_after(own, taken.as_ref().map(|there| there.cell().committed())).await?;
        if let Some(mut there) = taken {
            // A lease that is not given back is nobody's loss.
            there.write(ConsumerCell::release).await.ok();
        }
        Ok(is_done)
    }

    /// Has this consumer begin after what the other one has committed. Where somebody has forgotten that one, what it had committed when this
    /// one was registered is all that is known.
    async fn begin_after(
        &self,
        own: Held<ConsumerCell>,
        committed: Option<Cursor>,
    ) -> Result<bool, BackendError> {
        let mut cell = own.value.clone();
        let after = committed.unwrap_or_else(|| cell.committed());
        cell.succeed(after);
        let put = self.place.put(&own, cell).await.map_err(as_backend)?;
        let is_written = matches!(put, Put::Written(_));
        if is_written {
            let (family, after) = (self.selector.family(), after.offset);
            tracing::info!(%family, consumer = %self.name, %after, "a consumer has taken another one's place");
        }
        Ok(is_written)
    }
}
