//! How a consumer runs.

use std::{num::NonZeroU32, time::Duration};

use super::{cell::MAX_ATTEMPTED, dead::Sink};
use crate::{Cursor, Head, Offset, RecordId};

/// Where a consumer begins that was never there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// With the first event there ever was.
    Genesis,
    /// With what is appended after it was registered.
    Now,
    /// With the first event at or above this offset of the present log.
    Offset(Offset),
}

impl StartAt {
    /// Where a consumer stands that begins there, in a log whose head this is: on no record.
    pub(super) fn cursor(self, head: Head) -> Cursor {
        let before = match self {
            Self::Genesis => Offset::BEGIN,
            Self::Now => head.offset,
            Self::Offset(offset) => Offset(offset.0.saturating_sub(1)),
        };
        Cursor { epoch: head.epoch, offset: before, id: RecordId::default() }
    }
}

/// See the methods of [`OnEvent`](super::OnEvent).
#[derive(Clone)]
pub(super) struct Options {
    pub(super) start_at: StartAt,
    /// Whose place it takes.
    pub(super) successor_of: Option<String>,
    pub(super) lease: Duration,
    pub(super) handler_timeout: Duration,
    pub(super) concurrency: usize,
    pub(super) commit_records: usize,
    pub(super) commit_time: Duration,
    pub(super) retry_base: Duration,
    pub(super) retry_max: Duration,
    /// After so many failures an event is given up; never, if there is no such number.
    pub(super) max_attempts: Option<NonZeroU32>,
    /// Whom to tell of what is given up, before it is written down.
    pub(super) sink: Option<Sink>,
    /// How long after its last failure a dead letter is dropped; never, if there is no such time.
    pub(super) letters_last: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            start_at: StartAt::Genesis,
            successor_of: None,
            // A store may be silent for 9 seconds while it elects a leader; no owner shall lose its lease by that.
            lease: Duration::from_secs(20),
            handler_timeout: Duration::from_secs(30),
            concurrency: 1,
            commit_records: 256,
            commit_time: Duration::from_millis(100),
            retry_base: Duration::from_millis(10),
            retry_max: Duration::from_secs(30),
            max_attempts: None,
            sink: None,
            letters_last: None,
        }
    }
}

/// The shortest lease: what a look and a renewal need on a slow day.
pub(super) const SHORTEST_LEASE: Duration = Duration::from_secs(1);
/// The most handlers of a consumer that run at a time.
pub(super) const MAX_CONCURRENCY: usize = 256;
/// The most records between two commits.
pub(super) const MAX_COMMIT_RECORDS: usize = (MAX_ATTEMPTED - MAX_CONCURRENCY) / 2;

impl Options {
    /// How many records an owner may have begun and not committed: one commit's are on their way while the next one's run.
    pub(super) fn spread(&self) -> usize {
        2 * self.commit_records + self.concurrency
    }

    /// Whether an event is given up that has failed so often.
    pub(super) fn is_exhausted(&self, attempts: u32) -> bool {
        self.max_attempts.is_some_and(|most| attempts >= most.get())
    }

    /// How long to wait after so many failures: exponential, with full jitter. `chance` is spread evenly.
    ///
    /// "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: of the kinds compared there, the one with the least work in all.
    pub(super) fn retry_after(&self, failures: u32, chance: u64) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1).min(31)).unwrap_or(u32::MAX);
        let most = self.retry_base.saturating_mul(factor).min(self.retry_max);
        most.mul_f64(chance as f64 / u64::MAX as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_are_spread_over_all_of_it() {
        let options = Options::default();
        let most: Vec<_> =
            (1..=13).map(|failures| options.retry_after(failures, u64::MAX).as_millis()).collect();
        assert_eq!(most, [10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120, 10_240, 20_480, 30_000]);
        assert_eq!(options.retry_after(u32::MAX, u64::MAX), Duration::from_secs(30));
        assert_eq!(options.retry_after(5, 0), Duration::ZERO);
        assert_eq!(options.retry_after(2, u64::MAX / 2).as_millis(), 10);
    }

    #[test]
    fn what_may_be_open_is_never_more_than_a_cell_remembers() {
        let most = Options {
            commit_records: MAX_COMMIT_RECORDS,
            concurrency: MAX_CONCURRENCY,
            ..Options::default()
        };
        assert!(most.spread() <= MAX_ATTEMPTED, "{}", most.spread());
    }
}
