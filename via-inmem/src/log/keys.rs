//! The keys of a family.

use std::{collections::BTreeSet, ops::Bound};

use rapidhash::RapidHashMap;
use via_backplane::{Key, Page};

use super::{losses::KeyNumber, runs::Runs};

/// Every key that has a record, by name and by number. A key is never forgotten, because its head is always retained.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    numbers: RapidHashMap<Key, KeyNumber>,
    states: Vec<KeyState>,
    names: BTreeSet<Key>,
    recent: KeyNumber,
}

#[derive(Clone)]
pub(crate) struct KeyState {
    pub(crate) key: Key,
    /// The key's compaction mark, 0 until it was first compacted.
    pub(crate) floor: u64,
    pub(crate) runs: Runs,
}

impl Keys {
    pub(crate) fn find(&self, key: &Key) -> Option<KeyNumber> {
        if self.is_recent(key) {
            return Some(self.recent);
        }
        self.numbers.get(key).copied()
    }

    /// The number of a key that is about to get a record.
    pub(crate) fn number(&mut self, key: &Key) -> KeyNumber {
        // Appends come in runs of one key, and of clones of one `Key`: two pointers compare faster than a name hashes.
        if self.is_recent(key) {
            return self.recent;
        }
        self.recent = match self.numbers.get(key) {
            Some(number) => *number,
            None => self.add(key),
        };
        self.recent
    }

    fn is_recent(&self, key: &Key) -> bool {
        self.states.get(self.recent as usize).is_some_and(|state| state.key == *key)
    }

    fn add(&mut self, key: &Key) -> KeyNumber {
        let number = KeyNumber::try_from(self.states.len()).expect("a family has fewer than 2^32 keys");
        self.states.push(KeyState { key: key.clone(), floor: 0, runs: Runs::default() });
        self.numbers.insert(key.clone(), number);
        self.names.insert(key.clone());
        number
    }

    pub(crate) fn get(&self, number: KeyNumber) -> &KeyState {
        &self.states[number as usize]
    }

    pub(crate) fn get_mut(&mut self, number: KeyNumber) -> &mut KeyState {
        &mut self.states[number as usize]
    }

    /// The last offset of a key, 0 if it has no record.
    pub(crate) fn head(&self, key: &Key) -> u64 {
        self.find(key).map_or(0, |number| self.get(number).runs.head())
    }

    pub(crate) fn page(&self, page: &Page) -> Vec<Key> {
        let after = page.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.names.range((after, Bound::Unbounded)).take(page.limit).cloned().collect()
    }
}
