//! A store in a map whose every call a test can make fail, wait or lie.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::ambient::Entropy;
use crate::{
    BackendError, CasError, CellKey, CellSelector, ErrorKind, Expected, Incarnation, Reply, Rev, Store,
    TooLarge, Ttl, Versioned, Watch,
};

/// What a call does instead of what it should. Faults of writes leave loads alone, but for [`Fault::Fail`] and the pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Takes effect, and answers that nobody knows.
    LoseAck,
    /// Takes no effect, and answers that nobody knows.
    LoseRequest,
    /// Takes no effect, and says so.
    Fail,
    /// A load answers what the cell was one write ago.
    Lag,
    /// Takes no effect and never answers: the pod died before it.
    Die,
    /// Takes effect and never answers: the pod died after it.
    DieAfter,
    /// Waits for [`MapStore::resume`] before it takes effect.
    Pause,
}

/// One pod's view of cells that it shares with its [`another`](Self::another)s; the script is this pod's alone.
pub(crate) struct MapStore {
    cells: Arc<Mutex<Cells>>,
    script: Mutex<Script>,
    paused: watch::Sender<bool>,
    max_cell: usize,
}

#[derive(Default)]
struct Cells {
    rev: u64,
    present: BTreeMap<CellKey, Stored>,
}

struct Stored {
    now: Versioned,
    before: Option<Versioned>,
    ttl: Ttl,
}

#[derive(Default)]
struct Script {
    calls: usize,
    /// By the number of the call, counted from 0.
    faults: BTreeMap<usize, Fault>,
    /// What every call from this number on does that is not in `faults`.
    from: Option<(usize, Fault)>,
}

impl MapStore {
    pub(crate) fn new() -> Self {
        Self::with_max_cell(1 << 20)
    }

    pub(crate) fn with_max_cell(max_cell: usize) -> Self {
        Self { cells: Arc::default(), script: Mutex::default(), paused: watch::Sender::new(false), max_cell }
    }

    /// Another pod on the same cells, with a script of its own.
    pub(crate) fn another(&self) -> Self {
        Self { cells: self.cells.clone(), ..Self::with_max_cell(self.max_cell) }
    }

    /// Makes the call number `call` of this pod, counted from 0, go wrong.
    pub(crate) fn script(self, call: usize, fault: Fault) -> Self {
        self.script.lock().faults.insert(call, fault);
        self
    }

    /// Makes every call from the number `call` on go wrong.
    pub(crate) fn from(self, call: usize, fault: Fault) -> Self {
        self.script.lock().from = Some((call, fault));
        self
    }

    /// Makes every call go wrong that has no fault of its own; `None` heals the pod.
    pub(crate) fn always(&self, fault: Option<Fault>) {
        self.script.lock().from = fault.map(|fault| (0, fault));
    }

    /// How many calls this pod made.
    pub(crate) fn calls(&self) -> usize {
        self.script.lock().calls
    }

    /// Returns once a call of this pod waits for [`resume`](Self::resume).
    pub(crate) async fn paused(&self) {
        let mut paused = self.paused.subscribe();
        paused.wait_for(|paused| *paused).await.expect("the sender is `self`'s");
    }

    /// Lets the call that waits take its effect.
    pub(crate) fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// The names of the cells there are, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.cells.lock().present.keys().map(ToString::to_string).collect()
    }

    /// What a cell holds.
    pub(crate) fn bytes(&self, key: &CellKey) -> Option<Bytes> {
        self.cells.lock().present.get(key).map(|stored| stored.now.bytes.clone())
    }

    /// How long a cell lives.
    pub(crate) fn ttl(&self, key: &CellKey) -> Option<Ttl> {
        self.cells.lock().present.get(key).map(|stored| stored.ttl)
    }

    /// Puts any bytes into a cell, as damage or a stranger would.
    pub(crate) fn overwrite(&self, key: &CellKey, bytes: impl Into<Bytes>) {
        self.cells.lock().put(key, bytes.into(), Ttl::Forever);
    }

    /// Takes a cell away, as its end or damage would.
    pub(crate) fn remove(&self, key: &CellKey) {
        self.cells.lock().remove(key);
    }

    fn next_fault(&self) -> Option<Fault> {
        let mut script = self.script.lock();
        let call = script.calls;
        script.calls += 1;
        let from = script.from.filter(|(from, _)| *from <= call).map(|(_, fault)| fault);
        script.faults.get(&call).copied().or(from)
    }

    /// Passes whatever keeps a call from reaching the store; answers the fault that is left.
    async fn reach(&self) -> Option<Fault> {
        let fault = self.next_fault();
        match fault {
            Some(Fault::Die) => std::future::pending().await,
            Some(Fault::Pause) => {
                self.paused.send_replace(true);
                let mut paused = self.paused.subscribe();
                paused.wait_for(|paused| !*paused).await.expect("the sender is `self`'s");
                None
            }
            fault => fault,
        }
    }

    async fn write<T>(&self, effect: impl FnOnce(&mut Cells) -> Result<T, CasError>) -> Result<T, CasError> {
        let fault = self.reach().await;
        match fault {
            Some(Fault::Fail) => return Err(CasError::Backend(unreachable())),
            Some(Fault::LoseRequest) => return Err(CasError::MaybeCommitted(unreachable())),
            _ => {}
        }
        let answer = effect(&mut self.cells.lock());
        match fault {
            Some(Fault::LoseAck) => Err(CasError::MaybeCommitted(unreachable())),
            Some(Fault::DieAfter) => std::future::pending().await,
            _ => answer,
        }
    }
}

