//! The records that an owner has taken from the log and not committed, in their order.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{Batch, Cursor, Epoch, Offset, Records, Stored};

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
    /// So many of the first slots are handled, and the next one is not.
    handled: usize,
    epoch: Epoch,
    /// Records that may be here at a time.
    most: usize,
    running: usize,
    is_abandoned: bool,
}

/// A record, where it came in: nothing is copied.
pub(super) struct Slot {
    records: Arc<dyn Records>,
    at: usize,
    offset: Offset,
    state: State,
    /// Attempts that failed, those of owners before this one included.
    pub(super) attempts: u32,
    /// It is attempted no more, and has yet to be written to the dead letters.
    pub(super) is_given_up: bool,
    /// Of those that failed here.
    failure: Option<Box<Failure>>,
}

/// What is known of attempts that this owner made.
struct Failure {
    /// Why the last one failed.
    cause: String,
    /// When the first one did.
    first: SystemTime,
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

impl Slot {
    pub(super) fn record(&self) -> Stored<'_> {
        self.records.get(self.at).expect("a slot that was not empty is not empty later")
    }

    /// Why the last attempt failed, if it was this owner's.
    pub(super) fn cause(&self) -> &str {
        self.failure.as_ref().map_or("", |failure| failure.cause.as_str())
    }

    /// When this owner's first attempt failed.
    pub(super) fn first_failed(&self) -> Option<SystemTime> {
        self.failure.as_ref().map(|failure| failure.first)
    }
}

