//! What a pod does while its backplane is away, or refuses.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{Level, Metadata, span};
use via_backplane::{
    Append, AppendError, AppendFailed, AppendId, AppendOptions, Appended, BackendError, Backplane, Batch,
    Compactor, Engine, ErrorKind, EventLog, Family, Feed, Head, Key, Limits, Page, ReadRange, Reply, Resume,
    Retry, Selector, Status, Store, Subscription, Waited,
    fault::{Faulty, Link, Plan},
};
use via_inmem::InMemory;

use super::{PATIENCE, note, noted, notes, stop, until};

/// A backplane whose log can be told to refuse its tails, and to leave appends without an answer; it counts the tails.
pub(super) struct Refusing {
    inner: InMemory,
    refusal: Mutex<Option<ErrorKind>>,
    heads: AtomicUsize,
    /// How long an append takes until it says that nobody knows.
    unknown_after: Mutex<Option<Duration>>,
    appends: AtomicUsize,
    /// How many tails are open.
    tails: watch::Sender<usize>,
}

/// A tail, for as long as it is open.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(tails: &watch::Sender<usize>) -> Self {
        tails.send_modify(|tails| *tails += 1);
        Self(tails.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|tails| *tails -= 1);
    }
}

impl Refusing {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            refusal: Mutex::default(),
            heads: AtomicUsize::default(),
            unknown_after: Mutex::default(),
            appends: AtomicUsize::default(),
            tails: watch::Sender::default(),
        })
    }

    /// Waits until so many tails are open.
    pub(super) async fn has_tails(&self, wanted: usize) {
        self.tails.subscribe().wait_for(|tails| *tails == wanted).await.expect("it counts for ever");
    }

    fn refuse(&self, refusal: Option<ErrorKind>) {
        *self.refusal.lock() = refusal;
    }
}

impl Backplane for Refusing {
    fn name(&self) -> &'static str {
        "refusing"
    }

    fn log(&self) -> &dyn EventLog {
        self
    }

    fn store(&self) -> &dyn Store {
        self.inner.store()
    }

    fn compactor(&self) -> Option<&dyn Compactor> {
        self.inner.compactor()
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

impl EventLog for Refusing {
    fn append(&self, append: Append) -> Reply<'_, Result<Appended, AppendError>> {
        self.appends.fetch_add(1, Ordering::SeqCst);
        let Some(time) = *self.unknown_after.lock() else { return self.inner.log().append(append) };
        Reply::later(async move {
            sleep(time).await;
            let error = BackendError::new(ErrorKind::Unavailable, "no answer");
            Err(AppendError::MaybeCommitted(error))
        })
    }

    fn subscribe<'a>(
        &'a self,
        selector: &'a Selector,
        from: Resume,
    ) -> Reply<'a, Result<Subscription, BackendError>> {
        Reply::later(async move {
            let tail = self.inner.log().subscribe(selector, from).await?;
            let counted = Counted::new(&self.tails);
            Ok(tail.inspect(move |_| _ = &counted).boxed())
        })
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
        self.heads.fetch_add(1, Ordering::SeqCst);
        match *self.refusal.lock() {
            Some(kind) => Reply::ready(Err(BackendError::new(kind, "the test refuses"))),
            None => self.inner.log().head(selector),
        }
    }
}

/// What was logged about tails, by level.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<BTreeMap<Level, usize>>>);

impl Said {
    fn at(&self, level: Level) -> usize {
        self.0.lock().get(&level).copied().unwrap_or_default()
    }
}

impl tracing::Subscriber for Said {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().ends_with("::tail")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        *self.0.lock().entry(*event.metadata().level()).or_default() += 1;
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}
    fn enter(&self, _span: &span::Id) {}
    fn exit(&self, _span: &span::Id) {}
}