impl Cells {
    fn check(&self, key: &CellKey, expected: Expected) -> Result<(), CasError> {
        let rev = self.present.get(key).map(|stored| stored.now.rev);
        match (expected, rev) {
            (Expected::Absent, None) => Ok(()),
            (Expected::At(expected), Some(rev)) if expected == rev => Ok(()),
            _ => Err(CasError::Conflict { rev }),
        }
    }

    fn put(&mut self, key: &CellKey, bytes: Bytes, ttl: Ttl) -> Rev {
        self.rev += 1;
        let now = Versioned { rev: Rev(self.rev), bytes };
        let before = self.present.remove(key).map(|stored| stored.now);
        self.present.insert(key.clone(), Stored { now, before, ttl });
        Rev(self.rev)
    }

    fn remove(&mut self, key: &CellKey) {
        self.rev += 1;
        self.present.remove(key);
    }
}

impl Store for MapStore {
    fn incarnation(&self) -> Reply<'_, Result<Incarnation, BackendError>> {
        Reply::ready(Ok(Incarnation(1)))
    }

    fn load<'a>(&'a self, key: &'a CellKey) -> Reply<'a, Result<Option<Versioned>, BackendError>> {
        Reply::later(async move {
            let fault = self.reach().await;
            match fault {
                Some(Fault::Fail) => return Err(unreachable()),
                Some(Fault::DieAfter) => std::future::pending().await,
                _ => {}
            }
            let cells = self.cells.lock();
            let stored = cells.present.get(key);
            Ok(match fault {
                Some(Fault::Lag) => stored.and_then(|stored| stored.before.clone()),
                _ => stored.map(|stored| stored.now.clone()),
            })
        })
    }

    fn cas<'a>(
        &'a self,
        key: &'a CellKey,
        expected: Expected,
        bytes: Bytes,
        ttl: Ttl,
    ) -> Reply<'a, Result<Rev, CasError>> {
        if bytes.len() > self.max_cell {
            let refused = TooLarge { what: "cell", size: bytes.len(), limit: self.max_cell };
            return Reply::ready(Err(CasError::TooLarge(refused)));
        }
        Reply::later(self.write(move |cells| {
            cells.check(key, expected)?;
            Ok(cells.put(key, bytes, ttl))
        }))
    }

    fn delete<'a>(&'a self, key: &'a CellKey, expected: Rev) -> Reply<'a, Result<(), CasError>> {
        Reply::later(self.write(move |cells| {
            cells.check(key, Expected::At(expected))?;
            cells.remove(key);
            Ok(())
        }))
    }

    fn watch<'a>(&'a self, _selector: &'a CellSelector) -> Reply<'a, Result<Watch, BackendError>> {
        // Nobody hears of changes: whoever wants to know looks.
        Reply::ready(Ok(futures_util::StreamExt::boxed(futures_util::stream::pending())))
    }
}

fn unreachable() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the script says so")
}

/// Bits that count up: no two are the same, and every run draws the same.
#[derive(Default)]
pub(crate) struct Counting(AtomicU64);

impl Counting {
    /// Counts from `seed` millions: what tells two pods' nonces apart.
    pub(crate) fn from(seed: u64) -> Self {
        Self(AtomicU64::new(seed * 1_000_000))
    }
}

impl Entropy for Counting {
    fn bits(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
