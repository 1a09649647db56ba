//! A family's control cell: what is announced to be dropped soon, and what consumers still need (PROTOCOL §2, §3).
//!
//! Everything that decides whether a record may go is one compare-and-swap on this one cell, so that a compaction can never race a
//! registration. Every change can be made again on its own effect, and is, where an outcome stays unknown; the one that cannot, to
//! forget a consumer, says that nobody knows.
//!
//! Offsets mean something in one epoch. A cell of another epoch than the log's is taken over by whoever comes first, and by nobody who has
//! not asked the log *after* loading the cell: epochs have no order, and a pod that lags must not bring an old one back.

mod ceiling;
mod cell;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

pub(crate) use self::ceiling::CeilingWatch;
use self::cell::ControlCell;
pub(crate) use self::cell::{MAX_CONSUMERS, Pin, Pinned};
use super::{
    ambient::{Entropy, Rules},
    owned_cell::{self, Held, OwnedError, Put},
    retry::Delays,
};
use crate::{
    BackendError, Backplane, CellKey, Epoch, Expected, Family, Head, InvalidKey, Offset, Retry, Selector,
    internal_cell,
    key::{MAX_FAMILY_BYTES, check},
};

/// The longest name of a consumer, in bytes.
pub(crate) const MAX_CONSUMER_BYTES: usize = MAX_FAMILY_BYTES;
/// Lost races, and outcomes that stayed unknown, after which a change gives up.
const MAX_ATTEMPTS: usize = 64;

/// A family's control cell, as this pod reaches it. Cloning is a few reference counts.
#[derive(Clone)]
pub(crate) struct Control {
    backplane: Arc<dyn Backplane>,
    entropy: Arc<dyn Entropy>,
    family: Family,
    key: CellKey,
    rules: Rules,
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Registered {
    /// Every record at or above the pin is kept until the consumer moves on. A name that was registered before has the pin it
    /// had, which may be of another epoch.
    Pinned(Pin),
    /// Records from there on may be gone; nothing was registered.
    BelowCeiling { lowest: Offset },
}

/// What became of moving a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Moved {
    /// It is there now.
    Pinned(Pin),
    /// Records from there on may be gone; the pin is where it was.
    BelowCeiling { lowest: Offset },
    /// It is of another epoch, in which the consumer stands still until an operator seeks.
    OtherEpoch(Pin),
    /// Nobody of this name is registered.
    Unregistered,
}

/// What was announced, and by which cell: one that was lost and made again has announced nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) ceiling: Head,
    birth: Bytes,
}

/// What a rebuilding found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rebuilt {
    /// The cell is whole; nothing was written.
    Whole { ceiling: Head },
    /// There is a new one, without consumers.
    Anew { ceiling: Head },
}

/// Why a control cell could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// Nobody knows any more what was announced or who needs what.
    #[error(
        "the control cell of `{family}` is gone, although the family was compacted: nothing is compacted and no consumer of it runs \
         until an operator calls `engine.rebuild_control(\"{family}\")`"
    )]
    Lost { family: Family },
    /// The log was recreated or restored: offsets of the caller's epoch mean nothing in it.
    #[error("the log is in epoch {present} now")]
    EpochChanged { present: Epoch },
    /// One more consumer would be too many.
    #[error("`{family}` has {MAX_CONSUMERS} consumers already: forget one that is not needed any more")]
    Full { family: Family },
    #[error("this is no name for a consumer")]
    InvalidName(#[from] InvalidKey),
    /// Others kept writing first.
    #[error("the control cell of `{family}` is contended")]
    Contended { family: Family },
    #[error("the control cell could not be read or written")]
    Cell(#[from] OwnedError),
    #[error("the log could not be asked")]
    Backend(#[from] BackendError),
}

impl ControlError {
    /// Whether repeating the call is right.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "callers make it an error of their own, which answers for it")
    )]
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Contended { .. } => Retry::Safe,
            Self::Cell(error) => error.retry(),
            Self::Backend(error) => error.retry(),
            Self::Lost { .. } | Self::EpochChanged { .. } | Self::Full { .. } | Self::InvalidName(_) => {
                Retry::Never
            }
        }
    }
}

