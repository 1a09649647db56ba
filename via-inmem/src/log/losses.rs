//! Which keys lost records to compaction, found by where a reader stands.

use std::{collections::BTreeMap, ops::Bound};

use rapidhash::RapidHashMap;

/// A key's number within its family.
pub(crate) type KeyNumber = u32;

/// Whether readers are told which keys lost records. The contract leaves it to the adapter (L3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Holes {
    #[default]
    Told,
    #[cfg(any(test, feature = "testing"))]
    Silent,
}

/// What compaction dropped, per key: the span of it, never the offsets.
///
/// Its size is that of the keys that were ever compacted. A reader's question costs what it answers, because each
/// index leads straight to the keys concerned:
///
/// - a reader that crosses a key's *first* dropped offset has lost that record for certain;
/// - a reader already between a key's first and *last* dropped offsets may have lost more ahead of it, so it is told once,
///   when it arrives or when (*turn*) the key is compacted again.
///
/// So a key is named before its missing records are passed, sometimes early, never late.
#[derive(Clone, Default)]
pub(crate) struct Losses {
    spans: RapidHashMap<KeyNumber, Span>,
    by_first: BTreeMap<u64, KeyNumber>,
    by_last: BTreeMap<u64, KeyNumber>,
    by_turn: BTreeMap<u64, KeyNumber>,
    turn: u64,
}

#[derive(Clone, Copy)]
struct Span {
    first: u64,
    last: u64,
    turn: u64,
}

/// How far a reader has followed compactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn(Option<u64>);

impl Turn {
    /// Of a reader that was told nothing yet.
    pub(crate) const START: Self = Self(None);
}

impl Losses {
    /// Notes that a key's records from `first` to `last`, where it had any, are being dropped.
    pub(crate) fn note(&mut self, key: KeyNumber, first: u64, last: u64) {
        self.turn += 1;
        let turn = self.turn;
        let span = match self.spans.remove(&key) {
            Some(old) => {
                self.by_last.remove(&old.last);
                self.by_turn.remove(&old.turn);
                Span { last, turn, ..old }
            }
            None => Span { first, last, turn },
        };
        self.spans.insert(key, span);
        self.by_first.insert(span.first, key);
        self.by_last.insert(last, key);
        self.by_turn.insert(turn, key);
    }

    /// The keys a family's reader has to be told of before it goes from `after` to `to`.
    pub(crate) fn crossed(&self, after: u64, to: u64, seen: &mut Turn) -> Vec<KeyNumber> {
        let above = |offset| (Bound::Excluded(offset), Bound::Unbounded);
        let mut keys: Vec<_> =
            self.by_first.range((Bound::Excluded(after), Bound::Included(to))).map(|(_, key)| *key).collect();
        let straddles = |key: &KeyNumber| {
            let span = self.spans[key];
            span.first <= after && after < span.last
        };
        match seen.0 {
            None => keys.extend(self.by_last.range(above(after)).map(|(_, key)| *key).filter(straddles)),
            Some(turn) => keys.extend(self.by_turn.range(above(turn)).map(|(_, key)| *key).filter(straddles)),
        }
        *seen = Turn(Some(self.turn));
        keys
    }

    /// Whether a reader of one key that stands at `after` has to be told.
    pub(crate) fn ahead(&self, key: KeyNumber, after: u64, seen: &mut Turn) -> bool {
        let Some(span) = self.spans.get(&key) else { return false };
        let news = seen.0.is_none_or(|turn| turn < span.turn);
        *seen = Turn(Some(span.turn));
        news && after < span.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_told_of_a_key_once_before_it_passes_the_first_missing_record() {
        let mut losses = Losses::default();
        losses.note(7, 10, 30);
        let mut seen = Turn::START;
        assert!(losses.crossed(0, 9, &mut seen).is_empty());
        assert_eq!(losses.crossed(9, 10, &mut seen), [7]);
        assert!(losses.crossed(10, 50, &mut seen).is_empty());
    }

    #[test]
    fn a_reader_that_arrives_in_the_middle_is_told_at_once_and_one_behind_is_not() {
        let mut losses = Losses::default();
        losses.note(7, 10, 30);
        assert_eq!(losses.crossed(15, 16, &mut Turn::START.clone()), [7]);
        assert!(losses.crossed(30, 90, &mut Turn::START.clone()).is_empty());
    }

    #[test]
    fn a_compaction_ahead_of_a_running_reader_is_told_and_one_behind_it_is_not() {
        let mut losses = Losses::default();
        let mut seen = Turn::START;
        assert!(losses.crossed(0, 20, &mut seen).is_empty());
        losses.note(7, 10, 15);
        losses.note(8, 11, 40);
        assert_eq!(losses.crossed(20, 21, &mut seen), [8]);
        losses.note(8, 11, 60);
        assert_eq!(losses.crossed(21, 22, &mut seen), [8]);
        assert!(losses.crossed(22, 99, &mut seen).is_empty());
    }
}
