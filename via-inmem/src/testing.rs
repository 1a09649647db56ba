//! What an operator can do to a log or a store, for tests.

use std::fmt;

use via_backplane::{Epoch, Family};

use crate::{InMemory, log::State};

/// A log as it was, to be put back later: a copy of the store's directory.
///
/// It shares the records with the log and costs its index.
#[derive(Clone)]
pub struct LogCopy {
    family: Family,
    state: State,
}

impl fmt::Debug for LogCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogCopy")
            .field("family", &self.family)
            .field("epoch", &self.state.epoch)
            .field("head", &self.state.head)
            .finish_non_exhaustive()
    }
}

impl InMemory {
    /// Deletes a family's log and creates it anew: another epoch, and offsets start over. Its subscriptions end with
    /// an error.
    pub fn recreate_log(&self, family: &Family) {
        let memory = &self.pod.memory;
        let log = memory.family(family);
        let epoch = memory.draw(family.as_str(), log.generation() + 1);
        log.replace(State::new(Epoch(epoch)));
    }

    /// Copies a family's log with everything that is kept with it: floors, and remembered append ids.
    #[must_use]
    pub fn copy_log(&self, family: &Family) -> LogCopy {
        LogCopy { family: family.clone(), state: self.pod.memory.family(family).state.lock().copy() }
    }

    /// Puts an older copy of a log back in place under the same epoch, so that new appends reuse offsets (PROTOCOL 1: a
    /// restored directory keeps names, ids and creation time). Its subscriptions end with an error.
    pub fn restore_log(&self, copy: &LogCopy) {
        self.pod.memory.family(&copy.family).replace(copy.state.clone().fresh());
    }

    /// Deletes the store and creates it anew: another incarnation, and revisions start over. Its watches end with an
    /// error.
    pub fn recreate_store(&self) {
        let memory = &self.pod.memory;
        memory.cells.recreate(|generation| memory.draw("store", generation));
    }
}

impl State {
    /// A copy that shares nothing that is still written to.
    fn copy(&mut self) -> Self {
        // Both go on in chunks of their own; the one that was open stays as it is, shared.
        self.open_next();
        self.clone()
    }

    /// A copy may be put back more than once, and each time is written on from here.
    fn fresh(mut self) -> Self {
        self.open_next();
        self
    }
}

#[cfg(test)]
mod tests;