/// What an edit has made of a cell, and what it answers.
enum Edited<T> {
    Write(T),
    Keep(T),
    /// What it answers has to be what is stored: a cell that only begins in this epoch is written.
    Settle(T),
}

use Edited::{Keep, Settle, Write};

impl Control {
    pub(crate) fn new(backplane: Arc<dyn Backplane>, entropy: Arc<dyn Entropy>, family: Family) -> Self {
        let key = internal_cell(&["control", family.as_str()]);
        Self { backplane, entropy, family, key, rules: Rules::ALL }
    }

    /// As a test wants the rules to be.
    pub(crate) fn under(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    pub(crate) fn family(&self) -> &Family {
        &self.family
    }

    /// The ceiling as it is stored, `None` if nothing is. It may lag, and it may be of another epoch than the log's.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn ceiling(&self) -> Result<Option<Head>, ControlError> {
        let held = self.load().await?;
        held.map(|held| Ok(Head { epoch: self.epoch_of(&held.value)?, offset: Offset(held.value.ceiling) }))
            .transpose()
    }

    /// Every consumer's pin, sorted by name, with the instance it is about, if it is about one. It may lag.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn pins(&self) -> Result<Vec<(String, Option<String>, Pin)>, ControlError> {
        Ok(self.load().await?.map(|held| held.value.pins()).unwrap_or_default())
    }

    /// Registers a consumer that needs every record at or above `at`, of one instance or of all; one of this name keeps the pin it
    /// has.
    ///
    /// A consumer that has handled the record at an offset pins that offset, so that it finds the record it stands on; one that has handled
    /// nothing pins the first record it wants.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the write under way. Call it again.
    pub(crate) async fn register(
        &self,
        name: &str,
        instance: Option<&str>,
        at: Head,
    ) -> Result<Registered, ControlError> {
        check("consumer", name, MAX_CONSUMER_BYTES)?;
        self.change(at.epoch, Again::Yes, |cell| {
            if let Some(pin) = cell.pin(name) {
                // Written all the same: what was loaded may lag, and somebody may have forgotten it since.
                return Ok(Write(Registered::Pinned(pin)));
            }
            if at.offset.0 < cell.ceiling {
                return Ok(Keep(Registered::BelowCeiling { lowest: Offset(cell.ceiling) }));
            }
            if cell.consumers.len() >= MAX_CONSUMERS {
                return Err(ControlError::Full { family: self.family.clone() });
            }
            Ok(Write(Registered::Pinned(cell.pin_of_instance(name, instance, at.offset))))
        })
        .await
    }

    /// Moves a consumer's pin on to what it has committed. A pin that is further already stays.
    ///
    /// # Cancel safety
    /// As [`register`](Self::register).
    pub(crate) async fn advance(&self, name: &str, to: Head) -> Result<Moved, ControlError> {
        self.change(to.epoch, Again::Yes, |cell| {
            Ok(match cell.pin(name) {
                None => Keep(Moved::Unregistered),
                Some(pin) if pin.epoch != to.epoch => Keep(Moved::OtherEpoch(pin)),
                Some(pin) if pin.offset >= to.offset => Keep(Moved::Pinned(pin)),
                Some(_) => Write(Moved::Pinned(cell.set_pin(name, to.offset))),
            })
        })
        .await
    }

    /// Moves a consumer's pin anywhere at or above the ceiling, or anywhere on, and into the present epoch: an operator's seek.
    ///
    /// # Cancel safety
    /// As [`register`](Self::register).
    pub(crate) async fn move_to(&self, name: &str, to: Head) -> Result<Moved, ControlError> {
        self.change(to.epoch, Again::Yes, |cell| {
            Ok(match cell.pin(name) {
                None => Keep(Moved::Unregistered),
                Some(_) if to.offset.0 < cell.lowest_possible(name) => {
                    Keep(Moved::BelowCeiling { lowest: Offset(cell.lowest_possible(name)) })
                }
                // Written even where it is there already: what was loaded may lag.
                Some(_) => Write(Moved::Pinned(cell.set_pin(name, to.offset))),
            })
        })
        .await
    }

    /// Takes a consumer out: what it alone needed may be dropped. Answers whether it was registered.
    ///
    /// An outcome that stays unknown is an error: made again, it could take out somebody who registered under the name meanwhile.
    ///
    /// # Cancel safety
    /// As [`register`](Self::register).
    pub(crate) async fn forget(&self, name: &str) -> Result<bool, ControlError> {
        let epoch = self.head().await?.epoch;
        self.change(epoch, Again::No, |cell| Ok(if cell.remove(name) { Write(true) } else { Keep(false) }))
            .await
    }

    /// Announces that records below `to` may be dropped soon, as far as no consumer of all instances needs them; answers the ceiling
    /// that now holds in this epoch, which may be higher. It never falls.
    ///
    /// # Cancel safety
    /// As [`register`](Self::register).
    pub(crate) async fn raise(&self, to: Head) -> Result<Announced, ControlError> {
        let announced = |cell: &ControlCell| Announced {
            ceiling: Head { epoch: to.epoch, offset: Offset(cell.ceiling) },
            birth: cell.birth.clone(),
        };
        self.change(to.epoch, Again::Yes, |cell| {
            let most = if self.rules.respect_pins { cell.highest_possible() } else { u64::MAX };
            let ceiling = to.offset.0.min(most);
            if ceiling <= cell.ceiling {
                return Ok(Settle(announced(cell)));
            }
            cell.ceiling = ceiling;
            Ok(Write(announced(cell)))
        })
        .await
    }

    /// Confirms by a write that an announcement still stands, and answers what consumers of single instances need of them; `None` where
    /// the cell is another one since, which may have announced the same just now.
    ///
    /// Who registers after this write finds the ceiling announced, and who moves a pin finds what it keeps: neither needs what the
    /// answer lets go of.
    ///
    /// # Cancel safety
    /// As [`register`](Self::register).
    pub(crate) async fn confirm(&self, announced: &Announced) -> Result<Option<Pinned>, ControlError> {
        let Announced { ceiling, birth } = announced;
        self.change(ceiling.epoch, Again::Yes, |cell| {
            let stands = cell.birth == *birth && cell.ceiling >= ceiling.offset.0;
            let pinned = if self.rules.respect_pins { cell.pinned() } else { Pinned::default() };
            Ok(if stands { Write(Some(pinned)) } else { Keep(None) })
        })
        .await
    }

    /// Makes a control cell where there is none that can be read: an operator's way on after [`ControlError::Lost`].
    ///
    /// Nobody knows what was announced, so everything below the family's head counts as announced; and nobody knows the consumers,
    /// which have to register again, at the head or above.
    ///
    /// # Cancel safety
    /// As [`register`](Self::register).
    pub(crate) async fn rebuild(&self) -> Result<Rebuilt, ControlError> {
        let mut delays = self.delays();
        for _ in 0..MAX_ATTEMPTS {
            let stored = self.backplane.store().load(&self.key).await?;
            match self.load().await {
                Ok(Some(held)) => {
                    let epoch = self.epoch_of(&held.value)?;
                    return Ok(Rebuilt::Whole {
                        ceiling: Head { epoch, offset: Offset(held.value.ceiling) },
                    });
                }
                Ok(None) | Err(ControlError::Cell(OwnedError::Garbled { .. })) => {}
                Err(error) => return Err(error),
            }
            let expected = stored.map_or(Expected::Absent, |stored| Expected::At(stored.rev));
            let head = self.head().await?;
            let cell = ControlCell::new(head.epoch, head.offset, self.entropy.bits());
            match self.put(expected, cell).await {
                Ok(Put::Written(_)) => return Ok(Rebuilt::Anew { ceiling: head }),
                // Whoever wrote may have been this pod, whose answer was lost; what is there is looked at again.
                Ok(Put::Conflict) | Err(OwnedError::Unknown(_)) => delays.wait().await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(self.contended())
    }

    /// What explains a hole where no cell of this epoch does: below the head if the family was ever compacted, else nothing.
    pub(crate) async fn unannounced(&self, epoch: Epoch) -> Result<Offset, ControlError> {
        // In this order: what was compacted in this epoch until the question is below the head of an earlier answer, or
        // somebody has made a cell of this epoch meanwhile.
        let head = self.head().await?;
        if head.epoch != epoch {
            return Err(ControlError::EpochChanged { present: head.epoch });
        }
        Ok(if self.is_compacted().await? { head.offset } else { Offset::BEGIN })
    }

    pub(crate) async fn head(&self) -> Result<Head, BackendError> {
        self.backplane.log().head(&Selector::Family(self.family.clone())).await
    }

    async fn is_compacted(&self) -> Result<bool, BackendError> {
        match self.backplane.compactor() {
            Some(compactor) => compactor.is_compacted(&self.family).await,
            None => Ok(false),
        }
    }

    async fn load(&self) -> Result<Option<Held<ControlCell>>, ControlError> {
        Ok(owned_cell::load(self.backplane.store(), &self.key).await?)
    }

    async fn put(&self, expected: Expected, cell: ControlCell) -> Result<Put<ControlCell>, OwnedError> {
        owned_cell::put_at(self.backplane.store(), &*self.entropy, &self.key, expected, cell).await
    }

    /// Changes the cell in this epoch by what `edit` makes of it, which runs again when somebody else wrote first.
    async fn change<T>(
        &self,
        epoch: Epoch,
        again: Again,
        mut edit: impl FnMut(&mut ControlCell) -> Result<Edited<T>, ControlError>,
    ) -> Result<T, ControlError> {
        let mut delays = self.delays();
        for _ in 0..MAX_ATTEMPTS {
            let held = self.load().await?;
            let expected = held.as_ref().map_or(Expected::Absent, |held| Expected::At(held.rev));
            let (mut cell, begins) = self.in_epoch(held, epoch).await?;
            let answer = match edit(&mut cell)? {
                Write(answer) => answer,
                Settle(answer) if begins => answer,
                Keep(answer) | Settle(answer) => return Ok(answer),
            };
            match self.put(expected, cell).await {
                Ok(Put::Written(_)) => return Ok(answer),
                Ok(Put::Conflict) => {}
                Err(OwnedError::Unknown(_)) if again == Again::Yes => {}
                Err(error) => return Err(error.into()),
            }
            delays.wait().await;
        }
        Err(self.contended())
    }

    /// The cell as it is, or as it begins in this epoch, and which of the two.
    async fn in_epoch(
        &self,
        held: Option<Held<ControlCell>>,
        epoch: Epoch,
    ) -> Result<(ControlCell, bool), ControlError> {
        let Some(Held { value: mut cell, .. }) = held else {
            return match self.unannounced(epoch).await? {
                Offset::BEGIN => Ok((ControlCell::new(epoch, Offset::BEGIN, self.entropy.bits()), true)),
                _ => Err(ControlError::Lost { family: self.family.clone() }),
            };
        };
        let of = self.epoch_of(&cell)?;
        if of != epoch {
            // A log restored from a copy has the floors of the copy, which no ceiling of this epoch has announced.
            cell.begin(epoch, of, self.unannounced(epoch).await?);
        }
        Ok((cell, of != epoch))
    }

    fn epoch_of(&self, cell: &ControlCell) -> Result<Epoch, ControlError> {
        cell.epoch().ok_or_else(|| OwnedError::Garbled { cell: self.key.clone() }.into())
    }

    fn delays(&self) -> Delays {
        let seed = self.entropy.bits() as u64;
        Delays::new(Duration::from_millis(1), Duration::from_millis(250), seed)
    }

    fn contended(&self) -> ControlError {
        ControlError::Contended { family: self.family.clone() }
    }
}

/// Whether an edit may be made again where its outcome stays unknown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Yes,
    No,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("family", &self.family).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
