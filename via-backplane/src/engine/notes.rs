//! What a pod tells the others about a key's log, in its manifest: told until it is.

use std::convert::Infallible;

use super::{Core, owned_cell::ChangeError, retry::Delays, snapshots::Hold};
use crate::{Epoch, Key, Offset, Retry};

/// One thing to tell.
#[derive(Debug, Clone, Copy)]
pub(super) enum Note {
    /// This pod cannot decode a record, so nobody may drop it.
    Undecodable,
    /// This pod's value is not what another one folded from the same records.
    Diverged,
}

impl Note {
    async fn try_tell(
        self,
        core: &Core,
        key: &Key,
        epoch: Epoch,
        at: Offset,
    ) -> Result<Hold, ChangeError<Infallible>> {
        let snapshots = core.snapshots(key);
        match self {
            Self::Undecodable => snapshots.hold_undecodable(epoch, at).await,
            Self::Diverged => snapshots.hold_diverged(epoch, at).await.map(|()| Hold::Held),
        }
    }
}

/// Tells until it is told; `None` if that is never going to work.
pub(super) async fn tell(core: &Core, key: &Key, note: Note, epoch: Epoch, at: Offset) -> Option<Hold> {
    let mut delays = Delays::default();
    let mut is_said = false;
    loop {
        let error = match note.try_tell(core, key, epoch, at).await {
            Ok(hold) => return Some(hold),
            Err(error) => error,
        };
        let is_final = matches!(&error, ChangeError::Cell(cell) if cell.retry() == Retry::Never);
        if !std::mem::replace(&mut is_said, true) || is_final {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(%key, offset = %at, ?note, %error, cause, "the other pods could not be told");
        }
        if is_final {
            return None;
        }
        delays.wait().await;
    }
}