/// Waits in paused time until the log was asked for its head so many more times; answers how long that took.
async fn heads(backplane: &Refusing, more: usize) -> Duration {
    let (wanted, since) = (backplane.heads.load(Ordering::SeqCst) + more, Instant::now());
    while backplane.heads.load(Ordering::SeqCst) < wanted {
        sleep(Duration::from_millis(1)).await;
    }
    since.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_tail_that_is_refused_goes_on_trying_seldom_and_says_so_once() {
    let said = Said::default();
    let _here = tracing::subscriber::set_default(said.clone());
    let backplane = Refusing::new();
    let engine = Engine::start(backplane.clone());
    let notes = notes(&engine);
    note(&notes, "before").await;
    let longest = Duration::from_secs(5);
    // The first one is that the log was replaced.
    let mut warnings = 1;
    for kind in [ErrorKind::Denied, ErrorKind::Misconfigured, ErrorKind::Internal] {
        backplane.refuse(Some(kind));
        // The log is deleted and made anew by an operator; while the tail is away, nobody may read it.
        backplane.inner.recreate_log(notes.key().family());
        heads(&backplane, 1).await;
        let tries = 10;
        let took = heads(&backplane, tries as usize).await;
        assert!((longest * tries..=longest * 2 * tries).contains(&took), "{tries} tries in {took:?}");
        warnings += 1;
        assert_eq!(said.at(Level::WARN), warnings, "one warning about {kind:?}");
        assert_eq!(notes.read().as_deref(), Some(&vec!["before".to_owned()]), "the last value is served");
    }
    assert_eq!(said.at(Level::INFO), 0, "it is not over yet");
    backplane.refuse(None);
    until(&notes, Vec::is_empty).await;
    note(&notes, "after").await;
    assert_eq!(said.at(Level::INFO), 1, "it is over");
    assert!(engine.health().disconnected.is_empty());
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn reads_go_on_while_the_backplane_is_away_and_appends_say_so() {
    let (memory, link) = (InMemory::new(), Link::new());
    let faulty = |seed| Arc::new(Faulty::new(Arc::new(memory.clone()), Plan::seeded(seed), &link));
    let (engine, plain) = (Engine::start(faulty(1)), super::start(&memory));
    let notes = notes(&engine);
    let count = engine.cell::<u32>("count").expect("a valid declaration");
    note(&notes, "before").await;
    count.set(7).await.expect("nothing is wrong yet");
    link.interrupt();
    sleep(Duration::from_secs(30)).await;
    super::notes(&plain).append(noted("meanwhile")).await.expect("another pod has another way");

    let shown = (notes.read().expect("it was loaded"), count.read().expect("it was loaded"));
    assert_eq!((&**shown.0, *shown.1), (&["before".to_owned()][..], 7));
    assert_eq!(notes.status(), Status::Live, "a key without a tail is no key without a value");
    let health = engine.health();
    assert!(!health.backplane_is_up && health.catching_up.is_empty(), "{health:?}");
    assert_eq!(health.disconnected, ["cells app", "notes"]);

    let since = Instant::now();
    let error = notes.append(noted("late")).await.expect_err("the backplane is away");
    assert!(matches!(error, AppendFailed::Backend { .. }), "{error:?}");
    assert_eq!(error.retry(), Retry::Safe);
    let id = || AppendOptions::default().id(AppendId::new("late").expect("a valid id"));
    let error = notes.append_with(noted("late"), id()).await.expect_err("the backplane is away");
    assert_eq!(error.retry(), Retry::Safe, "nothing was sent, so nothing is unknown: {error:?}");
    let error = notes.decide(|_| Ok::<_, ()>(vec![noted("late")])).await.expect_err("the backplane is away");
    assert_eq!(error.retry(), Retry::Safe, "{error:?}");
    assert_eq!(since.elapsed(), Duration::ZERO, "a refusal is passed on at once");

    link.restore();
    let position = notes.append_with(noted("late"), id()).await.expect("the backplane is back");
    assert_eq!(
        notes.wait_for(&position, Duration::from_secs(2)).await,
        Waited::Reached,
        "within two seconds"
    );
    assert_eq!(*notes.loaded().await, ["before", "meanwhile", "late"], "nothing was missed");
    // Health wakes nobody: the paused clock passes until it says so.
    let healthy = async {
        while !engine.health().disconnected.is_empty() || !engine.health().backplane_is_up {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, healthy).await.expect("everything is connected again");
    stop(&engine).await;
    stop(&plain).await;
}

#[tokio::test(start_paused = true)]
async fn an_append_ends_however_long_each_attempt_takes() {
    let backplane = Refusing::new();
    let engine = Engine::start(backplane.clone());
    let notes = notes(&engine);
    notes.loaded().await;
    let at_most = Duration::from_secs(20);
    for attempt in [1, 15, 300].map(Duration::from_secs) {
        *backplane.unknown_after.lock() = Some(attempt);
        let (since, before) = (Instant::now(), backplane.appends.load(Ordering::SeqCst));
        let options = AppendOptions::default().id(AppendId::new("once").expect("a valid id"));
        let error = notes.append_with(noted("once"), options).await.expect_err("nobody knows");
        assert_eq!(error.retry(), Retry::MayDuplicate, "{error:?}");
        assert!(since.elapsed() <= at_most, "it took {:?}", since.elapsed());
        let attempts = backplane.appends.load(Ordering::SeqCst) - before;
        assert!((1..=9).contains(&attempts), "{attempts} attempts");
        // Without an id it is not repeated, and ends when the backplane's own time is over.
        let since = Instant::now();
        let error = notes.append(noted("perhaps")).await.expect_err("nobody knows");
        assert_eq!(error.retry(), Retry::MayDuplicate, "{error:?}");
        assert_eq!(
            (since.elapsed(), backplane.appends.load(Ordering::SeqCst) - before - attempts),
            (attempt, 1)
        );
    }
    stop(&engine).await;
}
