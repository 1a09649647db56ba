//! Every metric the engine emits, by name; `docs/metrics.md` explains each.

use std::sync::Arc;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use super::{projection::HaltReason, sampling::Sampled};
use crate::Family;

pub(crate) const FOLD_OFFSET: &str = "via_fold_offset";
pub(crate) const FOLD_HALTED: &str = "via_fold_halted";
pub(crate) const FOLD_LAG_EVENTS: &str = "via_fold_lag_events";
pub(crate) const FOLD_LAG_SECONDS: &str = "via_fold_lag_seconds";
pub(crate) const FOLD_COPIES: &str = "via_fold_copies_total";
pub(crate) const FOLD_RESIDENT: &str = "via_fold_resident";
pub(crate) const FOLD_EVICTED: &str = "via_fold_evicted_total";
pub(crate) const EVENTS_APPENDED: &str = "via_events_appended_total";
pub(crate) const EVENTS_UNDECODABLE: &str = "via_events_undecodable_total";
pub(crate) const EVENTS_FORWARD_INCOMPATIBLE: &str = "via_events_forward_incompatible_total";
pub(crate) const EVENTS_EPOCH_RESET: &str = "via_events_epoch_reset_total";
pub(crate) const EVENTS_COMPACTION_RESEED: &str = "via_events_compaction_reseed_total";
pub(crate) const EVENTS_COMPACTION_GAP_HALT: &str = "via_events_compaction_gap_halt_total";
pub(crate) const FOLD_DIVERGENCE: &str = "via_fold_divergence_total";
pub(crate) const FOLD_DIGEST: &str = "via_fold_digest";
pub(crate) const FOLD_DIGEST_OFFSET: &str = "via_fold_digest_offset";
pub(crate) const SNAPSHOT_WRITTEN: &str = "via_snapshot_written_total";
pub(crate) const SNAPSHOT_BYTES: &str = "via_snapshot_bytes";
pub(crate) const SNAPSHOT_AGE: &str = "via_snapshot_age_seconds";
pub(crate) const SNAPSHOT_FAILURES: &str = "via_snapshot_failures_total";
pub(crate) const SNAPSHOT_UNUSABLE: &str = "via_snapshot_unusable_total";
pub(crate) const SNAPSHOT_UNBRIDGEABLE: &str = "via_snapshot_unbridgeable_halt_total";
pub(crate) const COMPACTED: &str = "via_compaction_keys_total";
pub(crate) const COMPACTION_CEILING: &str = "via_compaction_ceiling";
pub(crate) const COMPACTION_FAILURES: &str = "via_compaction_failures_total";
pub(crate) const COMPACTION_POSTPONED: &str = "via_compaction_postponed_total";
pub(crate) const CELL_UPDATES: &str = "via_cell_updates_total";
pub(crate) const CELL_CONFLICTS: &str = "via_cell_conflicts_total";
pub(crate) const CELL_UNDECODABLE: &str = "via_cell_undecodable_total";
pub(crate) const BACKPLANE_UP: &str = "via_backplane_up";
pub(crate) const TAILER_UP: &str = "via_backplane_tailer_up";
pub(crate) const RECONNECTS: &str = "via_backplane_reconnects_total";
pub(crate) const APPEND_SECONDS: &str = "via_backplane_append_seconds";
/// Counted by adapters: what is among the `events` or the `cells` under a name that no key becomes.
pub const FOREIGN: &str = "via_backplane_foreign_total";
/// Counted by adapters: how often messages that a slow reader had dropped were read again.
pub const REREAD: &str = "via_backplane_reread_total";
pub(crate) const CONSUMER_LAG_EVENTS: &str = "via_consumer_lag_events";
pub(crate) const CONSUMER_LAG_SECONDS: &str = "via_consumer_lag_seconds";
pub(crate) const CONSUMER_ATTEMPTS: &str = "via_consumer_attempts";
pub(crate) const CONSUMER_ERRORS: &str = "via_consumer_errors_total";
pub(crate) const CONSUMER_UNDECODABLE: &str = "via_consumer_undecodable_total";
pub(crate) const CONSUMER_DEAD_LETTERED: &str = "via_consumer_dead_lettered_total";
pub(crate) const CONSUMER_EXPIRED: &str = "via_consumer_expired_total";
pub(crate) const CONSUMER_BLOCKED: &str = "via_consumer_blocked";
pub(crate) const CONSUMER_HANDLED: &str = "via_consumer_handled_total";
pub(crate) const CONSUMER_HANDLER_SECONDS: &str = "via_consumer_handler_seconds";
pub(crate) const CONSUMER_OWNER: &str = "via_consumer_owner";
pub(crate) const CONSUMER_COMMITS: &str = "via_consumer_commits_total";
pub(crate) const TASK_FAILURES: &str = "via_task_failures_total";