impl Window {
    pub(super) fn new(epoch: Epoch, most: usize) -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            handled: 0,
            epoch,
            most: most.max(1),
            running: 0,
            is_abandoned: false,
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether one more record may be taken from the log.
    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < self.most
    }

    /// Takes the next record of the log, which is in a slot of a batch and was attempted so often before.
    pub(super) fn push(&mut self, batch: &Batch, at: usize, attempts: u32) {
        let offset = batch.record(at).expect("the slot of a record").offset;
        let (records, state) = (batch.records().clone(), State::Waits);
        self.slots.push_back(Slot {
            records,
            at,
            offset,
            state,
            attempts,
            is_given_up: false,
            failure: None,
        });
    }

    fn at(&self, id: SlotId) -> usize {
        usize::try_from(id.0 - self.first).expect("a window is no longer than memory")
    }

    pub(super) fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[self.at(id)]
    }

    /// How many are being attempted, or given up.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// The first record that was not handled.
    pub(super) fn first_open(&self) -> Option<&Slot> {
        self.slots.get(self.handled)
    }

    /// The last record that was taken from the log.
    pub(super) fn last(&self) -> Option<Offset> {
        self.slots.back().map(|slot| slot.offset)
    }

    /// The next record to attempt, if `concurrency` allows for one more: of a key only the first that was not handled. With a
    /// concurrency of one, nothing is attempted before everything before it was handled.
    pub(super) fn start_next(&mut self, now: Duration, concurrency: usize) -> Option<SlotId> {
        let index = self.next_to_start(now, concurrency)?;
        self.slots[index].state = State::Runs;
        self.running += 1;
        Some(SlotId(self.first + index as u64))
    }

    /// Whether [`start_next`](Self::start_next) would start one.
    pub(super) fn can_start(&self, now: Duration, concurrency: usize) -> bool {
        self.next_to_start(now, concurrency).is_some()
    }

    fn next_to_start(&self, now: Duration, concurrency: usize) -> Option<usize> {
        if self.running >= concurrency {
            return None;
        }
        let mut busy = HashSet::new();
        for (index, slot) in self.slots.iter().enumerate().skip(self.handled) {
            let is_startable = match slot.state {
                State::Handled => continue,
                State::Waits => true,
                State::Rests(until) => until <= now,
                State::Runs | State::Blocks => false,
            };
            if is_startable && (busy.is_empty() || !busy.contains(slot.record().key)) {
                return Some(index);
            }
            if concurrency == 1 {
                return None;
            }
            busy.insert(slot.record().key);
        }
        None
    }

    pub(super) fn handled(&mut self, id: SlotId) {
        self.end(id, State::Handled);
        let is_handled = |slot: &Slot| slot.state == State::Handled;
        while self.slots.get(self.handled).is_some_and(is_handled) {
            self.handled += 1;
        }
    }

    /// An attempt failed. What comes of it is yet to be said: [`rests`](Self::rests), or what was given up is handled.
    pub(super) fn failed(&mut self, id: SlotId, cause: String, at: SystemTime) {
        let index = self.at(id);
        let slot = &mut self.slots[index];
        slot.attempts = slot.attempts.saturating_add(1);
        match &mut slot.failure {
            Some(failure) => failure.cause = cause,
            None => slot.failure = Some(Box::new(Failure { cause, first: at })),
        }
    }

    /// It is attempted no more; whatever becomes of it counts as its being handled.
    pub(super) fn gives_up(&mut self, id: SlotId) {
        let index = self.at(id);
        self.slots[index].is_given_up = true;
    }

    /// It is not handled, and its turn comes again then.
    pub(super) fn rests(&mut self, id: SlotId, until: Duration) {
        self.end(id, State::Rests(until));
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
        self.slots.iter().skip(self.handled).filter_map(rests).min()
    }

    /// How many records can be committed.
    pub(super) fn handled_first(&self) -> usize {
        if self.is_abandoned { 0 } else { self.handled }
    }

    /// How many records can be committed, and the last of them.
    pub(super) fn committable(&self) -> Option<(usize, Cursor)> {
        if self.is_abandoned {
            return None;
        }
        let last = &self.slots[self.handled.checked_sub(1)?];
        let id = crate::envelope::record_id(last.record().bytes);
        Some((self.handled, Cursor { epoch: self.epoch, offset: last.offset, id }))
    }

    /// So many records were committed.
    pub(super) fn committed(&mut self, records: usize) {
        self.slots.drain(..records);
        self.first += records as u64;
        self.handled -= records;
    }

    /// Nothing of it is committed any more: the consumer goes on elsewhere.
    pub(super) fn abandon(&mut self) {
        self.is_abandoned = true;
    }

    /// Where a record stands that was not committed, by its place among them.
    pub(super) fn offset_at(&self, at: usize) -> Offset {
        self.slots[at].offset
    }

    /// How many of the records that were handled are at or below an offset.
    pub(super) fn handled_up_to(&self, offset: Offset) -> usize {
        self.slots.iter().take(self.handled).take_while(|slot| slot.offset <= offset).count()
    }

    /// Records that were attempted and not handled, with how often.
    pub(super) fn attempted(&self) -> impl Iterator<Item = (Offset, u32)> {
        let is_open = |slot: &&Slot| slot.state != State::Handled && slot.attempts > 0;
        self.slots.iter().skip(self.handled).filter(is_open).map(|slot| (slot.offset, slot.attempts))
    }

    /// The first record, if this pod cannot go past it.
    pub(super) fn blocked(&self) -> Option<&Slot> {
        self.slots.get(self.handled).filter(|slot| slot.state == State::Blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Key, OwnedRecord};

    fn record(offset: u64, instance: &str) -> OwnedRecord {
        let family = Family::new("orders").expect("a valid name");
        let key = Key::instance(&family, instance).expect("a valid name");
        OwnedRecord { offset: Offset(offset), key, bytes: vec![offset as u8].into() }
    }

    fn push(window: &mut Window, offset: u64, instance: &str, attempts: u32) {
        window.push(&Batch::of(Epoch(1), vec![record(offset, instance)]), 0, attempts);
    }

    fn window(records: &[(u64, &str)]) -> Window {
        let mut window = Window::new(Epoch(1), 100);
        records.iter().for_each(|(offset, instance)| push(&mut window, *offset, instance, 0));
        window
    }

    fn fails(window: &mut Window, id: SlotId, again_at: Duration) {
        window.failed(id, "refused".to_owned(), SystemTime::UNIX_EPOCH);
        window.rests(id, again_at);
    }

    fn start(window: &mut Window, concurrency: usize) -> Option<(u64, SlotId)> {
        let id = window.start_next(Duration::ZERO, concurrency)?;
        Some((window.slot(id).offset.0, id))
    }

    #[test]
    fn one_at_a_time_keeps_the_order_of_the_whole_log() {
        let mut window = window(&[(1, "a"), (2, "b")]);
        let (offset, first) = start(&mut window, 1).expect("the first");
        assert_eq!((offset, start(&mut window, 1)), (1, None));
        fails(&mut window, first, Duration::from_secs(5));
        assert_eq!(start(&mut window, 1), None, "the second waits for the first");
        assert_eq!(window.next_retry(), Some(Duration::from_secs(5)));
        let again = window.start_next(Duration::from_secs(5), 1).expect("it is time");
        assert_eq!((window.slot(again).offset.0, window.slot(again).attempts), (1, 1));
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
        assert_eq!(window.blocked().map(|slot| slot.offset), Some(Offset(2)));
        assert_eq!(start(&mut window, 2), None, "and the rest of its key with it");
    }

    #[test]
    fn there_is_room_for_as_many_as_may_be_open() {
        let mut window = Window::new(Epoch(1), 2);
        push(&mut window, 1, "a", 0);
        assert!(window.has_room());
        push(&mut window, 2, "b", 0);
        assert!(!window.has_room());
        let (_, first) = start(&mut window, 1).expect("a");
        window.handled(first);
        window.committed(1);
        assert!(window.has_room());
    }

    #[test]
    fn attempts_are_of_records_that_were_not_handled() {
        let mut window = Window::new(Epoch(1), 100);
        push(&mut window, 1, "a", 3);
        push(&mut window, 2, "b", 0);
        push(&mut window, 3, "c", 1);
        let (_, first) = start(&mut window, 3).expect("a");
        let (_, second) = start(&mut window, 3).expect("b");
        fails(&mut window, second, Duration::ZERO);
        window.handled(first);
        assert_eq!(window.attempted().collect::<Vec<_>>(), [(Offset(2), 1), (Offset(3), 1)]);
    }
}
