//! One compare-and-swap whose writer finds out whether it took place (PROTOCOL §6).

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use super::{
    ambient::{Entropy, Rules},
    retry::Delays,
};
use crate::{BackendError, CasError, CellKey, Expected, Rev, Store, TooLarge, Ttl};

/// Repeats of one write whose outcome is unknown.
const MAX_REPEATS: usize = 8;

/// One compare-and-swap, the same each time it is repeated.
pub(super) struct Write<'a> {
    pub(super) key: &'a CellKey,
    pub(super) expected: Expected,
    /// What tells this write from every other; field 1 of `bytes`.
    pub(super) nonce: Bytes,
    pub(super) bytes: Bytes,
    pub(super) ttl: Ttl,
}

/// Where a write goes, and by which rules.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) entropy: &'a dyn Entropy,
    pub(super) rules: Rules,
}

/// Why a write is not known to be stored.
#[derive(Debug)]
pub(super) enum Lost {
    /// Somebody else won; try again.
    Conflict,
    Failed(Failed),
}

#[derive(Debug)]
pub(super) enum Failed {
    TooLarge(TooLarge),
    Backend(BackendError),
    Unknown(BackendError),
}

/// What every cell via stores begins with, whatever follows.
#[derive(Clone, PartialEq, prost::Message)]
struct Nonced {
    #[prost(bytes = "bytes", tag = "1")]
    nonce: Bytes,
}

impl Writer<'_> {
    /// A nonce no other write has.
    pub(super) fn nonce(&self) -> Bytes {
        Bytes::copy_from_slice(&self.entropy.bits().to_be_bytes())
    }

    /// The delays between attempts, jittered by this writer's entropy.
    pub(super) fn delays(&self, min: Duration, max: Duration) -> Delays {
        Delays::new(min, max, self.entropy.bits() as u64)
    }

    /// Writes once, and finds out whether that happened where the answer was lost.
    pub(super) async fn commit(&self, write: &Write<'_>) -> Result<Rev, Lost> {
        let mut delays = self.delays(Duration::from_millis(10), Duration::from_secs(1));
        let mut unknown: Option<BackendError> = None;
        for _ in 0..=MAX_REPEATS {
            let attempt = self.store.cas(write.key, write.expected, write.bytes.clone(), write.ttl);
            match attempt.await {
                Ok(rev) => return Ok(rev),
                Err(CasError::Conflict { .. }) => return self.judge_conflict(write, unknown).await,
                Err(CasError::TooLarge(error)) => return Err(Lost::Failed(Failed::TooLarge(error))),
                Err(CasError::MaybeCommitted(_)) if !self.rules.resolve_by_nonce => {
                    return Err(Lost::Conflict);
                }
                Err(CasError::MaybeCommitted(error)) => unknown = Some(error),
                // Once an outcome is unknown, a refusal of the repeat does not make it known.
                Err(CasError::Backend(error)) if unknown.is_none() => {
                    return Err(Lost::Failed(Failed::Backend(error)));
                }
                Err(CasError::Backend(error)) => unknown = Some(error),
            }
            delays.wait().await;
            // The same write at the same revision again: it wins at most once, whenever the first lands.
        }
        Err(Lost::Failed(Failed::Unknown(unknown.expect("only unknown outcomes are repeated"))))
    }

    /// Somebody wrote at the expected revision. It may have been this very write, whose answer was lost.
    async fn judge_conflict(&self, write: &Write<'_>, unknown: Option<BackendError>) -> Result<Rev, Lost> {
        let Some(unknown) = unknown else { return Err(Lost::Conflict) };
        let found = match self.store.load(write.key).await {
            Ok(found) => found,
            Err(error) => return Err(Lost::Failed(Failed::Unknown(error))),
        };
        if let Some(found) = found
            && Nonced::decode(found.bytes).is_ok_and(|stored| stored.nonce == write.nonce)
        {
            return Ok(found.rev);
        }
        // The write may have landed and been overwritten: running the closure again could apply it twice.
        if self.rules.report_unknown_updates {
            Err(Lost::Failed(Failed::Unknown(unknown)))
        } else {
            Err(Lost::Conflict)
        }
    }
}
