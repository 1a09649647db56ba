//! Keys that could let go of records: each once, and never more than a bounded number.

use std::{collections::BTreeMap, sync::Arc};

use metrics::{Counter, counter};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Family, Head, Key, Offset, engine::metrics::COMPACTION_POSTPONED};

/// Keys of a family that may wait to be compacted. One that finds no room comes again with its next snapshot.
const MAX_WAITING: usize = 4_096;

/// Where a family's keys are handed in for compaction. Cloning is a reference count.
#[derive(Clone)]
pub(crate) struct Candidates(Arc<Shared>);

struct Shared {
    /// Ordered, so that one seed gives one trace.
    waiting: Mutex<BTreeMap<Key, Wish>>,
    offered: Notify,
    postponed: Counter,
}

#[derive(Clone, Copy)]
struct Wish {
    before: Head,
    done: Offset,
}

/// A key that waits, and what was done for it so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) key: Key,
    /// What its previous snapshot covers ends here.
    pub(super) before: Head,
    /// The highest limit it was compacted at.
    pub(super) done: Offset,
}

impl Candidates {
    pub(super) fn new(family: &Family) -> Self {
        Self(Arc::new(Shared {
            waiting: Mutex::default(),
            offered: Notify::new(),
            postponed: counter!(COMPACTION_POSTPONED, "family" => family.as_str().to_owned()),
        }))
    }

    /// Hands in a key whose previous snapshot covers everything below `before`. Answers whether there was room for it.
    pub(crate) fn offer(&self, key: &Key, before: Head) -> bool {
        let has_room = self.put(key, Wish { before, done: Offset::BEGIN });
        if has_room {
            self.wake();
        } else {
            self.0.postponed.increment(1);
        }
        has_room
    }

    /// Waits for a key that was handed in. Cancel-safe.
    pub(super) async fn offered(&self) {
        self.0.offered.notified().await;
    }

    /// Has what waits looked at.
    pub(super) fn wake(&self) {
        self.0.offered.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.waiting.lock().is_empty()
    }

    /// Everything that waits, in the order of the keys.
    pub(super) fn take(&self) -> Vec<Candidate> {
        let waiting = std::mem::take(&mut *self.0.waiting.lock());
        let candidate = |(key, Wish { before, done })| Candidate { key, before, done };
        waiting.into_iter().map(candidate).collect()
    }

    /// Keeps a key for another time, beside what was handed in for it meanwhile.
    pub(super) fn put_back(&self, candidate: Candidate) {
        let Candidate { key, before, done } = candidate;
        if !self.put(&key, Wish { before, done }) {
            self.0.postponed.increment(1);
        }
    }

    fn put(&self, key: &Key, wish: Wish) -> bool {
        let mut waiting = self.0.waiting.lock();
        let has_room = waiting.len() < MAX_WAITING;
        match waiting.get_mut(key) {
            Some(known) if known.before.epoch == wish.before.epoch => {
                known.before.offset = known.before.offset.max(wish.before.offset);
                known.done = known.done.max(wish.done);
            }
            // Of two epochs nobody knows the later one here; the log does, when it is asked. A key that was handed in is newer
            // than one that is put back.
            Some(known) if wish.done == Offset::BEGIN => *known = wish,
            Some(_) => {}
            None if has_room => {
                waiting.insert(key.clone(), wish);
            }
            None => return false,
        }
        true
    }
}

impl Candidate {
    /// Its instance; empty where the key has none.
    pub(super) fn instance(&self) -> &str {
        self.key.instance_name().unwrap_or_default()
    }

    /// How far it may be compacted under this ceiling.
    pub(super) fn limit(&self, ceiling: Head) -> Offset {
        self.before.offset.min(ceiling.offset)
    }

    /// Whether it could let go of more under a higher ceiling.
    pub(super) fn has_more(&self) -> bool {
        self.done < self.before.offset
    }

    /// Ends what it wishes at the family's head; `false` if it wishes something of another log.
    pub(super) fn clamp(&mut self, head: Head) -> bool {
        self.before.offset = self.before.offset.min(head.offset);
        self.before.epoch == head.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    fn head(epoch: u128, offset: u64) -> Head {
        Head { epoch: Epoch(epoch), offset: Offset(offset) }
    }

    fn family() -> Family {
        Family::new("rooms").expect("a valid name")
    }

    fn room(n: usize) -> Key {
        Key::instance(&family(), n.to_string()).expect("a valid name")
    }

    #[test]
    fn a_key_waits_once_with_the_most_it_wished() {
        let candidates = Candidates::new(&family());
        for offset in [5, 9, 7] {
            assert!(candidates.offer(&room(1), head(1, offset)));
        }
        let Ok([mut only]) = <[_; 1]>::try_from(candidates.take()) else { panic!("one key") };
        assert_eq!((only.before, only.done), (head(1, 9), Offset::BEGIN));
        only.done = Offset(6);
        candidates.offer(&room(1), head(1, 12));
        candidates.put_back(only);
        let Ok([only]) = <[_; 1]>::try_from(candidates.take()) else { panic!("one key") };
        assert_eq!((only.before, only.done), (head(1, 12), Offset(6)), "what was done stays done");
        assert!(candidates.is_empty());
    }

    #[test]
    fn what_was_done_in_another_epoch_is_not_done() {
        let candidates = Candidates::new(&family());
        candidates.offer(&room(1), head(1, 5));
        let mut old = candidates.take();
        old[0].done = Offset(5);
        candidates.offer(&room(1), head(2, 3));
        candidates.put_back(old.remove(0));
        assert_eq!(candidates.take(), [Candidate { key: room(1), before: head(2, 3), done: Offset::BEGIN }]);
    }

    #[test]
    fn what_finds_no_room_is_told_and_what_waits_is_not_pushed_out() {
        let candidates = Candidates::new(&family());
        for n in 0..MAX_WAITING {
            assert!(candidates.offer(&room(n), head(1, 5)));
        }
        assert!(!candidates.offer(&room(MAX_WAITING), head(1, 5)));
        assert!(candidates.offer(&room(0), head(1, 6)), "a key that waits already needs no room");
        assert_eq!(candidates.take().len(), MAX_WAITING);
    }
}
