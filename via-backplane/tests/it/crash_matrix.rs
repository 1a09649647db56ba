//! A pod dies before or after each of its writes, from the append to the drop of a record, and the state is the same.
//!
//! Only writes are counted: what dies between two reads left behind what died before the next write. The pod appends numbers one
//! after the other until records of its key are dropped, so the table begins with the first append and ends with the first
//! compaction. After each death another pod starts, must show every number that landed, goes on until more is dropped, and a third
//! one that comes last shows it all.
//!
//! The file is part of the tests of each adapter.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use via_backplane::{
    Append, AppendError, Appended, BackendError, Backplane, Batch, Builder, CasError, CellKey, CellSelector,
    Compactor, Engine, Event, EventLog, Events, Expected, Family, Feed, Fold, Head, Incarnation, Key, Limits,
    Offset, Page, ReadRange, Recorded, Reply, Resume, Rev, Selector, Store, Subscription, Ttl, Versioned,
    Waited, Watch,
};

/// How long a fact may take to come true.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long what is to be dropped is announced.
const GRACE: Duration = Duration::from_millis(40);
const FAMILY: &str = "numbers";

/// How large the state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Its snapshots are kept in the manifest.
    Inline,
    /// Its snapshots have chunks.
    Chunked,
}

impl Size {
    /// Bytes that each number adds to the state.
    fn padding(self) -> usize {
        match self {
            Self::Inline => 0,
            Self::Chunked => 24 << 10,
        }
    }
}

#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "matrix.counted")]
struct Counted {
    number: u32,
    padding: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Numbers {
    numbers: Vec<u32>,
    padding: String,
}

impl Fold<Numbers> for Counted {
    fn fold(self, numbers: &mut Numbers, _at: &Recorded) {
        numbers.numbers.push(self.number);
        numbers.padding.extend(std::iter::repeat_n('x', self.padding));
    }
}

/// On which side of a write the pod dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// By which clock the pods live.
#[allow(dead_code, reason = "each adapter's tests live by one of them")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// The runtime's, which is paused. The second pod goes on until it has had more dropped, although a dead writer's claim on a
    /// snapshot is believed for a while.
    Simulated,
    /// The machine's. The second pod goes on for a while.
    Real,
}

/// Where a pod dies.
#[derive(Debug, Clone, Copy)]
struct Death {
    write: usize,
    side: Side,
}

/// Plays every row on a fresh backplane each, and prints them; answers how many there were.
#[expect(clippy::print_stdout, reason = "the rows are what is to be read")]
pub(crate) async fn every_row_holds<B>(
    adapter: &str,
    size: Size,
    time: Time,
    fresh: impl AsyncFn() -> B,
) -> usize
where
    B: AsyncFn() -> Arc<dyn Backplane>,
{
    let mut rows = 0;
    for write in 0.. {
        for side in [Side::Before, Side::After] {
            let connect = fresh().await;
            let Some(died) = plays(size, time, Death { write, side }, &connect).await else {
                assert!(rows > 0, "a pod that lives through everything has written something");
                return rows;
            };
            rows += 1;
            println!("{adapter}, {size:?}, row {rows}: died {side:?} write {write}, {died}: the same state");
        }
    }
    unreachable!("a pod's writes come to an end")
}

