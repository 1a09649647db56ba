//! What the pods know of a key's log in one epoch: what must be kept, and what may go.

use bytes::Bytes;

use super::manifest::{read_epoch, store_epoch};
use crate::{Epoch, Offset};

/// Offsets of undecodable records that are kept one by one; beyond them a range.
const MAX_UNDECODABLE: usize = 64;
/// The most losses a key may have accepted at a time.
pub(super) const MAX_ACCEPTED: usize = 256;
/// Epochs that are remembered: a pod that has not noticed a new log yet must not push out what is known of it.
const MAX_EPOCHS: usize = 4;

/// What is known of one epoch of a key's log.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LogNotes {
    #[prost(bytes = "bytes", tag = "1")]
    epoch: Bytes,
    /// Undecodable records, in order.
    #[prost(uint64, repeated, tag = "2")]
    undecodable: Vec<u64>,
    /// From here, above all of `undecodable`, and up to `unlisted_to`, some more are not listed one by one; 0: none.
    #[prost(uint64, tag = "3")]
    unlisted_from: u64,
    #[prost(uint64, tag = "4")]
    unlisted_to: u64,
    /// Pods disagreed here; 0: they do not.
    #[prost(uint64, tag = "5")]
    diverged: u64,
    /// Undecodable records whose loss was accepted, in order.
    #[prost(uint64, repeated, tag = "6")]
    accepted: Vec<u64>,
    /// Records below may be gone; 0: all are there.
    #[prost(uint64, tag = "7")]
    compacting_to: u64,
}

impl LogNotes {
    fn new(epoch: Epoch) -> Self {
        Self { epoch: store_epoch(epoch), ..Self::default() }
    }

    /// The notes of this epoch, made if there are none. The oldest are forgotten when there are too many.
    pub(super) fn of(all: &mut Vec<Self>, epoch: Epoch) -> &mut Self {
        let found = all.iter().position(|notes| notes.epoch() == epoch);
        let index = found.unwrap_or_else(|| {
            if all.len() >= MAX_EPOCHS {
                all.remove(0);
            }
            all.push(Self::new(epoch));
            all.len() - 1
        });
        &mut all[index]
    }

    pub(crate) fn epoch(&self) -> Epoch {
        read_epoch(&self.epoch)
    }

