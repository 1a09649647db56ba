//! A control cell as it is stored, and what may be made of it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Epoch, Offset, engine::owned_cell::Owned};

/// The most consumers of one family: the cell is written whole with every change.
pub(crate) const MAX_CONSUMERS: usize = 1_024;

/// Where a consumer stands at least: nothing at or above is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) epoch: Epoch,
    pub(crate) offset: Offset,
}

/// What consumers of single instances need of them: such a one keeps its own instance from being compacted, and no other.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Pinned(BTreeMap<String, Offset>);

impl Pinned {
    /// Below which offset an instance's records may go, as far as its own consumers say.
    pub(crate) fn limit(&self, instance: &str) -> Offset {
        self.0.get(instance).copied().unwrap_or(Offset(u64::MAX))
    }
}

/// See `proto/control.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ControlCell {
    #[prost(bytes = "bytes", tag = "2")]
    epoch: Bytes,
    #[prost(uint64, tag = "3")]
    pub(super) ceiling: u64,
    /// Sorted by name.
    #[prost(message, repeated, tag = "4")]
    pub(super) consumers: Vec<Consumer>,
    /// Drawn when the cell was made, and another one if it had to be made again: what one has announced, the other has not.
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) birth: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Consumer {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    pin: u64,
    /// The epoch of the pin, where it is not the cell's.
    #[prost(bytes = "bytes", tag = "3")]
    epoch: Bytes,
    /// The only instance it is about; empty if it is about all of them.
    #[prost(string, tag = "4")]
    instance: String,
}

impl Owned for ControlCell {
    const FORMAT: u32 = 1;
}

impl ControlCell {
    pub(super) fn new(epoch: Epoch, ceiling: Offset, birth: u128) -> Self {
        let birth = Bytes::copy_from_slice(&birth.to_be_bytes());
        Self { epoch: bytes_of(epoch), ceiling: ceiling.0, consumers: Vec::new(), birth }
    }

    /// The epoch of the ceiling; `None` if it is none.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        epoch_of(&self.epoch)
    }

    /// Goes over to another epoch. Nobody is forgotten: pins stay where they were, in the epoch they were of.
    pub(super) fn begin(&mut self, epoch: Epoch, before: Epoch, ceiling: Offset) {
        for consumer in &mut self.consumers {
            if consumer.epoch.is_empty() {
                consumer.epoch = bytes_of(before);
            } else if epoch_of(&consumer.epoch) == Some(epoch) {
                consumer.epoch = Bytes::new();
            }
        }
        self.epoch = bytes_of(epoch);
        self.ceiling = ceiling.0;
    }

    /// How high the ceiling may be raised. What a consumer of another epoch needs in this one nobody knows, so that nothing more is
    /// dropped until it was moved or forgotten.
    pub(super) fn highest_possible(&self) -> u64 {
        let of_pin =
            |consumer: &Consumer| if consumer.epoch.is_empty() { consumer.pin } else { self.ceiling };
        let of_family = self.consumers.iter().filter(|consumer| consumer.instance.is_empty());
        of_family.map(of_pin).min().unwrap_or(u64::MAX)
    }

    /// What consumers of single instances need. Of one whose pin is of another epoch nobody knows, so that nothing of its instance
    /// is dropped.
    pub(super) fn pinned(&self) -> Pinned {
        let mut pinned = BTreeMap::new();
        for consumer in self.consumers.iter().filter(|consumer| !consumer.instance.is_empty()) {
            let pin = if consumer.epoch.is_empty() { Offset(consumer.pin) } else { Offset::BEGIN };
            let lowest = pinned.entry(consumer.instance.clone()).or_insert(pin);
            *lowest = pin.min(*lowest);
        }
        Pinned(pinned)
    }

    /// The lowest offset that can be pinned under a name: what is announced may be gone, but for what the name itself keeps.
    pub(super) fn lowest_possible(&self, name: &str) -> u64 {
        let own = self.find(name).ok().map(|at| &self.consumers[at]).filter(|own| own.epoch.is_empty());
        own.map_or(self.ceiling, |own| own.pin.min(self.ceiling))
    }

    /// By name, with the instance that each is about.
    pub(super) fn pins(&self) -> Vec<(String, Option<String>, Pin)> {
        let of = |consumer: &Consumer| (!consumer.instance.is_empty()).then(|| consumer.instance.clone());
        self.consumers
            .iter()
            .map(|consumer| (consumer.name.clone(), of(consumer), self.pin_of(consumer)))
            .collect()
    }

    pub(super) fn pin(&self, name: &str) -> Option<Pin> {
        self.find(name).ok().map(|at| self.pin_of(&self.consumers[at]))
    }

    /// Pins an offset of the cell's epoch, for a consumer of all instances if its name is new.
    pub(super) fn set_pin(&mut self, name: &str, offset: Offset) -> Pin {
        self.pin_of_instance(name, None, offset)
    }

    /// Pins an offset of the cell's epoch, for a consumer of this instance if its name is new.
    pub(super) fn pin_of_instance(&mut self, name: &str, instance: Option<&str>, offset: Offset) -> Pin {
        match self.find(name) {
            Ok(at) => (self.consumers[at].pin, self.consumers[at].epoch) = (offset.0, Bytes::new()),
            Err(at) => {
                let (name, instance) = (name.to_owned(), instance.unwrap_or_default().to_owned());
                self.consumers.insert(at, Consumer { name, pin: offset.0, epoch: Bytes::new(), instance });
            }
        }
        Pin { epoch: self.epoch().unwrap_or_default(), offset }
    }

    pub(super) fn remove(&mut self, name: &str) -> bool {
        let found = self.find(name);
        found.map(|at| self.consumers.remove(at)).is_ok()
    }

    fn pin_of(&self, consumer: &Consumer) -> Pin {
        let epoch = if consumer.epoch.is_empty() { &self.epoch } else { &consumer.epoch };
        Pin { epoch: epoch_of(epoch).unwrap_or_default(), offset: Offset(consumer.pin) }
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.consumers.binary_search_by(|consumer| consumer.name.as_str().cmp(name))
    }
}

