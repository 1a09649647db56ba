//! A consumer's cell as it is stored, and what may be made of it (PROTOCOL §5).

use std::time::Duration;

use bytes::Bytes;

use crate::{Cursor, Epoch, Family, Offset, RecordId, Selector, engine::owned_cell::Owned};

/// Records whose attempts are kept at a time: a consumer begins no more.
pub(super) const MAX_ATTEMPTED: usize = 1_024;

/// Which engine, as cells name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner(Bytes);

impl Owner {
    pub(super) fn of(bits: u128) -> Self {
        Self(Bytes::copy_from_slice(&bits.to_be_bytes()))
    }
}

/// See `proto/consumer.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ConsumerCell {
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(bytes = "bytes", tag = "3")]
    owner: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    epoch: Bytes,
    #[prost(uint64, tag = "5")]
    committed: u64,
    #[prost(bytes = "bytes", tag = "6")]
    committed_id: Bytes,
    #[prost(uint32, tag = "7")]
    deaths: u32,
    #[prost(message, repeated, tag = "8")]
    attempted: Vec<Attempted>,
    #[prost(uint32, tag = "9")]
    pub(super) spread: u32,
    #[prost(bool, tag = "10")]
    pub(super) paused: bool,
    #[prost(string, tag = "11")]
    successor: String,
    #[prost(message, optional, tag = "12")]
    pub(super) needs: Option<Needs>,
    #[prost(string, tag = "13")]
    successor_of: String,
    #[prost(string, tag = "16")]
    instance: String,
    #[prost(string, tag = "17")]
    error: String,
    #[prost(uint64, tag = "18")]
    lease_millis: u64,
}

/// A record that was attempted and not handled.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Attempted {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(uint32, tag = "2")]
    attempts: u32,
}

/// An event that the last owner could not decode.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Needs {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint32, tag = "2")]
    pub(super) version: u32,
}

impl Owned for ConsumerCell {
    const FORMAT: u32 = 1;
}

impl ConsumerCell {
    /// A consumer that nobody has run yet, and that wants what is above `start`.
    pub(super) fn new(of: &Selector, start: Cursor) -> Self {
        let mut cell = Self { instance: instance_of(of).to_owned(), ..Self::default() };
        cell.seek(start);
        cell
    }

    /// Whether these are the records that it is about.
    pub(super) fn is_of(&self, selector: &Selector) -> bool {
        self.instance == instance_of(selector)
    }

    /// The instance it is about; `None` if it is about the whole family.
    pub(super) fn instance(&self) -> Option<&str> {
        (!self.instance.is_empty()).then_some(self.instance.as_str())
    }

    /// Why the first record above `committed` was not handled, as far as is written down.
    pub(super) fn error(&self) -> Option<&str> {
        (!self.error.is_empty()).then_some(self.error.as_str())
    }

    /// Every record of the consumer up to here was handled.
    pub(super) fn committed(&self) -> Cursor {
        cursor(&self.epoch, self.committed, &self.committed_id)
    }

    pub(super) fn is_owned_by(&self, owner: &Owner) -> bool {
        self.owner == owner.0
    }

