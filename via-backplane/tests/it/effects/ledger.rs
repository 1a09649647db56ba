//! What handlers have done, on all pods, and what has to be true of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use tokio::time::Instant;
use via_backplane::{Delivery, Offset};

use super::world::Placed;

/// Which pod, and which of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) index: u64,
    pub(super) life: u64,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}.{}", self.index, self.life)
    }
}

/// One attempt, from when it began.
#[derive(Debug, Clone)]
struct Attempt {
    pod: Pod,
    began: Instant,
    term: u64,
    offset: Offset,
    key: String,
    attempt: u32,
    /// It was given up before: such a one comes beside the others, and out of order.
    is_redriven: bool,
}

/// Everything that was attempted.
#[derive(Default)]
pub(super) struct Ledger {
    attempts: Vec<Attempt>,
    handled: BTreeSet<Offset>,
    /// Those that run now, by pod and key, with their terms.
    running: BTreeMap<(u64, u64, String), u64>,
    pub(super) violations: Vec<String>,
}

impl Ledger {
    /// Terms count on where another consumer takes the first one's place.
    pub(super) fn begins(
        &mut self,
        pod: Pod,
        delivery: &Delivery<Placed>,
        term: u64,
        at: Instant,
        is_redriven: bool,
    ) {
        let Delivery { offset, attempt, .. } = *delivery;
        let key = delivery.key.to_string();
        if !is_redriven {
            let run = (pod.index, pod.life, key.clone());
            if self.running.insert(run, term) == Some(term) {
                self.violations.push(format!("{pod} handles two events of {key} at a time"));
            }
        }
        self.attempts.push(Attempt { pod, began: at, term, offset, key, attempt, is_redriven });
    }

    pub(super) fn ends(&mut self, pod: Pod, delivery: &Delivery<Placed>, is_handled: bool) {
        self.running.remove(&(pod.index, pod.life, delivery.key.to_string()));
        if is_handled {
            self.handled.insert(delivery.offset);
        }
    }

    pub(super) fn is_handled(&self, offset: Offset) -> bool {
        self.handled.contains(&offset)
    }

    pub(super) fn has_terms_on_both_sides_of(&self, term: u64) -> bool {
        let is_above = |attempt: &Attempt| attempt.term > term;
        self.attempts.iter().any(is_above) && !self.attempts.iter().all(is_above)
    }

    pub(super) fn len(&self) -> usize {
        self.attempts.len()
    }

    /// Terms never overlap in what they begin, and belong to one pod each; within one, a key's events begin in order.
    pub(super) fn check_terms(&mut self) {
        // By the order in which they began: one that hands over and the next may begin in the same instant.
        let mut spans = BTreeMap::<u64, (Pod, usize, usize)>::new();
        let mut last = BTreeMap::<(u64, String), Offset>::new();
        for (number, attempt) in self.attempts.iter().enumerate() {
            let Attempt { pod, term, offset, key, is_redriven, .. } = attempt;
            let span = spans.entry(*term).or_insert((*pod, number, number));
            if span.0 != *pod {
                self.violations.push(format!("term {term} is {}'s and {pod}'s", span.0));
            }
            span.2 = number;
            if *is_redriven {
                continue;
            }
            let before = last.insert((*term, key.clone()), *offset);
            if before.is_some_and(|before| before > *offset) {
                self.violations.push(format!("in term {term}, {offset} of {key} began after {before:?}"));
            }
        }
        let spans: Vec<_> = spans.into_iter().collect();
        for pair in spans.windows(2) {
            let [(one, (_, _, last)), (other, (_, first, _))] = pair else { unreachable!("a pair") };
            if last >= first {
                let late = self.attempts[*last].began - self.attempts[*first].began;
                self.violations.push(format!("term {one} began something {late:?} after term {other} had"));
            }
        }
    }

    /// No event is attempted more often than is allowed, however many pods died of it.
    pub(super) fn check_attempts(&mut self, most: u32) {
        let beyond = self.attempts.iter().find(|attempt| attempt.attempt > most);
        if let Some(Attempt { offset, attempt, .. }) = beyond {
            self.violations.push(format!("{offset} has an attempt number {attempt} of {most}"));
        }
    }
}
