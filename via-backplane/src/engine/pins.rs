//! What keeps a family's records for others than its own projections, and the cell where that is written down (PROTOCOL §3).

use super::{
    Engine,
    control::{Control, ControlError, MAX_CONSUMERS, Moved, Registered},
    losses::as_backend,
};
use crate::{BackendError, Epoch, ErrorKind, Family, Head, InvalidKey, Offset, Retry};

/// Who needs a family's records, and from where on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// Whose it is.
    pub name: String,
    /// Every record of this epoch at or above this offset is kept. A pin of another epoch than the log's lets nothing be dropped
    /// until it is moved or taken out.
    pub at: Head,
    /// The only instance whose records are kept: a consumer of one keeps no other. `None` if all are.
    pub instance: Option<String>,
}

/// What became of rebuilding a family's control cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rebuilt {
    /// It was whole; nothing was written.
    Whole {
        /// The ceiling it says.
        ceiling: Head,
    },
    /// There is a new one, without pins: everybody has to pin anew, at its ceiling or above.
    Anew {
        /// The family's head: what was announced before nobody knows any more.
        ceiling: Head,
    },
}

/// Why a pin could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// Records below may be gone, so nobody can begin there.
    #[error("records of `{family}` below {lowest} may be gone: the lowest offset to begin at is {lowest}")]
    BelowCeiling {
        /// The family.
        family: Family,
        /// The lowest offset that can be pinned.
        lowest: Offset,
    },
    /// The log was recreated or restored: the offset means nothing in it.
    #[error("the log is in epoch {present} now")]
    EpochChanged {
        /// The log's epoch.
        present: Epoch,
    },
    /// Nobody of this name has a pin.
    #[error("nobody called `{name}` has a pin on `{family}`")]
    NotPinned {
        /// The family.
        family: Family,
        /// The name.
        name: String,
    },
    /// Nobody knows any more what was announced to be dropped, or who needs what.
    #[error("the control cell of `{family}` is gone: call `engine.rebuild_control(\"{family}\")`")]
    ControlLost {
        /// The family.
        family: Family,
    },
    /// The family has as many pins as it can have.
    #[error("`{family}` has {MAX_CONSUMERS} pins: take out one that is not needed any more")]
    Full {
        /// The family.
        family: Family,
    },
    /// The family's name, or the pin's, is no valid one.
    #[error("this is no name of a family or of a pin")]
    InvalidName(#[source] InvalidKey),
    /// The backplane failed; the change may have been made.
    #[error("the backplane could not be asked or told")]
    Backend(#[source] BackendError),
}

impl PinError {
    /// Whether repeating the call is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Backend(error) => error.retry(),
            _ => Retry::Never,
        }
    }

    fn below(family: &Family, lowest: Offset) -> Self {
        Self::BelowCeiling { family: family.clone(), lowest }
    }
}

impl From<InvalidKey> for PinError {
    fn from(error: InvalidKey) -> Self {
        Self::InvalidName(error)
    }
}

impl From<ControlError> for PinError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Lost { family } => Self::ControlLost { family },
            ControlError::EpochChanged { present } => Self::EpochChanged { present },
            ControlError::Full { family } => Self::Full { family },
            ControlError::InvalidName(error) => Self::InvalidName(error),
            ControlError::Cell(error) => Self::Backend(as_backend(error)),
            ControlError::Backend(error) => Self::Backend(error),
            error @ ControlError::Contended { .. } => {
                let contended = "others kept writing the control cell";
                Self::Backend(BackendError::new(ErrorKind::Unavailable, contended).with_source(error))
            }
        }
    }
}

