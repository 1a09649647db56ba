//! Dead letters: events that a consumer has given up, as events of their own.
//!
//! They are an event-sourced state like any other, of the family [`FAMILY`], with an instance for each consumer. So they outlive
//! pods, are the same on all of them, and are compacted behind snapshots. A letter is known by the place of its record, so that a
//! deposed owner and its successor give up an event once.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Epoch, Family, Fold, InvalidKey, Key, Offset, Recorded};

/// The family that all dead letters of an app are in.
pub(super) const FAMILY: &str = "via/dead-letters";
/// The most letters a consumer may have. Beyond that it gives up no event, and stands still.
pub(super) const MAX_LETTERS: usize = 10_000;
/// The most bytes of records a consumer's letters may hold: their state is written whole with every snapshot.
pub(super) const MAX_LETTER_BYTES: usize = 64 << 20;
/// How many letters are remembered that were dealt with: what a deposed owner still gives up late is not given up anew.
const REMEMBERED: usize = 1_024;

/// Where the record stands that a letter is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Place {
    epoch: [u8; 16],
    pub(super) offset: Offset,
}

impl Place {
    pub(super) fn new(epoch: Epoch, offset: Offset) -> Self {
        Self { epoch: epoch.0.to_be_bytes(), offset }
    }

    pub(super) fn epoch(self) -> Epoch {
        Epoch(u128::from_be_bytes(self.epoch))
    }
}

/// What happens to dead letters.
#[derive(Debug, Clone, Serialize, Deserialize, crate::Event)]
#[event(name = "via.dead_letter")]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Happened {
    /// An event was given up.
    Buried(Burial),
    /// Somebody wants these handled again.
    Wanted { places: Vec<Place> },
    /// The owner of this term is about to handle one again.
    Begun { place: Place, term: u64 },
    /// One was handled after all.
    Handled { place: Place },
    /// Somebody dropped these.
    Dropped { places: Vec<Place> },
    /// What a newer binary knows and this one does not.
    #[serde(other)]
    Unknown,
}

/// One event that was given up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Burial {
    pub(super) place: Place,
    /// The instance it is of; none if it is of the family's plain key.
    pub(super) instance: Option<String>,
    /// The record as the log held it.
    pub(super) record: Raw,
    pub(super) attempts: u32,
    pub(super) cause: String,
    /// Microseconds since 1970, by the clock of the pod that gave it up.
    pub(super) first_failed: u64,
    pub(super) last_failed: u64,
    /// How often it had been wanted again by then.
    pub(super) wanted: u32,
}

/// Bytes that are written as bytes, and not as numbers one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw(pub(super) bytes::Bytes);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_byte_buf(RawVisitor)
    }
}

struct RawVisitor;

impl de::Visitor<'_> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Raw, E> {
        Ok(Raw(bytes::Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Raw, E> {
        Ok(Raw(bytes.into()))
    }
}

/// The dead letters of one consumer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Letters {
    letters: BTreeMap<Place, Letter>,
    /// What was dealt with last, the oldest first.
    settled: VecDeque<Place>,
    bytes: usize,
}

/// One of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Letter {
    pub(super) burial: Burial,
    /// How often it was wanted again.
    pub(super) wanted: u32,
    /// It is to be handled again, by whoever owns the consumer.
    pub(super) is_wanted: bool,
    /// The term of the owner that has begun to, if one has.
    #[serde(default)]
    pub(super) begun: Option<u64>,
}

impl Letters {
    pub(super) fn get(&self, place: Place) -> Option<&Letter> {
        self.letters.get(&place)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Letter> {
        self.letters.values()
    }

    /// Those that are to be handled again.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Letter> {
        self.letters.values().filter(|letter| letter.is_wanted)
    }

    /// Whether one more may be kept.
    pub(super) fn has_room(&self, record: usize) -> bool {
        self.letters.len() < MAX_LETTERS && self.bytes.saturating_add(record) <= MAX_LETTER_BYTES
    }

    /// Whether a burial would change nothing: it was buried before, or dealt with since.
    pub(super) fn knows(&self, burial: &Burial) -> bool {
        match self.letters.get(&burial.place) {
            Some(letter) => !(letter.is_wanted && letter.wanted == burial.wanted),
            None => self.settled.contains(&burial.place),
        }
    }

    fn bury(&mut self, burial: Burial) {
        if self.knows(&burial) {
            return;
        }
        match self.letters.get_mut(&burial.place) {
            Some(letter) => {
                let first_failed = letter.burial.first_failed;
                (letter.is_wanted, letter.begun) = (false, None);
                letter.burial = Burial { first_failed, ..burial };
            }
            None => {
                self.bytes += burial.record.0.len();
                let letter = Letter { wanted: 0, is_wanted: false, begun: None, burial };
                self.letters.insert(letter.burial.place, letter);
            }
        }
    }

    fn settle(&mut self, place: Place) {
        let Some(letter) = self.letters.remove(&place) else { return };
        self.bytes = self.bytes.saturating_sub(letter.burial.record.0.len());
        if self.settled.len() == REMEMBERED {
            self.settled.pop_front();
        }
        self.settled.push_back(place);
    }
}

