//! Dropping records, where a backend can.

use crate::{BackendError, Family, Key, Offset, Reply};

/// Drops records that a snapshot covers.
///
/// # Guarantees
///
/// - **C1** [`compact`](Self::compact) drops the key's records with offset < `before` but always keeps the key's head record;
///   offsets of the rest never change, and no other key is touched. A reader may see some of what was dropped a moment
///   longer, where a copy lags.
/// - **C2** The floor is durable, kept **with the log** (it cannot outlive or die without it), tagged with its epoch, and
///   recorded before the first record is dropped.
/// - **C3** Idempotent, monotone (a lower `before` changes nothing), clamped to the key's head.
/// - **C4** [`floor`](Self::floor) answers the key's floor, [`Offset::BEGIN`] until it was first compacted.
/// - **C5** [`is_compacted`](Self::is_compacted) answers whether any key of the family has a floor above
///   [`Offset::BEGIN`]. The log itself answers, as it is now, and never a copy or a memory of it: what a pod may believe about
///   a hole, and whether a control cell was lost, rest on a *no* (PROTOCOL §3).
pub trait Compactor: Send + Sync {
    /// Drops the key's records below `before`; answers the floor that now holds.
    ///
    /// # Cancel safety
    /// Dropping the reply abandons the answer; the compaction may still take place, wholly or in part. Repeat it.
    fn compact<'a>(&'a self, key: &'a Key, before: Offset) -> Reply<'a, Result<Offset, BackendError>>;

    /// The key's floor: records below may be gone, none at or above is.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn floor<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<Offset, BackendError>>;

    /// Whether any key of the family was ever compacted, in the log that is there now. Costs the same however many keys there
    /// are.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn is_compacted<'a>(&'a self, family: &'a Family) -> Reply<'a, Result<bool, BackendError>>;
}