    /// Whether these notes say nothing.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::new(self.epoch())
    }

    /// Undecodable records that are known one by one, in order.
    #[cfg(test)]
    pub(crate) fn undecodable(&self) -> impl Iterator<Item = Offset> {
        self.undecodable.iter().copied().map(Offset)
    }

    /// Whether there are more than [`undecodable`](Self::undecodable) tells.
    #[cfg(test)]
    pub(crate) fn has_unlisted(&self) -> bool {
        self.unlisted_to > 0
    }

    /// Where pods disagreed.
    #[cfg(test)]
    pub(crate) fn diverged(&self) -> Option<Offset> {
        (self.diverged > 0).then_some(Offset(self.diverged))
    }

    /// Undecodable records whose loss was accepted, in order.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = Offset> {
        self.accepted.iter().copied().map(Offset)
    }

    /// Whether the loss of this record was accepted.
    pub(crate) fn has_accepted(&self, offset: Offset) -> bool {
        self.accepted.binary_search(&offset.0).is_ok()
    }

    /// Below here compaction was confirmed; records may be gone.
    pub(crate) fn compacting_to(&self) -> Offset {
        Offset(self.compacting_to)
    }

    /// The lowest record that must stay, if there is one.
    pub(super) fn lowest_hold(&self) -> Option<Offset> {
        // Since when they disagree nobody knows.
        if self.diverged > 0 {
            return Some(Offset::BEGIN);
        }
        let unlisted = (self.unlisted_to > 0).then_some(self.unlisted_from);
        self.undecodable.first().copied().or(unlisted).map(Offset)
    }

    pub(super) fn hold(&mut self, offset: Offset) {
        let offset = offset.0;
        let Err(index) = self.undecodable.binary_search(&offset) else { return };
        let is_unlisted = self.unlisted_to > 0 && offset >= self.unlisted_from;
        if is_unlisted || index == MAX_UNDECODABLE {
            return self.hold_unlisted(offset);
        }
        self.undecodable.insert(index, offset);
        if self.undecodable.len() > MAX_UNDECODABLE {
            let highest = self.undecodable.pop().expect("it is longer than its limit");
            self.hold_unlisted(highest);
        }
    }

    fn hold_unlisted(&mut self, offset: u64) {
        self.unlisted_from = if self.unlisted_to == 0 { offset } else { self.unlisted_from.min(offset) };
        self.unlisted_to = self.unlisted_to.max(offset);
    }

    /// Everything up to here was folded after all.
    pub(super) fn release_up_to(&mut self, offset: Offset) {
        self.undecodable.retain(|&held| held > offset.0);
        if self.unlisted_to <= offset.0 {
            (self.unlisted_from, self.unlisted_to) = (0, 0);
        } else {
            self.unlisted_from = self.unlisted_from.max(offset.0.saturating_add(1));
        }
    }

    /// Accepts the loss of one record; false if there is no more room.
    pub(super) fn accept(&mut self, offset: Offset) -> bool {
        let offset = offset.0;
        if let Err(index) = self.accepted.binary_search(&offset) {
            if self.accepted.len() >= MAX_ACCEPTED {
                return false;
            }
            self.accepted.insert(index, offset);
        }
        self.undecodable.retain(|&held| held != offset);
        // Of a range only the ends can be told apart.
        if self.unlisted_to == offset && self.unlisted_from == offset {
            (self.unlisted_from, self.unlisted_to) = (0, 0);
        } else if self.unlisted_to > 0 && self.unlisted_from == offset {
            self.unlisted_from += 1;
        } else if self.unlisted_to == offset {
            self.unlisted_to -= 1;
        }
        true
    }

    pub(super) fn diverge(&mut self, offset: Offset) {
        let offset = offset.0.max(1);
        self.diverged = if self.diverged == 0 { offset } else { self.diverged.min(offset) };
    }

    pub(super) fn agree(&mut self) {
        self.diverged = 0;
    }

    /// Forgets what was true of a log that was replaced, though its epoch was kept. What is held stays held: it costs little.
    pub(super) fn forget_log(&mut self) {
        self.compacting_to = 0;
        self.accepted.clear();
    }

    /// Allows records below `before` to be dropped. Losses accepted below `forgotten` will not be met again.
    pub(super) fn compact(&mut self, before: Offset, forgotten: Offset) {
        self.compacting_to = self.compacting_to.max(before.0);
        self.accepted.retain(|&offset| offset >= forgotten.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> LogNotes {
        LogNotes::new(Epoch(7))
    }

    fn hold_all(notes: &mut LogNotes, offsets: impl IntoIterator<Item = u64>) {
        offsets.into_iter().for_each(|offset| notes.hold(Offset(offset)));
    }

    #[test]
    fn held_offsets_are_in_order_and_each_once() {
        let mut notes = notes();
        hold_all(&mut notes, [9, 3, 9, 5, 3]);
        assert_eq!(notes.undecodable().collect::<Vec<_>>(), [Offset(3), Offset(5), Offset(9)]);
        assert_eq!(notes.lowest_hold(), Some(Offset(3)));
        assert!(!notes.has_unlisted());
    }

    #[test]
    fn beyond_the_limit_the_lowest_are_listed_and_none_is_forgotten() {
        let mut notes = notes();
        hold_all(&mut notes, (1..=100).rev().map(|n| n * 10));
        assert_eq!(
            notes.undecodable().collect::<Vec<_>>(),
            (1..=64).map(|n| Offset(n * 10)).collect::<Vec<_>>()
        );
        assert!(notes.has_unlisted());
        notes.release_up_to(Offset(640));
        assert_eq!(notes.lowest_hold(), Some(Offset(650)));
        // Known by its range alone, so a part of it counts as the rest.
        notes.release_up_to(Offset(700));
        assert_eq!(notes.lowest_hold(), Some(Offset(701)));
        notes.release_up_to(Offset(1000));
        assert_eq!(notes.lowest_hold(), None);
        assert!(!notes.has_unlisted());
    }

    #[test]
    fn what_lies_in_the_range_is_not_listed_when_there_is_room_again() {
        let mut notes = notes();
        hold_all(&mut notes, 1..=70);
        notes.release_up_to(Offset(60));
        notes.hold(Offset(68));
        notes.hold(Offset(80));
        notes.hold(Offset(62));
        assert_eq!(notes.undecodable().collect::<Vec<_>>(), (61..=64).map(Offset).collect::<Vec<_>>());
        notes.release_up_to(Offset(70));
        assert_eq!(notes.lowest_hold(), Some(Offset(71)), "80 is somewhere above");
    }

    #[test]
    fn an_accepted_loss_holds_nothing() {
        let mut notes = notes();
        hold_all(&mut notes, 1..=66);
        for offset in (1..=66).rev() {
            assert!(notes.accept(Offset(offset)));
        }
        assert_eq!(notes.lowest_hold(), None);
        assert!(!notes.has_unlisted());
        assert!(notes.has_accepted(Offset(65)) && !notes.has_accepted(Offset(67)));
    }

    #[test]
    fn accepted_losses_have_a_limit_and_leave_with_their_records() {
        let mut notes = notes();
        for offset in 1..=MAX_ACCEPTED as u64 {
            assert!(notes.accept(Offset(offset)));
        }
        assert!(!notes.accept(Offset(1_000)));
        assert!(notes.accept(Offset(5)), "it is accepted already");
        notes.compact(Offset(100), Offset(100));
        assert_eq!(notes.accepted().next(), Some(Offset(100)));
        assert!(notes.accept(Offset(1_000)));
    }

    #[test]
    fn a_divergence_holds_everything() {
        let mut notes = notes();
        notes.hold(Offset(5));
        notes.diverge(Offset(30));
        notes.diverge(Offset(20));
        assert_eq!((notes.diverged(), notes.lowest_hold()), (Some(Offset(20)), Some(Offset::BEGIN)));
        notes.agree();
        assert_eq!((notes.diverged(), notes.lowest_hold()), (None, Some(Offset(5))));
    }

    #[test]
    fn a_pod_of_an_old_log_pushes_out_nothing_new() {
        let mut all = Vec::new();
        for epoch in 1..=4 {
            LogNotes::of(&mut all, Epoch(epoch)).hold(Offset(9));
        }
        LogNotes::of(&mut all, Epoch(1)).hold(Offset(10));
        assert_eq!(all.iter().map(LogNotes::epoch).collect::<Vec<_>>(), [1, 2, 3, 4].map(Epoch));
        LogNotes::of(&mut all, Epoch(5)).hold(Offset(9));
        assert_eq!(all.iter().map(LogNotes::epoch).collect::<Vec<_>>(), [2, 3, 4, 5].map(Epoch));
    }
}