fn bytes_of(epoch: Epoch) -> Bytes {
    Bytes::copy_from_slice(&epoch.0.to_be_bytes())
}

fn epoch_of(bytes: &Bytes) -> Option<Epoch> {
    Some(Epoch(u128::from_be_bytes(bytes.as_ref().try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::PathBuf};

    use super::{
        super::super::{
            map_store::{Counting, MapStore},
            owned_cell::{self, Put},
        },
        *,
    };
    use crate::{Expected, internal_cell};

    /// A cell that is in its second epoch: one consumer has been moved into it, another has not.
    fn example() -> ControlCell {
        let mut cell = ControlCell::new(Epoch(0x0102_0304), Offset(70), 0x0b);
        cell.set_pin("ship", Offset(90));
        cell.set_pin("bill/eu", Offset(300));
        cell.pin_of_instance("watch", Some("eu"), Offset(80));
        cell.begin(Epoch(u128::MAX - 1), Epoch(0x0102_0304), Offset(5));
        cell.set_pin("ship", Offset(5));
        cell
    }

    /// `VIA_WRITE_GOLDEN=1` writes the file; only do so before a first release.
    #[tokio::test]
    async fn golden_control_cell() {
        let (store, key) = (MapStore::new(), internal_cell(&["control", "rooms"]));
        let put = owned_cell::put_at(&store, &Counting::from(7), &key, Expected::Absent, example()).await;
        assert!(matches!(put, Ok(Put::Written(_))), "{put:?}");
        let bytes = store.bytes(&key).expect("stored");
        let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/control-cell.bin");
        let readable = format!("{:#?}\n", example());
        if env::var_os("VIA_WRITE_GOLDEN").is_some() {
            fs::write(&golden, &bytes).expect("tests/golden can be written");
            fs::write(golden.with_extension("txt"), &readable).expect("tests/golden can be written");
        }
        let expected = fs::read(&golden).expect("a golden file");
        assert_eq!(bytes, expected, "every control cell written so far would be read wrongly");
        let text = fs::read_to_string(golden.with_extension("txt")).expect("a text beside it");
        assert_eq!(readable, text, "the text is out of date");
        store.overwrite(&key, expected);
        let held = owned_cell::load::<ControlCell>(&store, &key).await.expect("readable").expect("stored");
        assert_eq!(held.value, example());
    }

    #[test]
    fn a_pin_of_another_epoch_holds_the_ceiling_where_it_is() {
        let mut cell = example();
        assert_eq!(cell.highest_possible(), 5);
        cell.set_pin("ship", Offset(80));
        assert_eq!(cell.highest_possible(), 5, "of `bill/eu` nobody knows what it needs");
        cell.set_pin("bill/eu", Offset(60));
        assert_eq!(cell.highest_possible(), 60);
    }

    #[test]
    fn a_pin_of_an_instance_holds_that_one_alone() {
        let mut cell = ControlCell::new(Epoch(1), Offset(70), 7);
        cell.pin_of_instance("watch", Some("eu"), Offset(80));
        cell.pin_of_instance("count", Some("eu"), Offset(75));
        assert_eq!((cell.highest_possible(), cell.pinned().limit("eu")), (u64::MAX, Offset(75)));
        assert_eq!(cell.pinned().limit("us"), Offset(u64::MAX));
        cell.ceiling = 1_000;
        assert_eq!((cell.lowest_possible("count"), cell.lowest_possible("new")), (75, 1_000));
        cell.set_pin("count", Offset(90));
        assert_eq!(cell.pinned().limit("eu"), Offset(80), "it stays of its instance");
        cell.begin(Epoch(2), Epoch(1), Offset(0));
        assert_eq!(cell.pinned().limit("eu"), Offset::BEGIN, "nobody knows what it needs");
        assert_eq!(cell.lowest_possible("count"), 0);
    }

    #[test]
    fn a_pin_that_was_made_in_an_epoch_is_of_it_again() {
        let mut cell = ControlCell::new(Epoch(1), Offset(0), 7);
        cell.set_pin("ship", Offset(9));
        cell.begin(Epoch(2), Epoch(1), Offset(0));
        cell.begin(Epoch(1), Epoch(2), Offset(0));
        assert_eq!(cell.pin("ship"), Some(Pin { epoch: Epoch(1), offset: Offset(9) }));
        assert_eq!(cell.highest_possible(), 9);
    }
}
