//! What may go wrong, and how likely.

use std::time::Duration;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A call takes its time, before it is sent or before it is answered; an item of a stream comes late.
    Delay,
    /// A write is committed and its ack is lost: `MaybeCommitted`.
    LostAck,
    /// A call is refused before anything is sent: `Unavailable`.
    Refused,
    /// A write is lost before it is committed, and nobody can tell: `MaybeCommitted`.
    LostRequest,
    /// A write is answered `MaybeCommitted` and lands later, just before a later write of the same pod.
    LateCommit,
    /// A subscription or a watch ends with an error.
    Disconnect,
    /// A load answers an older value than the present one.
    StaleLoad,
    /// The pod stops for ever at a step: no call returns, no stream yields.
    Stop,
    /// The whole backend is unreachable.
    Interrupt,
    /// The pod stands still for a while: its calls and its streams wait.
    Pause,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Delay,
        Self::LostAck,
        Self::Refused,
        Self::LostRequest,
        Self::LateCommit,
        Self::Disconnect,
        Self::StaleLoad,
        Self::Stop,
        Self::Interrupt,
        Self::Pause,
    ];

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// How likely each fault is, from which seed, and when the pod stops.
///
/// Without odds it is the plan in which nothing goes wrong.
#[derive(Debug, Clone)]
#[must_use = "a plan does nothing until a backplane is wrapped with it"]
pub struct Plan {
    pub(crate) seed: Option<u64>,
    pub(crate) odds: [f64; Kind::ALL.len()],
    pub(crate) max_delay: Duration,
    pub(crate) max_staleness: Duration,
    pub(crate) stop_after: Option<u64>,
}

impl Plan {
    /// Nothing goes wrong by itself, and calls that need no waiting go straight through.
    pub fn none() -> Self {
        Self {
            seed: None,
            odds: [0.0; Kind::ALL.len()],
            max_delay: Duration::from_millis(100),
            max_staleness: Duration::MAX,
            stop_after: None,
        }
    }

    /// Faults decided by this seed; none until [`odds`](Self::odds) are given.
    pub fn seeded(seed: u64) -> Self {
        Self { seed: Some(seed), ..Self::none() }
    }

    /// How likely a fault is at each call or item that it can strike, from 0 to 1.
    ///
    /// [`Kind::Stop`], [`Kind::Interrupt`] and [`Kind::Pause`] have no odds: see [`stop_after`](Self::stop_after),
    /// [`Link::interrupt`](super::Link::interrupt) and [`Faults::pause`](super::Faults::pause).
    ///
    /// # Panics
    /// If the odds are not between 0 and 1, or are given for a kind that has none.
    pub fn odds(mut self, kind: Kind, odds: f64) -> Self {
        assert!((0.0..=1.0).contains(&odds), "odds are between 0 and 1, not {odds}");
        let is_told = matches!(kind, Kind::Stop | Kind::Interrupt | Kind::Pause);
        assert!(!is_told, "{kind:?} is not a matter of odds");
        self.odds[kind.index()] = odds;
        self
    }

    /// How long a delay is at most; 100 ms if not said.
    pub fn max_delay(mut self, time: Duration) -> Self {
        self.max_delay = time;
        self
    }

    /// How long ago a stale answer was right at most, as far as this pod has seen; without limit if not said.
    pub fn max_staleness(mut self, time: Duration) -> Self {
        self.max_staleness = time;
        self
    }

    /// Stops the pod for ever at this step, counted from 1: see [`Faults::steps`](super::Faults::steps).
    pub fn stop_after(mut self, steps: u64) -> Self {
        self.stop_after = Some(steps);
        self
    }
}