/// What kind of metric a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric: what `docs/metrics.md` has to list.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// The labels it carries, all bounded.
    pub labels: &'static [&'static str],
    /// What it says, in one line.
    pub help: &'static str,
}

impl Metric {
    /// Describes a metric of another part of via.
    #[must_use]
    pub const fn new(
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind, labels, help }
    }

    /// Tells the installed recorder about this metric.
    pub fn describe(&self) {
        let unit = if self.name.ends_with("_seconds") {
            Unit::Seconds
        } else if self.name.ends_with("_bytes") {
            Unit::Bytes
        } else {
            Unit::Count
        };
        match self.kind {
            Kind::Counter => describe_counter!(self.name, unit, self.help),
            Kind::Gauge => describe_gauge!(self.name, unit, self.help),
            Kind::Histogram => describe_histogram!(self.name, unit, self.help),
        }
    }
}

/// Every metric the engine emits.
pub const CATALOGUE: &[Metric] = &[
    Metric::new(FOLD_OFFSET, Kind::Gauge, &["family"], "the last offset folded and published on this pod"),
    Metric::new(FOLD_HALTED, Kind::Gauge, &["family", "reason"], "keys that fold no further on this pod"),
    Metric::new(
        FOLD_LAG_EVENTS,
        Kind::Gauge,
        &["family"],
        "offsets between this pod and the head it is catching up to; 0 when live",
    ),
    Metric::new(
        FOLD_LAG_SECONDS,
        Kind::Gauge,
        &["family"],
        "age of the last record when it was folded, by the clocks of two pods",
    ),
    Metric::new(FOLD_COPIES, Kind::Counter, &["family"], "states copied because readers held every copy"),
    Metric::new(FOLD_RESIDENT, Kind::Gauge, &["family"], "keys whose value is on this pod, or on its way"),
    Metric::new(
        FOLD_EVICTED,
        Kind::Counter,
        &["family"],
        "values this pod let go of because nobody had read them for a while and others were read",
    ),
    Metric::new(
        EVENTS_APPENDED,
        Kind::Counter,
        &["family"],
        "events this pod appended and the log acknowledged",
    ),
    Metric::new(
        EVENTS_UNDECODABLE,
        Kind::Counter,
        &["family"],
        "records this pod skipped because their bytes do not decode",
    ),
    Metric::new(
        EVENTS_FORWARD_INCOMPATIBLE,
        Kind::Counter,
        &["family"],
        "records of a newer binary that halted a key on this pod",
    ),
    Metric::new(
        EVENTS_EPOCH_RESET,
        Kind::Counter,
        &["family"],
        "times this pod discarded a family because the log was recreated or restored",
    ),
    Metric::new(
        EVENTS_COMPACTION_RESEED,
        Kind::Counter,
        &["family"],
        "values this pod took over from a snapshot because compaction had overtaken it",
    ),
    Metric::new(
        EVENTS_COMPACTION_GAP_HALT,
        Kind::Counter,
        &["family"],
        "keys halted because records are gone that no snapshot covers",
    ),
    Metric::new(
        FOLD_DIVERGENCE,
        Kind::Counter,
        &["family"],
        "times this pod's value was not what another fold of the same records gave",
    ),
    Metric::new(
        FOLD_DIGEST,
        Kind::Gauge,
        &["family"],
        "the first 48 bits of the last sampled digest of the family's plain key; only where digests are on",
    ),
    Metric::new(
        FOLD_DIGEST_OFFSET,
        Kind::Gauge,
        &["family"],
        "the record that the last sampled digest of the family's plain key was taken after",
    ),
    Metric::new(SNAPSHOT_WRITTEN, Kind::Counter, &["family"], "snapshots this pod has written"),
    Metric::new(SNAPSHOT_BYTES, Kind::Gauge, &["family"], "size of the last snapshot this pod has written"),
    Metric::new(
        SNAPSHOT_AGE,
        Kind::Gauge,
        &["family"],
        "time since this pod last wrote or saw a snapshot, when it last tried to write one; 0 after each",
    ),
    Metric::new(
        SNAPSHOT_FAILURES,
        Kind::Counter,
        &["family"],
        "snapshots this pod could not write; the next attempt follows by itself",
    ),
    Metric::new(
        SNAPSHOT_UNUSABLE,
        Kind::Counter,
        &["family"],
        "snapshots this pod could not use: damaged, of another type, or of a version it does not migrate",
    ),
    Metric::new(
        SNAPSHOT_UNBRIDGEABLE,
        Kind::Counter,
        &["family"],
        "keys halted because no migration reads the snapshot that covers what was compacted",
    ),
    Metric::new(
        COMPACTION_CEILING,
        Kind::Gauge,
        &["family"],
        "the offset below which this pod has announced that records may be dropped",
    ),
    Metric::new(COMPACTED, Kind::Counter, &["family"], "times this pod has dropped a key's older records"),
    Metric::new(
        COMPACTION_FAILURES,
        Kind::Counter,
        &["family"],
        "rounds of compaction in which something failed; what failed is tried again",
    ),
    Metric::new(
        COMPACTION_POSTPONED,
        Kind::Counter,
        &["family"],
        "keys whose compaction waits for their next snapshot because too many wait already",
    ),
    Metric::new(
        CELL_UPDATES,
        Kind::Counter,
        &["outcome"],
        "cell updates by outcome: written, rejected, contended, unknown, failed",
    ),
    Metric::new(
        CELL_CONFLICTS,
        Kind::Counter,
        &[],
        "compare-and-swap races that a cell update lost and tried again",
    ),
    Metric::new(
        CELL_UNDECODABLE,
        Kind::Counter,
        &[],
        "stored cell values this pod passed over because they do not decode",
    ),
    Metric::new(
        BACKPLANE_UP,
        Kind::Gauge,
        &[],
        "1 while the backplane answers pings, one a second and within two, else 0",
    ),
    Metric::new(
        TAILER_UP,
        Kind::Gauge,
        &["tail"],
        "1 while the tail of a family, or the watch of the cells, is connected",
    ),
    Metric::new(RECONNECTS, Kind::Counter, &["tail"], "times a tail or watch had to be opened again"),
    Metric::new(
        APPEND_SECONDS,
        Kind::Histogram,
        &["family"],
        "time from append to acknowledgement; of answers that need no waiting, one in 64 is timed",
    ),
    // Adapters count these themselves, by this name.
    Metric::new(
        FOREIGN,
        Kind::Counter,
        &["of"],
        "messages somebody else put among the events or the cells, under names that are nobody's; they are skipped",
    ),
    Metric::new(
        REREAD,
        Kind::Counter,
        &[],
        "times messages were dropped on this pod, or seemed to be, because a reader was too far behind, and were read again",
    ),
    Metric::new(
        CONSUMER_OWNER,
        Kind::Gauge,
        &["family", "consumer"],
        "1 on the pod that runs the consumer, else 0; the sum over all pods is 1",
    ),
    Metric::new(
        CONSUMER_LAG_EVENTS,
        Kind::Gauge,
        &["family", "consumer"],
        "offsets between what the consumer has committed and its head, on the pod that runs it",
    ),
    Metric::new(
        CONSUMER_LAG_SECONDS,
        Kind::Gauge,
        &["family", "consumer"],
        "age of the first event that was not handled, by the clocks of two pods; 0 when there is none",
    ),
    Metric::new(
        CONSUMER_ATTEMPTS,
        Kind::Gauge,
        &["family", "consumer"],
        "how often the first event that was not handled has failed: above 0 for long, the consumer is stuck",
    ),
    Metric::new(
        CONSUMER_BLOCKED,
        Kind::Gauge,
        &["family", "consumer"],
        "1 while the consumer goes no further until somebody does something: on its owner, or, if it waits for a newer binary, on every other pod",
    ),
    Metric::new(CONSUMER_HANDLED, Kind::Counter, &["family", "consumer"], "events this pod has handled"),
    Metric::new(
        CONSUMER_ERRORS,
        Kind::Counter,
        &["family", "consumer"],
        "attempts that failed on this pod: by an error, a panic, or a timeout",
    ),
    Metric::new(
        CONSUMER_UNDECODABLE,
        Kind::Counter,
        &["family", "consumer"],
        "events this pod has given up at once because their bytes do not decode",
    ),
    Metric::new(
        CONSUMER_DEAD_LETTERED,
        Kind::Counter,
        &["family", "consumer"],
        "events this pod has given up: they are among the dead letters",
    ),
    Metric::new(
        CONSUMER_EXPIRED,
        Kind::Counter,
        &["family", "consumer"],
        "dead letters this pod has dropped because they were too old",
    ),
    Metric::new(
        CONSUMER_HANDLER_SECONDS,
        Kind::Histogram,
        &["family", "consumer"],
        "how long handlers take; one in 64 is timed",
    ),
    Metric::new(
        CONSUMER_COMMITS,
        Kind::Counter,
        &["family", "consumer"],
        "times this pod has written down what was handled",
    ),
    Metric::new(TASK_FAILURES, Kind::Counter, &["task"], "background tasks that failed or panicked"),
];

