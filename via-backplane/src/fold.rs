//! How an event changes a state.

use std::time::SystemTime;

use crate::{EventId, Offset};

/// The pure reducer: what this event does to a state.
///
/// Every pod folds the same events in the same order and has to arrive at the same state, today and in years. So
/// a fold reads nothing but the event, the state and `at`: no clock, no randomness, no environment, nothing
/// global, and nothing whose order varies, such as iterating a `HashMap`. The book's page on folds says what
/// else, and why.
///
/// A fold does not fail. Refuse a change *before* it becomes an event; once it is one, it has happened. A fold
/// that panics halts its key on this pod, at the value before the event.
///
/// ```
/// use std::time::UNIX_EPOCH;
/// use via_backplane::{EventId, Fold, Offset, Recorded};
///
/// struct Added { by: i64 }
///
/// impl Fold<i64> for Added {
///     fn fold(self, count: &mut i64, _at: &Recorded) {
///         *count += self.by;
///     }
/// }
///
/// // A fold is tested by folding.
/// let mut count = 40;
/// let at = Recorded::new(Offset(7), EventId([1; 16]), UNIX_EPOCH);
/// Added { by: 2 }.fold(&mut count, &at);
/// assert_eq!(count, 42);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how it changes `{S}`",
    label = "no `Fold<{S}>` for this event",
    note = "write `impl Fold<{S}> for {Self} {{ fn fold(self, state: &mut {S}, at: &Recorded) {{ … }} }}`"
)]
pub trait Fold<S>: Sized {
    /// Changes `state` by this event, recorded `at`.
    fn fold(self, state: &mut S, at: &Recorded);
}

/// What the log knows about an event being folded: where it stands, which it is, and when it was appended.
///
/// The same on every pod, so a fold may use all of it: `time` is the clock of a fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    offset: Offset,
    id: EventId,
    time: SystemTime,
}

impl Recorded {
    /// Describes a record; for tests of folds. `time` should be whole microseconds, as it is in the log.
    #[must_use]
    pub fn new(offset: Offset, id: EventId, time: SystemTime) -> Self {
        Self { offset, id, time }
    }

    /// Where the record stands in its family's log.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Which event it is.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.id
    }

    /// When it was appended, by the clock of the pod that appended it, to the microsecond.
    ///
    /// Times of different pods may disagree with each other and with the order of the log. Order by
    /// [`offset`](Self::offset).
    #[must_use]
    pub fn time(&self) -> SystemTime {
        self.time
    }
}
