//! Records that do not decode: which they are, and making the loss of one final.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;

use super::{
    Engine,
    decode::{Problem, decode},
    family::Family,
    orders::Order,
    owned_cell::{ChangeError, OwnedError},
    snapshots::Refused,
};
use crate::{BackendError, Batch, ErrorKind, Event, Key, Offset, ReadRange, Retry, Selector};

/// A record that a pod has skipped, because its bytes do not decode.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undecodable {
    /// The key it is of.
    pub key: Key,
    /// Where it stands.
    pub offset: Offset,
    /// What is wrong with it.
    pub cause: String,
}

/// Why the loss of a record was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptLossError {
    /// No event-sourced state of this family is declared on this engine.
    #[error("no state of this engine is called `{family}`: declare it, so that its records can be looked at")]
    UnknownFamily {
        /// The family.
        family: crate::Family,
    },
    /// The key has no record there.
    #[error("`{key}` has no record at {offset}")]
    NoRecord {
        /// The key.
        key: Key,
        /// Where none is.
        offset: Offset,
    },
    /// This binary decodes the record.
    #[error("the record of `{key}` at {offset} decodes: nothing is lost")]
    Decodes {
        /// The key.
        key: Key,
        /// Where the record is.
        offset: Offset,
    },
    /// A newer binary wrote the record, and decodes it.
    #[error("the record of `{key}` at {offset} is `{event}` of a newer binary: deploy one that knows it")]
    Newer {
        /// The key.
        key: Key,
        /// Where the record is.
        offset: Offset,
        /// The event's name.
        event: String,
    },
    /// Another pod has decoded the record: a snapshot has it.
    #[error("a snapshot of `{key}` that covers {covered} has the record at {offset}: a binary decodes it")]
    Folded {
        /// The key.
        key: Key,
        /// Where the record is.
        offset: Offset,
        /// What the snapshot covers.
        covered: Offset,
    },
    /// The key has accepted as many losses as it can remember.
    #[error("`{key}` has accepted as many losses as it can remember: let it be compacted first")]
    TooMany {
        /// The key.
        key: Key,
    },
    /// The backplane failed; the loss may have been accepted.
    #[error("the backplane could not be asked or told")]
    Backend(#[source] BackendError),
}

impl AcceptLossError {
    /// Whether repeating the call is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Backend(error) => error.retry(),
            _ => Retry::Never,
        }
    }
}

impl Engine {
    /// The records that this pod skipped because they do not decode: of each family the last 1,024, oldest first.
    ///
    /// They stay in the log, and keep their keys from being compacted past them, until a binary folds them or their loss is
    /// [accepted](Self::accept_loss).
    #[must_use]
    pub fn undecodable(&self) -> Vec<Undecodable> {
        self.core.registry.families().iter().flat_map(|family| family.undecodable()).collect()
    }

    /// Makes the loss of a record that does not decode final: every pod skips it from now on, and it holds nothing any more.
    ///
    /// It is written down with the key's snapshots. This pod knows at once; others that have skipped the record learn of it
    /// within half a minute. Accepting a loss again changes nothing. Do not accept one while a binary that decodes the record is
    /// being rolled out: a pod that has folded it is not told.
    ///
    /// # Errors
    /// [`AcceptLossError`]: among others, a record that this binary decodes, or that a snapshot has, is not lost.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the write under way. Call it again.
    pub async fn accept_loss(&self, key: &Key, offset: Offset) -> Result<(), AcceptLossError> {
        let Some(family) = self.core.registry.find(key.family()) else {
            return Err(AcceptLossError::UnknownFamily { family: key.family().clone() });
        };
        let range = ReadRange { after: Offset(offset.0.saturating_sub(1)), up_to: offset, limit: 1 };
        let log = self.core.backplane.log();
        let page = log.read(&Selector::Key(key.clone()), range).await.map_err(AcceptLossError::Backend)?;
        family.looks_lost(key, offset, &page)?;
        let refused = match self.core.snapshots(key).accept_loss(page.epoch(), offset).await {
            Ok(()) => None,
            Err(error) => Some(refusal(key, offset, error)),
        };
        if let Some(refused) = refused {
            return Err(refused);
        }
        tracing::warn!(%key, %offset, "the loss of a record was accepted");
        let (reply, learned) = oneshot::channel();
        // A projector that is no more has nothing to learn.
        family.orders().send(Order::Accepted { key: key.clone(), offset, reply }).await.ok();
        learned.await.ok();
        Ok(())
    }
}

fn refusal(key: &Key, offset: Offset, error: ChangeError<Refused>) -> AcceptLossError {
    let key = key.clone();
    match error {
        ChangeError::Rejected(Refused::TooMany) => AcceptLossError::TooMany { key },
        ChangeError::Rejected(Refused::Folded { covered }) => {
            AcceptLossError::Folded { key, offset, covered }
        }
        ChangeError::Contended => AcceptLossError::Backend(contended()),
        ChangeError::Cell(error) => AcceptLossError::Backend(as_backend(error)),
    }
}

pub(super) fn contended() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "others kept writing a cell of the engine")
}

/// What failed at a cell of the engine, where the same call may be made again whatever came of it.
pub(super) fn as_backend(error: OwnedError) -> BackendError {
    match error {
        OwnedError::Backend(error) | OwnedError::Unknown(error) => error,
        other => BackendError::new(ErrorKind::Internal, "a cell of the engine cannot be read or written")
            .with_source(other),
    }
}

/// Says whether the record of a page is one that nobody decodes, as far as this binary knows.
pub(super) fn looks_lost<E: Event, S>(
    _of: &Family<E, S>,
    key: &Key,
    offset: Offset,
    page: &Batch,
) -> Result<(), AcceptLossError> {
    let Some(record) = page.iter().find(|record| record.offset == offset) else {
        return Err(AcceptLossError::NoRecord { key: key.clone(), offset });
    };
    // A decoder that panics does not decode it either.
    let Ok(decoded) = catch_unwind(AssertUnwindSafe(|| decode::<E>(&record).err())) else { return Ok(()) };
    match decoded {
        Some(Problem::Undecodable(_)) => Ok(()),
        Some(Problem::Newer { name, .. } | Problem::Unknown { name }) => {
            Err(AcceptLossError::Newer { key: key.clone(), offset, event: name })
        }
        None => Err(AcceptLossError::Decodes { key: key.clone(), offset }),
    }
}