/// What appending to a family counts, looked up once.
pub(crate) struct Appends {
    pub(crate) events: Counter,
    pub(crate) seconds: Histogram,
}

impl Appends {
    pub(crate) fn new(family: &Family) -> Self {
        let label = family.as_str().to_owned();
        Self {
            events: counter!(EVENTS_APPENDED, "family" => label.clone()),
            seconds: histogram!(APPEND_SECONDS, "family" => label),
        }
    }
}

/// A family's handles, looked up once.
pub(crate) struct OfFamily {
    label: String,
    pub(crate) offset: Gauge,
    pub(crate) lag_events: Gauge,
    pub(crate) lag_seconds: Gauge,
    pub(crate) copies: Counter,
    pub(crate) resident: Gauge,
    pub(crate) evicted: Counter,
    pub(crate) appends: Arc<Appends>,
    pub(crate) undecodable: Counter,
    pub(crate) forward_incompatible: Counter,
    pub(crate) epoch_reset: Counter,
    pub(crate) gap_halt: Counter,
    pub(crate) reseed: Counter,
    pub(crate) divergence: Counter,
    pub(crate) snapshots_written: Counter,
    pub(crate) snapshot_bytes: Gauge,
    pub(crate) snapshot_age: Gauge,
    pub(crate) snapshot_failures: Counter,
    pub(crate) unbridgeable: Counter,
}