/// One row; answers which write the pod died at, `None` if it lived until records were dropped.
async fn plays(
    size: Size,
    time: Time,
    death: Death,
    connect: &impl AsyncFn() -> Arc<dyn Backplane>,
) -> Option<String> {
    let raw = connect().await;
    let mortal = Arc::new(Mortal::new(connect().await, death));
    let life = mortal.life.clone();
    let first = builder(mortal, time).start();
    let acknowledged = AtomicUsize::new(0);
    let died = tokio::select! {
        biased;
        () = life.died.notified() => true,
        () = count_until_dropped(&first, &*raw, size, 0, Offset::BEGIN, &acknowledged) => false,
    };
    first.supervisor().kill().await;
    let acknowledged = acknowledged.into_inner();
    let row = life.last.lock().clone();

    let second = builder(connect().await, time).start();
    let shown = numbers(&second).loaded().await.numbers.len();
    let possible = acknowledged..=acknowledged + 1;
    assert!(possible.contains(&shown), "{row:?}: {acknowledged} were acknowledged, {shown} are shown");
    shows(&second, shown, size, &row).await;
    let floor = floor(&*raw).await;
    let after = AtomicUsize::new(shown);
    let from = u32::try_from(shown).expect("a row counts no further than that");
    match time {
        Time::Simulated => {
            for number in from..from + 4 {
                count(&second, size, number, &after).await;
            }
            // A claim that nobody honours any more is displaced by then.
            tokio::time::sleep(Duration::from_secs(90)).await;
            count_until_dropped(&second, &*raw, size, from + 4, floor, &after).await;
        }
        Time::Real => {
            for number in from..from + 6 {
                count(&second, size, number, &after).await;
            }
        }
    }
    let all = after.into_inner();
    shows(&second, all, size, &row).await;
    let third = builder(connect().await, time).start();
    shows(&third, all, size, &row).await;
    for engine in [&second, &third] {
        engine.shutdown(PATIENCE).await.expect("no task failed");
    }
    died.then(|| row.expect("it died at something"))
}

fn builder(backplane: Arc<dyn Backplane>, time: Time) -> Builder {
    let builder = Engine::builder(backplane)
        .with_snapshot_interval(4)
        .with_snapshot_pause(Duration::from_millis(1))
        .with_compaction_grace(GRACE);
    if time == Time::Simulated { builder.deterministic() } else { builder }
}

fn numbers(engine: &Engine) -> Events<Counted, Numbers> {
    engine.events(FAMILY).expect("a valid declaration")
}

fn key() -> Key {
    Key::of(&Family::new(FAMILY).expect("a valid name"))
}

async fn floor(backplane: &dyn Backplane) -> Offset {
    backplane.compactor().expect("it compacts").floor(&key()).await.expect("it answers")
}

/// Counts on until records above `above` are dropped.
async fn count_until_dropped(
    engine: &Engine,
    raw: &dyn Backplane,
    size: Size,
    from: u32,
    above: Offset,
    acknowledged: &AtomicUsize,
) {
    let mut number = from;
    let counts = async {
        while floor(raw).await <= above {
            count(engine, size, number, acknowledged).await;
            number += 1;
            tokio::time::sleep(GRACE / 4).await;
        }
    };
    tokio::time::timeout(PATIENCE, counts).await.expect("what snapshots cover is dropped");
}

async fn count(engine: &Engine, size: Size, number: u32, acknowledged: &AtomicUsize) {
    let counted = numbers(engine);
    let event = Counted { number, padding: size.padding() };
    let position = counted.append(event).await.expect("nothing is wrong with the backplane");
    acknowledged.fetch_add(1, Ordering::SeqCst);
    assert_eq!(counted.wait_for(&position, PATIENCE).await, Waited::Reached);
}

async fn shows(engine: &Engine, count: usize, size: Size, row: &Option<String>) {
    let shown = numbers(engine).loaded().await;
    let count = u32::try_from(count).expect("a row counts no further than that");
    assert_eq!(shown.numbers, (0..count).collect::<Vec<_>>(), "{row:?}");
    assert_eq!(shown.padding.len(), count as usize * size.padding(), "{row:?}");
}

/// A connection whose pod dies at a write.
struct Mortal {
    inner: Arc<dyn Backplane>,
    death: Death,
    life: Arc<Life>,
}

#[derive(Default)]
struct Life {
    writes: AtomicUsize,
    last: parking_lot::Mutex<Option<String>>,
    died: Notify,
}

impl fmt::Debug for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mortal").field("death", &self.death).finish_non_exhaustive()
    }
}

impl Mortal {
    fn new(inner: Arc<dyn Backplane>, death: Death) -> Self {
        Self { inner, death, life: Arc::default() }
    }

    async fn write<T>(&self, what: String, call: impl Future<Output = T>) -> T {
        let number = self.life.writes.fetch_add(1, Ordering::SeqCst);
        if number > self.death.write {
            std::future::pending::<()>().await;
        }
        let is_last = number == self.death.write;
        if is_last {
            *self.life.last.lock() = Some(what);
        }
        if is_last && self.death.side == Side::Before {
            self.die().await;
        }
        let answer = call.await;
        if is_last {
            self.die().await;
        }
        answer
    }

