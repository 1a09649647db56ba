//! The backplane itself: what pods share, and the handle each of them holds.

use std::{fmt, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use via_backplane::{BackendError, Backplane, Compactor, EventLog, Family, Feed, Limits, Reply, Store};

use crate::{
    feed::Topics,
    log::{Holes, Log},
    pod::Pod,
    store::Cells,
};

/// A backplane in this process's memory.
///
/// Each clone is one pod's connection to the same memory: several engines over clones of one `InMemory` are several
/// pods of one cluster, and [`close`](Backplane::close) ends what was opened through that clone alone. The memory
/// is freed with the last clone and the last stream.
///
/// ```
/// use via_backplane::Backplane;
/// use via_inmem::InMemory;
///
/// let backplane = InMemory::new();
/// assert_eq!(backplane.name(), "memory");
/// let smaller = InMemory::builder().max_record(1024).build();
/// assert_eq!(smaller.limits().max_record, 1024);
/// ```
pub struct InMemory {
    pub(crate) pod: Pod,
}

/// What the pods of one cluster share.
pub(crate) struct Memory {
    pub(crate) limits: Limits,
    pub(crate) families: papaya::HashMap<Family, Arc<Log>, rapidhash::fast::RandomState>,
    pub(crate) cells: Arc<Cells>,
    pub(crate) topics: Arc<Topics>,
    holes: Holes,
    seed: u64,
}

impl Memory {
    /// The family's log. Asking for a family brings it into being, so that its epoch is settled.
    pub(crate) fn family(&self, family: &Family) -> Arc<Log> {
        let families = self.families.pin();
        if let Some(log) = families.get(family) {
            return log.clone();
        }
        let fresh = || Arc::new(Log::new(self.draw(family.as_str(), 0), self.holes));
        families.get_or_insert_with(family.clone(), fresh).clone()
    }

    /// A name for a generation: different for each `of` and `generation`, the same for one seed.
    pub(crate) fn draw(&self, of: &str, generation: u64) -> u128 {
        let of = rapidhash::v3::rapidhash_v3(of.as_bytes());
        SmallRng::seed_from_u64(self.seed ^ of.wrapping_add(generation.rotate_left(32))).random()
    }
}

impl InMemory {
    /// An empty memory with the default [limits](Builder).
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// An empty memory with chosen limits.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Default for InMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for InMemory {
    /// Another pod's connection to the same memory, open even where this one is closed.
    fn clone(&self) -> Self {
        Self { pod: Pod::new(self.pod.memory.clone()) }
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory").field("limits", &self.pod.memory.limits).finish_non_exhaustive()
    }
}

impl Backplane for InMemory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn log(&self) -> &dyn EventLog {
        &self.pod
    }

    fn store(&self) -> &dyn Store {
        &self.pod
    }

    fn compactor(&self) -> Option<&dyn Compactor> {
        Some(&self.pod)
    }

    fn feed(&self) -> Option<&dyn Feed> {
        Some(&self.pod)
    }

    fn limits(&self) -> Limits {
        self.pod.memory.limits
    }

    fn ping(&self) -> Reply<'_, Result<(), BackendError>> {
        Reply::ready(self.pod.open())
    }

    fn close(&self) -> Reply<'_, ()> {
        self.pod.close();
        Reply::ready(())
    }
}

/// Chooses what a memory holds at most.
///
/// The defaults are those of a common server: records, cells and messages of 1 MiB, 1,000 records per append, and append
/// ids remembered for two minutes.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    limits: Limits,
    holes: Holes,
    seed: Option<u64>,
}

impl Default for Builder {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        let limits = Limits {
            max_record: MIB,
            max_batch: 1000,
            max_cell: MIB,
            max_message: MIB,
            id_window: Duration::from_secs(120),
        };
        Self { limits, holes: Holes::default(), seed: None }
    }
}

impl Builder {
    /// The largest record, in bytes.
    pub fn max_record(mut self, bytes: usize) -> Self {
        self.limits.max_record = bytes;
        self
    }

    /// The most records one append may have.
    pub fn max_batch(mut self, records: usize) -> Self {
        self.limits.max_batch = records;
        self
    }

    /// The largest cell, in bytes.
    pub fn max_cell(mut self, bytes: usize) -> Self {
        self.limits.max_cell = bytes;
        self
    }

    /// The largest feed message, in bytes.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.limits.max_message = bytes;
        self
    }

    /// How long append ids are remembered.
    pub fn id_window(mut self, window: Duration) -> Self {
        self.limits.id_window = window;
        self
    }

    /// Makes epochs and the store's incarnation the same in every run, for simulations.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Compacts as JetStream does: what is gone is gone, and no reader is told.
    ///
    /// Without it a tail learns from the batches themselves which keys lost records, and would pass tests in which it has
    /// to find out by itself.
    #[cfg(any(test, feature = "testing"))]
    pub fn silent_compaction(mut self) -> Self {
        self.holes = Holes::Silent;
        self
    }

    /// The empty memory.
    #[must_use]
    pub fn build(self) -> InMemory {
        let seed = self.seed.unwrap_or_else(rand::random);
        let mut memory = Memory {
            limits: self.limits,
            families: papaya::HashMap::default(),
            cells: Arc::default(),
            topics: Arc::default(),
            holes: self.holes,
            seed,
        };
        memory.cells = Arc::new(Cells::new(memory.draw("store", 0)));
        InMemory { pod: Pod::new(Arc::new(memory)) }
    }
}