impl OfFamily {
    pub(crate) fn new(family: &Family) -> Self {
        let label = family.as_str().to_owned();
        Self {
            offset: gauge!(FOLD_OFFSET, "family" => label.clone()),
            lag_events: gauge!(FOLD_LAG_EVENTS, "family" => label.clone()),
            lag_seconds: gauge!(FOLD_LAG_SECONDS, "family" => label.clone()),
            copies: counter!(FOLD_COPIES, "family" => label.clone()),
            resident: gauge!(FOLD_RESIDENT, "family" => label.clone()),
            evicted: counter!(FOLD_EVICTED, "family" => label.clone()),
            appends: Arc::new(Appends::new(family)),
            undecodable: counter!(EVENTS_UNDECODABLE, "family" => label.clone()),
            forward_incompatible: counter!(EVENTS_FORWARD_INCOMPATIBLE, "family" => label.clone()),
            epoch_reset: counter!(EVENTS_EPOCH_RESET, "family" => label.clone()),
            reseed: counter!(EVENTS_COMPACTION_RESEED, "family" => label.clone()),
            gap_halt: counter!(EVENTS_COMPACTION_GAP_HALT, "family" => label.clone()),
            divergence: counter!(FOLD_DIVERGENCE, "family" => label.clone()),
            snapshots_written: counter!(SNAPSHOT_WRITTEN, "family" => label.clone()),
            snapshot_bytes: gauge!(SNAPSHOT_BYTES, "family" => label.clone()),
            snapshot_age: gauge!(SNAPSHOT_AGE, "family" => label.clone()),
            snapshot_failures: counter!(SNAPSHOT_FAILURES, "family" => label.clone()),
            unbridgeable: counter!(SNAPSHOT_UNBRIDGEABLE, "family" => label.clone()),
            label,
        }
    }

