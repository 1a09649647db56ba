//! How long a cell has been still, as far as this pod saw.

use std::time::Duration;

use crate::Rev;

/// How long a cell has stood at one revision.
///
/// What counts is the time from the answer of one look until the next is sent, if both found the same revision: while the store does
/// not answer, nobody can renew, and a cell looks still whose owner lives.
#[derive(Debug, Default)]
pub(super) struct Stillness {
    last: Option<Look>,
    still: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    rev: Rev,
    /// When it was answered; unknown after one that failed.
    answered: Option<Duration>,
}

impl Stillness {
    /// A look, sent and answered at these times, has found the cell at this revision. Answers how long it has been still.
    pub(super) fn found(&mut self, rev: Rev, sent: Duration, answered: Duration) -> Duration {
        match self.last.filter(|last| last.rev == rev) {
            Some(Look { answered: Some(before), .. }) => self.still += sent.saturating_sub(before),
            Some(Look { answered: None, .. }) => {}
            None => self.still = Duration::ZERO,
        }
        self.last = Some(Look { rev, answered: Some(answered) });
        self.still
    }

    /// A look came to nothing: the time around it does not count.
    pub(super) fn failed(&mut self) {
        if let Some(last) = &mut self.last {
            last.answered = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn time_between_looks_at_one_revision_adds_up() {
        let mut stillness = Stillness::default();
        assert_eq!(stillness.found(Rev(7), seconds(0), seconds(1)), Duration::ZERO);
        assert_eq!(stillness.found(Rev(7), seconds(4), seconds(5)), seconds(3));
        assert_eq!(stillness.found(Rev(7), seconds(9), seconds(9)), seconds(7), "not what a call took");
        assert_eq!(stillness.found(Rev(8), seconds(12), seconds(12)), Duration::ZERO, "it moved");
        assert_eq!(stillness.found(Rev(8), seconds(14), seconds(14)), seconds(2));
    }

    #[test]
    fn time_around_a_look_that_failed_does_not_count() {
        let mut stillness = Stillness::default();
        stillness.found(Rev(7), seconds(0), seconds(0));
        stillness.found(Rev(7), seconds(5), seconds(5));
        stillness.failed();
        assert_eq!(stillness.found(Rev(7), seconds(100), seconds(100)), seconds(5));
        assert_eq!(stillness.found(Rev(7), seconds(103), seconds(103)), seconds(8));
        stillness.failed();
        assert_eq!(stillness.found(Rev(9), seconds(200), seconds(200)), Duration::ZERO);
    }
}
