//! A projector's keys, by index: found once per run, not once per record.

use std::collections::HashMap;

use rapidhash::fast::RandomState;

use super::projection::{Copies, Halt, Published};
use crate::Key;

/// The copies of every key a projector has met.
pub(super) struct Keys<S> {
    index: HashMap<Key, usize, RandomState>,
    entries: Vec<Keyed<S>>,
    touched: Vec<usize>,
    last: usize,
}

struct Keyed<S> {
    key: Key,
    copies: Copies<S>,
    touched: bool,
    halted: bool,
    copying: bool,
}

impl<S> Default for Keys<S> {
    fn default() -> Self {
        Self { index: HashMap::default(), entries: Vec::new(), touched: Vec::new(), last: 0 }
    }
}

impl<S> Keys<S> {
    pub(super) fn is(&self, index: usize, key: &Key) -> bool {
        self.entries[index].key == *key
    }

    /// The key last found.
    pub(super) fn last(&self) -> Option<&Key> {
        self.entries.get(self.last).map(|entry| &entry.key)
    }

    pub(super) fn find_or_insert(&mut self, key: &Key, make: impl FnOnce() -> Copies<S>) -> usize {
        self.last = match self.index.get(key) {
            Some(&index) => index,
            None => {
                let index = self.entries.len();
                self.index.insert(key.clone(), index);
                let copies = make();
                self.entries.push(Keyed {
                    key: key.clone(),
                    copies,
                    touched: false,
                    halted: false,
                    copying: false,
                });
                index
            }
        };
        self.last
    }

    pub(super) fn copies(&mut self, index: usize) -> &mut Copies<S> {
        &mut self.entries[index].copies
    }

    /// Gives up every spare: together they lag too much.
    pub(super) fn give_up_spares(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.copies.give_up_the_spare());
    }

    pub(super) fn is_halted(&self, index: usize) -> bool {
        self.entries[index].halted
    }

    pub(super) fn set_halted(&mut self, index: usize) {
        self.entries[index].halted = true;
        self.touch(index);
    }

    /// Notes that a copy is being made; `false` if one already is.
    pub(super) fn start_copying(&mut self, index: usize) -> bool {
        !std::mem::replace(&mut self.entries[index].copying, true)
    }

    pub(super) fn stop_copying(&mut self, index: usize) {
        self.entries[index].copying = false;
    }

    /// Notes that readers have to be told.
    pub(super) fn touch(&mut self, index: usize) {
        if !std::mem::replace(&mut self.entries[index].touched, true) {
            self.touched.push(index);
        }
    }

    /// Wakes the readers of every key touched since the last time, each once.
    pub(super) fn announce_touched(&mut self) {
        for index in self.touched.drain(..) {
            let entry = &mut self.entries[index];
            entry.touched = false;
            entry.copies.announce();
        }
    }

    /// Puts every value back to the beginning and answers the halts that ended by it.
    pub(super) fn discard_values(&mut self) -> Vec<Halt>
    where
        S: Default,
    {
        let mut halts = Vec::new();
        for index in 0..self.entries.len() {
            let entry = &mut self.entries[index];
            (entry.halted, entry.copying) = (false, false);
            halts.extend(entry.copies.shared.halted());
            entry.copies.replace(Published::begin(), None);
            self.touch(index);
        }
        halts
    }
}
