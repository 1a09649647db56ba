//! The append ids a family remembers.

use std::{collections::VecDeque, time::Duration};

use rapidhash::RapidHashMap;
use tokio::time::Instant;
use via_backplane::AppendId;

use super::losses::KeyNumber;

/// How many expired ids one append forgets: more than it adds, so that the memory shrinks to the window.
const FORGET: usize = 4;

/// What was appended under which id, for as long as the window lasts. Compaction does not touch it.
#[derive(Clone, Default)]
pub(crate) struct Ids {
    known: RapidHashMap<(KeyNumber, AppendId), Known>,
    order: VecDeque<(Instant, KeyNumber, AppendId)>,
}

#[derive(Clone, Copy)]
struct Known {
    first: u64,
    count: usize,
    until: Instant,
}

impl Ids {
    /// The first offset and the number of offsets of the append that used this id within the window.
    pub(crate) fn recall(&self, key: KeyNumber, id: &AppendId, now: Instant) -> Option<(u64, usize)> {
        if self.known.is_empty() {
            return None;
        }
        let known = self.known.get(&(key, id.clone()))?;
        (now <= known.until).then_some((known.first, known.count))
    }

    pub(crate) fn remember(
        &mut self,
        key: KeyNumber,
        id: AppendId,
        (first, count): (u64, usize),
        now: Instant,
        window: Duration,
    ) {
        self.forget_expired(now);
        let Some(until) = now.checked_add(window) else { return };
        self.order.push_back((until, key, id.clone()));
        self.known.insert((key, id), Known { first, count, until });
    }

    fn forget_expired(&mut self, now: Instant) {
        for _ in 0..FORGET {
            if self.order.front().is_none_or(|(until, ..)| now <= *until) {
                return;
            }
            let Some((until, key, id)) = self.order.pop_front() else { return };
            let entry = (key, id);
            // The id may have been used anew since, and that use is remembered for its own window.
            if self.known.get(&entry).is_some_and(|known| known.until == until) {
                self.known.remove(&entry);
            }
        }
    }
}