/// What others than a family's own projections need of its log.
///
/// A pin is in the store: it outlives the pod that made it, and keeps every pod from dropping what it needs until it is moved or
/// taken out. `on_event` registers its consumers by these.
impl Engine {
    /// Keeps every record of a family at or above `at`, under a name; answers where that name's pin is.
    ///
    /// A name that has a pin keeps the one it has: what is answered may be another offset, even of another epoch. An epoch and an
    /// offset come together in a [`Head`]: that of a [`Cursor`](crate::Cursor::head), for instance.
    ///
    /// # Errors
    /// [`PinError::BelowCeiling`], which names the lowest offset possible, if records from `at` on may be gone; else the other
    /// variants.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the write under way. Call it again.
    pub async fn pin(&self, family: &str, name: &str, at: Head) -> Result<Head, PinError> {
        let control = self.control(family)?;
        match control.register(name, None, at).await? {
            Registered::Pinned(pin) => Ok(Head { epoch: pin.epoch, offset: pin.offset }),
            Registered::BelowCeiling { lowest } => Err(PinError::below(control.family(), lowest)),
        }
    }

    /// Moves a pin, on or back, and into the log's present epoch.
    ///
    /// # Errors
    /// As [`pin`](Self::pin); [`PinError::NotPinned`] if nobody has this name.
    ///
    /// # Cancel safety
    /// As [`pin`](Self::pin).
    pub async fn move_pin(&self, family: &str, name: &str, to: Head) -> Result<(), PinError> {
        let control = self.control(family)?;
        match control.move_to(name, to).await? {
            Moved::Pinned(_) => Ok(()),
            Moved::BelowCeiling { lowest } => Err(PinError::below(control.family(), lowest)),
            Moved::OtherEpoch(pin) => Err(PinError::EpochChanged { present: pin.epoch }),
            Moved::Unregistered => {
                Err(PinError::NotPinned { family: control.family().clone(), name: name.to_owned() })
            }
        }
    }

    /// Takes a pin out: what it alone needed may be dropped. Answers whether there was one.
    ///
    /// # Errors
    /// [`PinError`]. An outcome that stayed unknown is [`PinError::Backend`]; look at [`pins`](Self::pins) before you repeat it, or
    /// it takes out somebody who pinned under the name meanwhile.
    ///
    /// # Cancel safety
    /// As [`pin`](Self::pin).
    pub async fn unpin(&self, family: &str, name: &str) -> Result<bool, PinError> {
        Ok(self.control(family)?.forget(name).await?)
    }

    /// The pins of a family, sorted by name. What was written a moment ago may be missing.
    ///
    /// # Errors
    /// [`PinError`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn pins(&self, family: &str) -> Result<Vec<Pin>, PinError> {
        let pins = self.control(family)?.pins().await?;
        let pin = |(name, instance, pin): (String, Option<String>, super::control::Pin)| {
            let at = Head { epoch: pin.epoch, offset: pin.offset };
            Pin { name, at, instance }
        };
        Ok(pins.into_iter().map(pin).collect())
    }

    /// Makes a family's control cell anew where it is lost or damaged: the way on after [`PinError::ControlLost`].
    ///
    /// Nobody knows then what was announced to be dropped, so everything below the family's head counts as announced; and the pins
    /// are gone. Where the cell is whole, this changes nothing.
    ///
    /// # Errors
    /// [`PinError`].
    ///
    /// # Cancel safety
    /// As [`pin`](Self::pin).
    pub async fn rebuild_control(&self, family: &str) -> Result<Rebuilt, PinError> {
        let control = self.control(family)?;
        let rebuilt = match control.rebuild().await? {
            super::control::Rebuilt::Whole { ceiling } => Rebuilt::Whole { ceiling },
            super::control::Rebuilt::Anew { ceiling } => {
                tracing::warn!(%family, ceiling = %ceiling.offset, "a control cell was made anew: its pins are gone");
                Rebuilt::Anew { ceiling }
            }
        };
        Ok(rebuilt)
    }

    fn control(&self, family: &str) -> Result<Control, PinError> {
        let (backplane, entropy) = (self.core.backplane.clone(), self.core.ambient.entropy.clone());
        Ok(Control::new(backplane, entropy, Family::new(family)?))
    }
}