    async fn die(&self) {
        self.life.died.notify_one();
        std::future::pending::<()>().await;
    }
}

/// What a cell is to the engine.
fn role(cell: &CellKey) -> String {
    let text = cell.to_string();
    let role = ["snapshots", "chunks", "control", "rollback"].into_iter().find(|role| text.contains(role));
    role.map_or(text, |role| match role {
        "snapshots" => "the manifest".to_owned(),
        "chunks" => "a chunk".to_owned(),
        "control" => "the control cell".to_owned(),
        _ => "the rollback window".to_owned(),
    })
}

impl Backplane for Mortal {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn log(&self) -> &dyn EventLog {
        self
    }

    fn store(&self) -> &dyn Store {
        self
    }

    fn compactor(&self) -> Option<&dyn Compactor> {
        Some(self)
    }

    fn feed(&self) -> Option<&dyn Feed> {
        self.inner.feed()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn ping(&self) -> Reply<'_, Result<(), BackendError>> {
        self.inner.ping()
    }

    fn close(&self) -> Reply<'_, ()> {
        self.inner.close()
    }
}

impl EventLog for Mortal {
    fn append(&self, append: Append) -> Reply<'_, Result<Appended, AppendError>> {
        Reply::later(async move { self.write("append".into(), self.inner.log().append(append)).await })
    }

    fn subscribe<'a>(
        &'a self,
        selector: &'a Selector,
        from: Resume,
    ) -> Reply<'a, Result<Subscription, BackendError>> {
        self.inner.log().subscribe(selector, from)
    }

    fn read<'a>(
        &'a self,
        selector: &'a Selector,
        range: ReadRange,
    ) -> Reply<'a, Result<Batch, BackendError>> {
        self.inner.log().read(selector, range)
    }

    fn instances<'a>(&'a self, family: &'a Family, page: Page) -> Reply<'a, Result<Vec<Key>, BackendError>> {
        self.inner.log().instances(family, page)
    }

    fn head<'a>(&'a self, selector: &'a Selector) -> Reply<'a, Result<Head, BackendError>> {
        self.inner.log().head(selector)
    }
}

impl Store for Mortal {
    fn incarnation(&self) -> Reply<'_, Result<Incarnation, BackendError>> {
        self.inner.store().incarnation()
    }

    fn load<'a>(&'a self, key: &'a CellKey) -> Reply<'a, Result<Option<Versioned>, BackendError>> {
        self.inner.store().load(key)
    }

    fn cas<'a>(
        &'a self,
        key: &'a CellKey,
        expected: Expected,
        bytes: Bytes,
        ttl: Ttl,
    ) -> Reply<'a, Result<Rev, CasError>> {
        let what = format!("cas of {}", role(key));
        Reply::later(async move { self.write(what, self.inner.store().cas(key, expected, bytes, ttl)).await })
    }

    fn delete<'a>(&'a self, key: &'a CellKey, expected: Rev) -> Reply<'a, Result<(), CasError>> {
        let what = format!("delete of {}", role(key));
        Reply::later(async move { self.write(what, self.inner.store().delete(key, expected)).await })
    }

    fn watch<'a>(&'a self, selector: &'a CellSelector) -> Reply<'a, Result<Watch, BackendError>> {
        self.inner.store().watch(selector)
    }
}

impl Compactor for Mortal {
    fn compact<'a>(&'a self, key: &'a Key, before: Offset) -> Reply<'a, Result<Offset, BackendError>> {
        let compactor = self.inner.compactor().expect("it compacts");
        Reply::later(async move { self.write("compact".into(), compactor.compact(key, before)).await })
    }

    fn floor<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<Offset, BackendError>> {
        self.inner.compactor().expect("it compacts").floor(key)
    }

    fn is_compacted<'a>(&'a self, family: &'a Family) -> Reply<'a, Result<bool, BackendError>> {
        self.inner.compactor().expect("it compacts").is_compacted(family)
    }
}