impl Fold<Letters> for Happened {
    fn fold(self, letters: &mut Letters, _at: &Recorded) {
        match self {
            Self::Buried(burial) => letters.bury(burial),
            Self::Wanted { places } => {
                for place in places {
                    if let Some(letter) = letters.letters.get_mut(&place).filter(|letter| !letter.is_wanted) {
                        letter.is_wanted = true;
                        letter.wanted += 1;
                    }
                }
            }
            Self::Begun { place, term } => {
                if let Some(letter) = letters.letters.get_mut(&place).filter(|letter| letter.is_wanted) {
                    letter.begun = Some(term);
                }
            }
            Self::Handled { place } => letters.settle(place),
            Self::Dropped { places } => places.into_iter().for_each(|place| letters.settle(place)),
            Self::Unknown => {}
        }
    }
}

/// Whose event a letter is about.
pub(super) fn key_of(family: &Family, burial: &Burial) -> Result<Key, InvalidKey> {
    match &burial.instance {
        Some(instance) => Key::instance(family, instance),
        None => Ok(Key::of(family)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{CodecId, Event as _, EventId};

    fn place(offset: u64) -> Place {
        Place::new(Epoch(7), Offset(offset))
    }

    fn burial(offset: u64, wanted: u32) -> Happened {
        Happened::Buried(Burial {
            place: place(offset),
            instance: None,
            record: Raw(bytes::Bytes::from_static(b"record")),
            attempts: 3,
            cause: "refused".to_owned(),
            first_failed: 10,
            last_failed: 20 + u64::from(wanted),
            wanted,
        })
    }

    fn fold(letters: &mut Letters, happened: Happened) {
        // What is folded is what came back from the log.
        let mut payload = Vec::new();
        happened.encode(&mut payload).expect("it encodes");
        let happened = Happened::decode(1, CodecId::MESSAGE_PACK, &payload).expect("it was just written");
        happened.fold(letters, &Recorded::new(Offset(1), EventId([0; 16]), UNIX_EPOCH));
    }

    fn state(letters: &Letters) -> Vec<(u64, u32, bool)> {
        letters.iter().map(|letter| (letter.burial.place.offset.0, letter.wanted, letter.is_wanted)).collect()
    }

    #[test]
    fn an_event_is_buried_once_whoever_buries_it() {
        let mut letters = Letters::default();
        fold(&mut letters, burial(5, 0));
        fold(&mut letters, burial(5, 0));
        fold(&mut letters, burial(3, 0));
        assert_eq!(state(&letters), [(3, 0, false), (5, 0, false)]);
        assert_eq!(letters.bytes, 12);
    }

    #[test]
    fn a_letter_that_is_wanted_again_is_buried_again_only_by_what_was_tried_then() {
        let mut letters = Letters::default();
        fold(&mut letters, burial(5, 0));
        fold(&mut letters, Happened::Wanted { places: vec![place(5), place(9)] });
        assert_eq!(state(&letters), [(5, 1, true)]);
        fold(&mut letters, burial(5, 0));
        assert_eq!(state(&letters), [(5, 1, true)], "a deposed owner is late");
        fold(&mut letters, Happened::Wanted { places: vec![place(5)] });
        assert_eq!(state(&letters), [(5, 1, true)], "it is wanted already");
        fold(&mut letters, burial(5, 1));
        assert_eq!(state(&letters), [(5, 1, false)]);
        let letter = letters.get(place(5)).expect("it is there");
        assert_eq!((letter.burial.first_failed, letter.burial.last_failed), (10, 21));
    }

    #[test]
    fn who_has_begun_a_letter_is_known_until_it_has_an_end() {
        let mut letters = Letters::default();
        let begun = |letters: &Letters| letters.get(place(5)).expect("it is there").begun;
        fold(&mut letters, burial(5, 0));
        fold(&mut letters, Happened::Begun { place: place(5), term: 3 });
        assert_eq!(begun(&letters), None, "nobody wants it");
        fold(&mut letters, Happened::Wanted { places: vec![place(5)] });
        fold(&mut letters, Happened::Begun { place: place(5), term: 3 });
        fold(&mut letters, Happened::Begun { place: place(5), term: 4 });
        assert_eq!(begun(&letters), Some(4));
        fold(&mut letters, burial(5, 1));
        assert_eq!(begun(&letters), None);
        fold(&mut letters, Happened::Wanted { places: vec![place(5)] });
        assert_eq!(begun(&letters), None, "it is another time");
    }

    #[test]
    fn what_was_dealt_with_stays_so() {
        let mut letters = Letters::default();
        for offset in [5, 6] {
            fold(&mut letters, burial(offset, 0));
        }
        fold(&mut letters, Happened::Handled { place: place(5) });
        fold(&mut letters, Happened::Dropped { places: vec![place(6), place(7)] });
        assert_eq!((state(&letters), letters.bytes), (vec![], 0));
        fold(&mut letters, burial(5, 0));
        fold(&mut letters, burial(6, 0));
        assert_eq!(state(&letters), []);
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let mut letters = Letters::default();
        for offset in 0..MAX_LETTERS as u64 {
            assert!(letters.has_room(6), "{offset}");
            fold(&mut letters, burial(offset, 0));
        }
        assert!(!letters.has_room(6));
        fold(&mut letters, Happened::Dropped { places: vec![place(7)] });
        assert!(letters.has_room(6));
        assert!(!letters.has_room(MAX_LETTER_BYTES));
    }
}