    /// Shows a digest of the family's plain key. Looked up each time: only where digests are on are there any.
    pub(crate) fn show_digest(&self, sampled: &Sampled) {
        // Whole in the 53 bits of a gauge, and the first twelve digits of what the digest is printed as.
        let first = sampled.digest.as_bytes()[..6].iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        gauge!(FOLD_DIGEST, "family" => self.label.clone()).set(first as f64);
        gauge!(FOLD_DIGEST_OFFSET, "family" => self.label.clone()).set(sampled.at.offset.0 as f64);
    }

    /// How many keys are halted for this reason.
    pub(crate) fn halted(&self, reason: &HaltReason) -> Gauge {
        gauge!(FOLD_HALTED, "family" => self.label.clone(), "reason" => reason.label())
    }
}

/// A consumer's handles, looked up once.
#[derive(Clone)]
pub(crate) struct OfConsumer {
    pub(crate) owner: Gauge,
    pub(crate) lag_events: Gauge,
    pub(crate) lag_seconds: Gauge,
    pub(crate) attempts: Gauge,
    pub(crate) blocked: Gauge,
    pub(crate) handled: Counter,
    pub(crate) errors: Counter,
    pub(crate) undecodable: Counter,
    pub(crate) commits: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) expired: Counter,
    pub(crate) handler_seconds: Histogram,
}

impl OfConsumer {
    pub(crate) fn new(family: &Family, consumer: &str) -> Self {
        let labels = [("family", family.as_str().to_owned()), ("consumer", consumer.to_owned())];
        Self {
            owner: gauge!(CONSUMER_OWNER, &labels),
            lag_events: gauge!(CONSUMER_LAG_EVENTS, &labels),
            lag_seconds: gauge!(CONSUMER_LAG_SECONDS, &labels),
            attempts: gauge!(CONSUMER_ATTEMPTS, &labels),
            blocked: gauge!(CONSUMER_BLOCKED, &labels),
            handled: counter!(CONSUMER_HANDLED, &labels),
            errors: counter!(CONSUMER_ERRORS, &labels),
            undecodable: counter!(CONSUMER_UNDECODABLE, &labels),
            commits: counter!(CONSUMER_COMMITS, &labels),
            dead_lettered: counter!(CONSUMER_DEAD_LETTERED, &labels),
            expired: counter!(CONSUMER_EXPIRED, &labels),
            handler_seconds: histogram!(CONSUMER_HANDLER_SECONDS, &labels),
        }
    }
}

/// Tells the installed recorder what the engine's metrics mean.
pub(crate) fn describe() {
    CATALOGUE.iter().for_each(Metric::describe);
}
