//! A copy of a state as it was.

use std::{fmt, ops::Deref};

use super::{
    Core, Engine, Events,
    loader::{Load, Loaded, Origin},
    projection::{Halt, HaltReason, Published},
    supervisor::{JobError, OnStop},
};
use crate::{BackendError, Event, Fold, FoldState, Head, Key, Offset, Retry, Selector};

/// What a value was folded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FoldedFrom {
    /// The key's first record.
    Genesis,
    /// A snapshot, which is complete up to here.
    Snapshot {
        /// The family's offset that it covers.
        covered: Offset,
    },
}

impl fmt::Display for FoldedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Genesis => f.write_str("the first record"),
            Self::Snapshot { covered } => write!(f, "the snapshot that covers {covered}"),
        }
    }
}

impl From<&Origin> for FoldedFrom {
    fn from(origin: &Origin) -> Self {
        match origin {
            Origin::Genesis => Self::Genesis,
            Origin::Snapshot(header) => Self::Snapshot { covered: header.covered.offset },
        }
    }
}

/// A copy of a state as it was at an offset. It changes no more.
pub struct Past<S> {
    value: Published<S>,
    epoch: crate::Epoch,
    from: FoldedFrom,
    skipped: Vec<Offset>,
}

impl<S> Past<S> {
    /// The key's last record in this value, [`Offset::BEGIN`] if it had none yet.
    #[must_use]
    pub fn key_head(&self) -> Head {
        Head { epoch: self.epoch, offset: self.value.key_head.offset }
    }

    /// What it was folded from.
    #[must_use]
    pub fn from(&self) -> FoldedFrom {
        self.from
    }

    /// The records that this binary does not decode: they are missing from the value.
    #[must_use]
    pub fn skipped(&self) -> &[Offset] {
        &self.skipped
    }

    /// The state itself.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.value.state
    }
}

impl<S> Deref for Past<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.value.state
    }
}

impl<S: fmt::Debug> fmt::Debug for Past<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.state.fmt(f)
    }
}

/// Why there is no copy of a state as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AtError {
    /// The log has not come so far.
    #[error("the log ends at {head}")]
    NotYet {
        /// The family's head.
        head: Offset,
    },
    /// The records that made it are gone, and every snapshot there is was written later.
    #[error("records below {floor} were compacted away; {}", say_lowest(*.lowest))]
    Compacted {
        /// The key's floor.
        floor: Offset,
        /// The lowest offset that can still be folded up to, if there is one.
        lowest: Option<Offset>,
    },
    /// The key cannot be folded that far.
    #[error("a record at {at} stops the fold: {}", .halt.reason, at = .halt.at)]
    Halted {
        /// Where, and why.
        halt: Halt,
    },
    /// The engine stopped.
    #[error("the engine stopped")]
    Stopped,
    /// The backplane failed.
    #[error("the log could not be asked")]
    Backend(#[source] BackendError),
}

fn say_lowest(lowest: Option<Offset>) -> String {
    match lowest {
        Some(lowest) => format!("the lowest offset possible is {lowest}"),
        None => "no snapshot covers them".to_owned(),
    }
}

impl AtError {
    /// Whether repeating the call is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotYet { .. } => Retry::Safe,
            Self::Backend(error) => error.retry(),
            _ => Retry::Never,
        }
    }
}

impl<E, S> Events<E, S>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    /// A copy of this state as it was when the log stood at `offset`, which may be any offset of the family.
    ///
    /// It begins at the newest snapshot that is not later, or at the key's first record, so how far back it reaches depends on what
    /// is still retained. Nothing of what others read is touched.
    ///
    /// # Errors
    /// [`AtError`]; [`AtError::Compacted`] names the lowest offset possible.
    ///
    /// # Cancel safety
    /// Cancel-safe. While the backplane is away it waits, so put a timeout around it.
    pub async fn at(&self, offset: Offset) -> Result<Past<S>, AtError> {
        at::<E, S>(&self.core, self.key(), offset).await
    }
}

impl Engine {
    /// As [`Events::at`], of any key; its family need not be declared.
    ///
    /// # Errors
    /// As [`Events::at`].
    ///
    /// # Cancel safety
    /// As [`Events::at`].
    pub async fn at<E, S>(&self, key: &Key, offset: Offset) -> Result<Past<S>, AtError>
    where
        E: Event + Fold<S>,
        S: FoldState,
    {
        at::<E, S>(&self.core, key, offset).await
    }
}

async fn at<E, S>(core: &Core, key: &Key, offset: Offset) -> Result<Past<S>, AtError>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    let log = core.backplane.log();
    let head = log.head(&Selector::Family(key.family().clone())).await.map_err(AtError::Backend)?;
    if offset > head.offset {
        return Err(AtError::NotYet { head: head.offset });
    }
    let loaded = fold::<E, S>(core, Load::of(key.clone()).through(offset)).await.ok_or(AtError::Stopped)?;
    match loaded {
        Loaded { halt: Some(Halt { reason: HaltReason::Compacted { floor }, .. }), epoch, .. } => {
            let lowest = lowest_possible(core, key, epoch, floor).await.map_err(AtError::Backend)?;
            Err(AtError::Compacted { floor, lowest })
        }
        Loaded { halt: Some(halt), .. } => Err(AtError::Halted { halt }),
        Loaded { value: Some(value), epoch, origin, skipped, .. } => {
            let skipped = skipped.into_iter().map(|(offset, _)| offset).collect();
            Ok(Past { value, epoch, from: FoldedFrom::from(&origin), skipped })
        }
        Loaded { value: None, .. } => unreachable!("what has no value is halted"),
    }
}

/// Loads beside every projector; `None` if the engine stops.
pub(super) async fn fold<E, S>(core: &Core, load: Load<S>) -> Option<Loaded<S>>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    let (for_load, name) = (core.clone(), format!("fold {}", load.key().family()));
    let job = async move { load.run::<E>(&for_load).await };
    match core.supervisor.run(name, OnStop::Abort, job).await {
        Ok((loaded, _)) => Some(loaded),
        Err(JobError::Panicked(message)) => {
            let halt = Halt { at: Offset::BEGIN, reason: HaltReason::Panicked { message } };
            Some(Loaded::none(crate::Epoch::default(), halt))
        }
        Err(JobError::Stopped) => None,
    }
}

/// The lowest offset that a snapshot, or the key's first record, still lets be folded up to.
async fn lowest_possible(
    core: &Core,
    key: &Key,
    epoch: crate::Epoch,
    floor: Offset,
) -> Result<Option<Offset>, BackendError> {
    if floor.0 <= 1 {
        return Ok(Some(Offset::BEGIN));
    }
    let snapshots = core.snapshots(key);
    let held = snapshots.manifest().await.map_err(super::losses::as_backend)?;
    let Some(held) = held else { return Ok(None) };
    let whole = [held.value.current(), held.value.previous(), held.value.rollback()].into_iter().flatten();
    let headers = whole.map(super::snapshots::Snapshot::header);
    let reaches = headers.filter(|header| {
        header.covered.epoch == epoch && header.covered.offset.0.saturating_add(1) >= floor.0
    });
    Ok(reaches.map(|header| header.key_head.offset).min())
}