    /// Its owner, as people read it.
    pub(super) fn owner_text(&self) -> Option<String> {
        (!self.is_free()).then(|| self.owner.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    pub(super) fn is_free(&self) -> bool {
        self.owner.is_empty()
    }

    /// Whether anybody may run it.
    pub(super) fn is_active(&self) -> bool {
        !self.paused && self.successor.is_empty() && self.successor_of.is_empty()
    }

    /// Waits for its turn: it takes the place of a consumer that is not retired yet, as far as is written here.
    pub(super) fn waiting_for(mut self, prior: &str) -> Self {
        prior.clone_into(&mut self.successor_of);
        self
    }

    /// The consumer whose place it waits for.
    pub(super) fn waits_for(&self) -> Option<&str> {
        (!self.successor_of.is_empty()).then_some(self.successor_of.as_str())
    }

    /// Its turn has come: it begins after what the other one has committed.
    pub(super) fn succeed(&mut self, at: Cursor) {
        self.successor_of.clear();
        self.seek(at);
    }

    /// Hands over to another consumer for good: nobody but that one takes it any more, and it begins after what is committed then.
    pub(super) fn retire(&mut self, successor: &str) {
        successor.clone_into(&mut self.successor);
    }

    /// The consumer that has taken its place, or is about to.
    pub(super) fn retired_by(&self) -> Option<&str> {
        (!self.successor.is_empty()).then_some(self.successor.as_str())
    }

    /// Takes it over, from nobody or from an owner that has gone without a word: then whatever that had begun counts as attempted.
    /// `spread` is how many records the new owner may begin at once, and `lease` how long it holds it without a word.
    pub(super) fn claim(&mut self, owner: &Owner, spread: u32, lease: Duration) {
        if !self.is_free() && !self.is_owned_by(owner) {
            self.deaths = self.deaths.saturating_add(1);
        }
        if self.suspects() == 0 {
            self.spread = spread;
        }
        self.term += 1;
        self.owner = owner.0.clone();
        self.lease_millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        self.needs = None;
    }

    /// How long its owner holds it without a word, whatever others would.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_millis)
    }

    /// Gives it up, with everything in order.
    pub(super) fn release(&mut self) {
        self.owner = Bytes::new();
        self.spread = 0;
    }

    /// How many records its owner handles one by one before it may begin several at once: those that one which died may have begun.
    pub(super) fn suspects(&self) -> u32 {
        if self.deaths > 0 { self.spread.max(1) } else { 0 }
    }

    /// Every record up to here was handled.
    pub(super) fn commit(&mut self, to: Cursor) {
        if to.offset.0 > self.committed {
            self.deaths = 0;
            self.error.clear();
        }
        self.committed = to.offset.0;
        self.committed_id = Bytes::copy_from_slice(&to.id.0);
        self.attempted.retain(|attempted| attempted.offset > to.offset.0);
    }

    /// Has it go on somewhere else, or in another epoch. Nothing counts as attempted there.
    pub(super) fn seek(&mut self, to: Cursor) {
        self.epoch = Bytes::copy_from_slice(&to.epoch.0.to_be_bytes());
        self.committed = to.offset.0;
        self.committed_id =
            if to.id == RecordId::default() { Bytes::new() } else { Bytes::copy_from_slice(&to.id.0) };
        (self.deaths, self.spread) = (0, 0);
        self.attempted.clear();
        self.error.clear();
        self.needs = None;
    }

    /// How often a record was attempted, as far as is written down. The first one above `committed` is what kills its owners,
    /// if anything is: after a death its owner begins one record at a time.
    pub(super) fn attempts(&self, offset: Offset, is_first: bool) -> u32 {
        let deaths = if is_first { self.deaths } else { 0 };
        let found = self.attempted.binary_search_by_key(&offset.0, |attempted| attempted.offset);
        found.map_or(0, |at| self.attempted[at].attempts).saturating_add(deaths)
    }

    /// Writes down how often records above `committed` and up to `last` were attempted, deaths included; they come in the order of
    /// their offsets. Of the first one it says why.
    pub(super) fn note_attempts(
        &mut self,
        attempted: impl IntoIterator<Item = (Offset, u32)>,
        last: Offset,
        error: &str,
    ) {
        let above = self.attempted.iter().copied().filter(|attempted| attempted.offset > last.0);
        let noted = attempted.into_iter().map(|(Offset(offset), attempts)| Attempted { offset, attempts });
        let noted = noted.filter(|attempted| attempted.offset > self.committed);
        self.attempted = noted.chain(above).take(MAX_ATTEMPTED).collect();
        error.clone_into(&mut self.error);
        // Whoever writes this has counted them where they belong.
        self.deaths = 0;
    }
}

/// The name of a consumer among those of all families; it is also which of the dead letters are its own.
pub(super) fn full_name(family: &Family, consumer: &str) -> String {
    // The length keeps `a/b` and `c` from `a` and `b/c`.
    format!("{}/{family}/{consumer}", family.as_str().len())
}

fn cursor(epoch: &Bytes, offset: u64, id: &Bytes) -> Cursor {
    let id = id.as_ref().try_into().map(RecordId).unwrap_or_default();
    let epoch = epoch.as_ref().try_into().map(u128::from_be_bytes).unwrap_or_default();
    Cursor { epoch: Epoch(epoch), offset: Offset(offset), id }
}

fn instance_of(selector: &Selector) -> &str {
    match selector {
        Selector::Key(key) => key.instance_name().unwrap_or_default(),
        Selector::Family(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(7);
    const LEASE: Duration = Duration::from_secs(20);

    fn at(offset: u64) -> Cursor {
        Cursor { epoch: EPOCH, offset: Offset(offset), id: RecordId([offset as u8; 16]) }
    }

    fn of() -> Selector {
        Selector::Family(Family::new("orders").expect("a valid name"))
    }

    fn owner(bits: u128) -> Owner {
        Owner::of(bits)
    }

    #[test]
    fn a_takeover_after_a_death_is_an_attempt_of_the_first_record_alone() {
        let mut cell = ConsumerCell::new(&of(), at(10));
        cell.claim(&owner(1), 10, LEASE);
        assert_eq!((cell.term, cell.attempts(Offset(11), true)), (1, 0));
        cell.claim(&owner(2), 10, LEASE);
        cell.claim(&owner(3), 10, LEASE);
        assert_eq!((cell.term, cell.attempts(Offset(11), true), cell.attempts(Offset(12), false)), (3, 2, 0));
        cell.note_attempts([(Offset(11), 4), (Offset(12), 1)], Offset(12), "refused");
        assert_eq!(cell.error(), Some("refused"));
        assert_eq!((cell.attempts(Offset(11), true), cell.attempts(Offset(12), false)), (4, 1));
        cell.claim(&owner(4), 10, LEASE);
        assert_eq!(cell.attempts(Offset(11), true), 5);
        cell.commit(at(11));
        assert_eq!(
            (cell.attempts(Offset(12), true), cell.committed()),
            (1, at(11)),
            "the next one is none the worse"
        );
    }

    #[test]
    fn what_is_released_is_taken_by_anybody_and_counts_as_no_attempt() {
        let mut cell = ConsumerCell::new(&of(), at(0));
        cell.claim(&owner(1), 10, LEASE);
        assert!(cell.is_owned_by(&owner(1)) && !cell.is_free() && !cell.is_owned_by(&owner(2)));
        cell.release();
        assert!(cell.is_free());
        cell.claim(&owner(2), 10, LEASE);
        assert_eq!((cell.term, cell.attempts(Offset(1), true)), (2, 0));
    }

    #[test]
    fn a_seek_begins_afresh() {
        let mut cell = ConsumerCell::new(&of(), Cursor::begin(EPOCH));
        assert_eq!(cell.committed(), Cursor::begin(EPOCH));
        cell.claim(&owner(1), 10, LEASE);
        cell.claim(&owner(2), 10, LEASE);
        cell.note_attempts([(Offset(1), 9)], Offset(1), "");
        cell.seek(at(50));
        assert_eq!((cell.committed(), cell.attempts(Offset(51), true)), (at(50), 0));
        cell.seek(Cursor::begin(EPOCH));
        assert_eq!((cell.committed(), cell.attempts(Offset(1), true)), (Cursor::begin(EPOCH), 0));
    }

    #[test]
    fn attempts_of_records_that_were_not_met_again_are_kept() {
        let mut cell = ConsumerCell::new(&of(), at(10));
        cell.note_attempts([(Offset(11), 4), (Offset(19), 2)], Offset(20), "");
        cell.note_attempts([(Offset(11), 5)], Offset(12), "");
        assert_eq!((cell.attempts(Offset(11), true), cell.attempts(Offset(19), false)), (5, 2));
    }

    #[test]
    fn only_so_many_attempts_are_kept() {
        let mut cell = ConsumerCell::new(&of(), at(0));
        cell.note_attempts((0..5_000).map(|offset| (Offset(offset), 1)), Offset(5_000), "");
        assert_eq!(cell.attempted.len(), MAX_ATTEMPTED);
        assert_eq!(cell.attempted[0].offset, 1, "nothing is below what was committed");
    }

    #[test]
    fn names_are_told_apart() {
        let family = |name| Family::new(name).expect("a valid name");
        assert_ne!(full_name(&family("a/b"), "c"), full_name(&family("a"), "b/c"));
    }
}
