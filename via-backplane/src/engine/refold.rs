//! Computing a value anew while the one there is serves.

use tokio::sync::oneshot;

use super::{
    Engine,
    loader::Loaded,
    orders::Order,
    past::FoldedFrom,
    projection::{Halt, Projection},
};
use crate::{Key, Offset, Retry};

/// How often a refold asks again for a key that was let go, or whose log was replaced, meanwhile.
const MAX_ASKED: usize = 16;

/// What a value was computed anew from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refolded {
    /// What it was folded from: the first record, or, once the key was compacted, the oldest snapshot there is.
    pub from: FoldedFrom,
    /// The last record of the key in it.
    pub key_head: Offset,
    /// How many records were folded.
    pub records: u64,
}

/// Why a value was not computed anew. What was served is served on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefoldError {
    /// No event-sourced state of this family is declared on this engine.
    #[error("no state of this engine is called `{family}`")]
    UnknownFamily {
        /// The family.
        family: crate::Family,
    },
    /// The fold stops before it has caught up.
    #[error("a record at {at} stops the fold: {}", .halt.reason, at = .halt.at)]
    Halted {
        /// Where, and why.
        halt: Halt,
    },
    /// The key is being computed anew already.
    #[error("`{key}` is being folded anew already")]
    UnderWay {
        /// The key.
        key: Key,
    },
    /// The log was replaced again and again, or the key was let go.
    #[error("`{key}` did not stay on this pod for as long as it takes")]
    Unsettled {
        /// The key.
        key: Key,
    },
    /// The engine stopped.
    #[error("the engine stopped")]
    Stopped,
}

impl RefoldError {
    /// Whether repeating the call is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::UnderWay { .. } | Self::Unsettled { .. } => Retry::Safe,
            Self::UnknownFamily { .. } | Self::Halted { .. } | Self::Stopped => Retry::Never,
        }
    }
}

/// What a projector answers, where it answers at all.
#[derive(Debug)]
pub(super) enum Answer {
    Refolded(Refolded),
    Halted(Halt),
    UnderWay,
    /// The key is not on this pod.
    NotHere,
}

impl Engine {
    /// Computes this pod's value of a key anew, from its first record, or once it was compacted from the oldest snapshot there is,
    /// and shows it when it has caught up. The value there is serves, and follows the log, until then.
    ///
    /// A key that is halted goes on, if the fold gets past what had halted it. Snapshots are written of the new value from then on.
    ///
    /// # Errors
    /// [`RefoldError`]; what was served is served on.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the refold. While the backplane is away it waits, so put a timeout around it.
    pub async fn refold(&self, key: &Key) -> Result<Refolded, RefoldError> {
        let Some(family) = self.core.registry.find(key.family()) else {
            return Err(RefoldError::UnknownFamily { family: key.family().clone() });
        };
        let stopping = self.core.supervisor.stopping();
        for _ in 0..MAX_ASKED {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return Err(RefoldError::Stopped),
                () = family.clone().here(key.clone()) => {}
            }
            let (reply, answer) = oneshot::channel();
            let order = Order::Refold { key: key.clone(), reply };
            if family.orders().send(order).await.is_err() {
                return Err(RefoldError::Stopped);
            }
            match answer.await {
                Ok(Answer::Refolded(refolded)) => return Ok(refolded),
                Ok(Answer::Halted(halt)) => return Err(RefoldError::Halted { halt }),
                Ok(Answer::UnderWay) => return Err(RefoldError::UnderWay { key: key.clone() }),
                // It was let go, or the log was replaced and everything begins anew.
                Ok(Answer::NotHere) | Err(_) => {}
            }
        }
        Err(RefoldError::Unsettled { key: key.clone() })
    }
}

/// Waits until a key has a value or is halted.
pub(super) async fn here<S>(projection: &Projection<S>, mut want: impl FnMut()) {
    let mut changes = projection.changes();
    loop {
        want();
        if !projection.is_incomplete() || projection.halted().is_some() || !changes.changed().await {
            return;
        }
    }
}

impl Refolded {
    pub(super) fn new<S>(loaded: &Loaded<S>) -> Self {
        let key_head = loaded.value.as_ref().map_or(Offset::BEGIN, |value| value.key_head.offset);
        Self { from: FoldedFrom::from(&loaded.origin), key_head, records: loaded.folded }
    }
}
