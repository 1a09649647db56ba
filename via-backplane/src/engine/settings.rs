//! What an engine's builder can set, beyond its surroundings.

use std::{num::NonZeroU64, time::Duration};

/// How an engine works, the same for every family.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Instances of a family that this pod keeps in memory at most.
    pub(crate) resident_instances: usize,
    /// Records of a key between two snapshots of it.
    pub(crate) snapshot_interval: u64,
    /// The least time between two snapshots of a key.
    pub(crate) snapshot_pause: Duration,
    /// How long the last snapshot of a previous state version is kept.
    pub(crate) rollback_window: Duration,
    /// How long a ceiling is public before anything below it is dropped: G of PROTOCOL §2.
    pub(crate) compaction_grace: Duration,
    /// Whether records that snapshots cover are dropped.
    pub(crate) compacts: bool,
    /// Whether each record is folded twice, and the two values compared.
    pub(crate) fold_verify: bool,
    /// After one in how many records of a key a digest is taken; none if there are to be none.
    pub(crate) fold_digests: Option<NonZeroU64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            resident_instances: 10_000,
            snapshot_interval: 64,
            snapshot_pause: Duration::from_secs(1),
            rollback_window: Duration::from_secs(24 * 60 * 60),
            compaction_grace: Duration::from_secs(60),
            compacts: true,
            fold_verify: false,
            fold_digests: None,
        }
    }
}
