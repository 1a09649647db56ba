//! The records that an owner has taken from the log and not committed, in their order.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use crate::{Cursor, Epoch, Offset, OwnedRecord, RecordId};

/// Which record of a window, for as long as it is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotId(u64);

/// Records above what was committed, in the order of the log.
///
/// What is handled is committed as far as everything before it is: `committed` never passes a record that was not handled.
pub(super) struct Window {
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    epoch: Epoch,
    /// Records that may be here at a time.
    most: usize,
    running: usize,
}

pub(super) struct Slot {
    pub(super) record: OwnedRecord,
    id: RecordId,
    state: State,
    /// Attempts that failed, those of owners before this one included.
    pub(super) attempts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Runs,
    /// It failed, and is tried again then.
    Rests(Duration),
    Handled,
    /// This pod cannot go past it.
    Blocks,
}

impl Window {
    pub(super) fn new(epoch: Epoch, most: usize) -> Self {
        Self { slots: VecDeque::new(), first: 0, epoch, most: most.max(1), running: 0 }
    }

    /// Whether one more record may be taken from the log.
    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < self.most
    }

    /// Takes the next record of the log, which was attempted so often before.
    pub(super) fn push(&mut self, record: OwnedRecord, attempts: u32) {
        let id = crate::envelope::record_id(&record.bytes);
        self.slots.push_back(Slot { record, id, state: State::Waits, attempts });
    }

    fn at(&self, id: SlotId) -> usize {
        usize::try_from(id.0 - self.first).expect("a window is no longer than memory")
    }

    pub(super) fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[self.at(id)]
    }

    /// The next record to attempt, if `concurrency` allows for one more: of a key only the first that was not handled. With a
    /// concurrency of one, nothing is attempted before everything before it was handled.
    pub(super) fn start_next(&mut self, now: Duration, concurrency: usize) -> Option<SlotId> {
        if self.running >= concurrency {
            return None;
        }
        let mut busy = HashSet::new();
        let mut found = None;
        for (index, slot) in self.slots.iter().enumerate() {
            match slot.state {
                State::Handled => continue,
                State::Waits if !busy.contains(&slot.record.key) => found = Some(index),
                State::Rests(until) if until <= now && !busy.contains(&slot.record.key) => {
                    found = Some(index);
                }
                _ => {}
            }
            if found.is_some() || concurrency == 1 {
                break;
            }
            busy.insert(&slot.record.key);
        }
        let index = found?;
        self.slots[index].state = State::Runs;
        self.running += 1;
        Some(SlotId(self.first + index as u64))
    }

    pub(super) fn handled(&mut self, id: SlotId) {
        self.end(id, State::Handled);
    }

    pub(super) fn failed(&mut self, id: SlotId, again_at: Duration) {
        self.end(id, State::Rests(again_at));
        let at = self.at(id);
        self.slots[at].attempts = self.slots[at].attempts.saturating_add(1);
    }

    pub(super) fn blocks(&mut self, id: SlotId) {
        self.end(id, State::Blocks);
    }

    fn end(&mut self, id: SlotId, state: State) {
        self.running -= 1;
        let at = self.at(id);
        self.slots[at].state = state;
    }

    /// When the first of those that rest is tried again.
    pub(super) fn next_retry(&self) -> Option<Duration> {
        let rests = |slot: &Slot| match slot.state {
            State::Rests(until) => Some(until),
            _ => None,
        };
        self.slots.iter().filter_map(rests).min()
    }

    /// How many records can be committed, and the last of them.
    pub(super) fn committable(&self) -> Option<(usize, Cursor)> {
        let handled = self.slots.iter().take_while(|slot| slot.state == State::Handled).count();
        let last = &self.slots[handled.checked_sub(1)?];
        Some((handled, Cursor { epoch: self.epoch, offset: last.record.offset, id: last.id }))
    }

    /// So many records were committed.
    pub(super) fn committed(&mut self, records: usize) {
        self.slots.drain(..records);
        self.first += records as u64;
    }

    /// Records that were attempted and not handled, with how often.
    pub(super) fn attempted(&self) -> impl Iterator<Item = (Offset, u32)> {
        let is_open = |slot: &&Slot| slot.state != State::Handled && slot.attempts > 0;
        self.slots.iter().filter(is_open).map(|slot| (slot.record.offset, slot.attempts))
    }

    /// The first record, if this pod cannot go past it.
    pub(super) fn blocked(&self) -> Option<&Slot> {
        self.slots.front().filter(|slot| slot.state == State::Blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Key};

    fn record(offset: u64, instance: &str) -> OwnedRecord {
        let family = Family::new("orders").expect("a valid name");
        let key = Key::instance(&family, instance).expect("a valid name");
        OwnedRecord { offset: Offset(offset), key, bytes: vec![offset as u8].into() }
    }

    fn window(records: &[(u64, &str)]) -> Window {
        let mut window = Window::new(Epoch(1), 100);
        records.iter().for_each(|(offset, instance)| window.push(record(*offset, instance), 0));
        window
    }

    fn start(window: &mut Window, concurrency: usize) -> Option<(u64, SlotId)> {
        let id = window.start_next(Duration::ZERO, concurrency)?;
        Some((window.slot(id).record.offset.0, id))
    }

    #[test]
    fn one_at_a_time_keeps_the_order_of_the_whole_log() {
        let mut window = window(&[(1, "a"), (2, "b")]);
        let (offset, first) = start(&mut window, 1).expect("the first");
        assert_eq!((offset, start(&mut window, 1)), (1, None));
        window.failed(first, Duration::from_secs(5));
        assert_eq!(start(&mut window, 1), None, "the second waits for the first");
        assert_eq!(window.next_retry(), Some(Duration::from_secs(5)));
        let again = window.start_next(Duration::from_secs(5), 1).expect("it is time");
        assert_eq!((window.slot(again).record.offset.0, window.slot(again).attempts), (1, 1));
    }

    #[test]
    fn of_a_key_one_is_attempted_at_a_time_whatever_the_concurrency() {
        let mut window = window(&[(1, "a"), (2, "a"), (3, "b"), (4, "c")]);
        let (one, first) = start(&mut window, 2).expect("a");
        let (three, third) = start(&mut window, 2).expect("b");
        assert_eq!((one, three, start(&mut window, 2)), (1, 3, None));
        window.handled(third);
        assert_eq!(window.committable(), None, "the first was not handled");
        let (four, _) = start(&mut window, 2).expect("c");
        assert_eq!(four, 4);
        window.handled(first);
        assert_eq!(window.committable().map(|(records, to)| (records, to.offset)), Some((1, Offset(1))));
        window.committed(1);
        let (two, second) = start(&mut window, 2).expect("the next of a");
        window.handled(second);
        assert_eq!(
            (two, window.committable().map(|(records, to)| (records, to.offset))),
            (2, Some((2, Offset(3))))
        );
    }

    #[test]
    fn what_blocks_holds_up_its_key_and_is_told_once_it_is_first() {
        let mut window = window(&[(1, "a"), (2, "b"), (3, "b")]);
        let (_, first) = start(&mut window, 2).expect("a");
        let (_, second) = start(&mut window, 2).expect("b");
        window.blocks(second);
        assert!(window.blocked().is_none());
        window.handled(first);
        window.committed(1);
        assert_eq!(window.blocked().map(|slot| slot.record.offset), Some(Offset(2)));
        assert_eq!(start(&mut window, 2), None, "and the rest of its key with it");
    }

    #[test]
    fn there_is_room_for_as_many_as_may_be_open() {
        let mut window = Window::new(Epoch(1), 2);
        window.push(record(1, "a"), 0);
        assert!(window.has_room());
        window.push(record(2, "b"), 0);
        assert!(!window.has_room());
        let (_, first) = start(&mut window, 1).expect("a");
        window.handled(first);
        window.committed(1);
        assert!(window.has_room());
    }

    #[test]
    fn attempts_are_of_records_that_were_not_handled() {
        let mut window = Window::new(Epoch(1), 100);
        window.push(record(1, "a"), 3);
        window.push(record(2, "b"), 0);
        window.push(record(3, "c"), 1);
        let (_, first) = start(&mut window, 3).expect("a");
        let (_, second) = start(&mut window, 3).expect("b");
        window.failed(second, Duration::ZERO);
        window.handled(first);
        assert_eq!(window.attempted().collect::<Vec<_>>(), [(Offset(2), 1), (Offset(3), 1)]);
    }
}
