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
/// What is handled is committed as far as everything before it is: `committed` never passes a record that was not handled. Of
/// those there is no more than their number, and where the last one is.
pub(super) struct Window {
    /// So many records are handled, and everything before them.
    handled: usize,
    /// The last of them.
    last_handled: Option<Held>,
    /// Those that follow: the first of them is not handled.
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    /// The last record that was taken from the log.
    last: Option<Offset>,
    epoch: Epoch,
    /// Records that may be here at a time.
    most: usize,
    running: usize,
    resting: usize,
    is_abandoned: bool,
}

/// A record, where it came in: nothing is copied.
struct Held {
    records: Arc<dyn Records>,
    at: usize,
    offset: Offset,
}

/// A record that is not handled, or comes after one that is not.
pub(super) struct Slot {
    held: Held,
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

impl Held {
    fn record(&self) -> Stored<'_> {
        self.records.get(self.at).expect("a slot that was not empty is not empty later")
    }
}

impl Slot {
    pub(super) fn record(&self) -> Stored<'_> {
        self.held.record()
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
            handled: 0,
            last_handled: None,
            slots: VecDeque::new(),
            first: 0,
            last: None,
            epoch,
            most: most.max(1),
            running: 0,
            resting: 0,
            is_abandoned: false,
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether one more record may be taken from the log.
    pub(super) fn has_room(&self) -> bool {
        self.handled + self.slots.len() < self.most
    }

    /// Whether everything that was taken from the log is handled.
    pub(super) fn is_clear(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes the next record of the log, which is in a slot of a batch, at this offset, and was attempted so often before.
    pub(super) fn push(&mut self, batch: &Batch, at: usize, offset: Offset, attempts: u32) {
        let held = Held { records: batch.records().clone(), at, offset };
        let slot = Slot { held, state: State::Waits, attempts, is_given_up: false, failure: None };
        self.slots.push_back(slot);
        self.last = Some(offset);
    }

    /// Takes the next record of the log, as [`push`](Self::push) does, which is being attempted already.
    pub(super) fn push_begun(&mut self, batch: &Batch, at: usize, offset: Offset, attempts: u32) -> SlotId {
        self.push(batch, at, offset, attempts);
        let index = self.slots.len() - 1;
        self.slots[index].state = State::Runs;
        self.running += 1;
        SlotId(self.first + index as u64)
    }

    /// Takes the next record of the log, which is handled already, and so is everything before it.
    pub(super) fn push_handled(&mut self, batch: &Batch, at: usize, offset: Offset) {
        debug_assert!(self.is_clear(), "what is before it is handled");
        match &mut self.last_handled {
            // Counting who holds the records costs more than all of the rest.
            Some(last) if Arc::ptr_eq(&last.records, batch.records()) => {
                (last.at, last.offset) = (at, offset);
            }
            last => *last = Some(Held { records: batch.records().clone(), at, offset }),
        }
        self.handled += 1;
        self.last = Some(offset);
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
        self.slots.front()
    }

    /// The last record that was taken from the log.
    pub(super) fn last(&self) -> Option<Offset> {
        self.last
    }

    /// The next record to attempt, if `concurrency` allows for one more: of a key only the first that was not handled. With a
    /// concurrency of one, nothing is attempted before everything before it was handled.
    pub(super) fn start_next(&mut self, now: Duration, concurrency: usize) -> Option<SlotId> {
        let index = self.next_to_start(now, concurrency)?;
        let state = std::mem::replace(&mut self.slots[index].state, State::Runs);
        self.resting -= usize::from(matches!(state, State::Rests(_)));
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
        for (index, slot) in self.slots.iter().enumerate() {
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
        while let Some(slot) = self.slots.pop_front_if(|slot| slot.state == State::Handled) {
            self.last_handled = Some(slot.held);
            self.handled += 1;
            self.first += 1;
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
        self.resting += 1;
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
        if self.resting == 0 {
            return None;
        }
        let rests = |slot: &Slot| match slot.state {
            State::Rests(until) => Some(until),
            _ => None,
        };
        self.slots.iter().filter_map(rests).min()
    }

    /// How many records can be committed.
    pub(super) fn handled_first(&self) -> usize {
        if self.is_abandoned { 0 } else { self.handled }
    }

    /// How many records can be committed, and the last of them.
    pub(super) fn committable(&self) -> Option<(usize, Cursor)> {
        if self.is_abandoned || self.handled == 0 {
            return None;
        }
        let last = self.last_handled.as_ref()?;
        let id = crate::envelope::record_id(last.record().bytes);
        Some((self.handled, Cursor { epoch: self.epoch, offset: last.offset, id }))
    }

    /// So many records were committed.
    pub(super) fn committed(&mut self, records: usize) {
        self.handled -= records;
        if self.handled == 0 {
            self.last_handled = None;
        }
    }

    /// Nothing of it is committed any more: the consumer goes on elsewhere.
    pub(super) fn abandon(&mut self) {
        self.is_abandoned = true;
    }

    /// Records that were attempted and not handled, with how often.
    pub(super) fn attempted(&self) -> impl Iterator<Item = (Offset, u32)> {
        let is_open = |slot: &&Slot| slot.state != State::Handled && slot.attempts > 0;
        self.slots.iter().filter(is_open).map(|slot| (slot.held.offset, slot.attempts))
    }

    /// The first record, if this pod cannot go past it.
    pub(super) fn blocked(&self) -> Option<&Slot> {
        self.slots.front().filter(|slot| slot.state == State::Blocks)
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
        let batch = Batch::of(Epoch(1), vec![record(offset, instance)]);
        window.push(&batch, 0, Offset(offset), attempts);
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
        Some((window.slot(id).held.offset.0, id))
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
        assert_eq!((window.slot(again).held.offset.0, window.slot(again).attempts), (1, 1));
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
        assert_eq!(window.blocked().map(|slot| slot.held.offset), Some(Offset(2)));
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
