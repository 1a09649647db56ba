//! The engine: projections, cells and the tasks that keep them right, on one pod.

mod ambient;
mod append;
mod appender;
#[cfg(test)]
#[allow(dead_code, reason = "a bench shows more than the tests of one module look at")]
mod bench;
mod cell;
mod cells;
mod changes;
mod compaction;
mod consumer;
mod control;
mod decide;
mod decode;
mod digest;
mod events;
mod family;
mod glance;
#[cfg(test)]
#[path = "../../tests/it/golden_file.rs"]
mod golden_file;
mod holds;
mod keys;
mod lineage;
mod loader;
mod losses;
#[cfg(test)]
#[allow(dead_code, reason = "a script offers more faults than the tests of one module need")]
mod map_store;
pub mod metrics;
mod missed;
mod momentum;
mod notes;
mod orders;
mod owned_cell;
mod past;
mod pins;
mod projection;
mod projector;
mod reach;
mod refold;
mod registry;
mod retry;
mod sampling;
mod saving;
mod settings;
mod shadow;
mod snapshots;
mod supervisor;
mod tail;
mod verify;
mod write;

use std::{fmt, num::NonZeroU64, ops::Deref, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use ambient::Ambient;
#[cfg(feature = "testing")]
pub use ambient::Rules;
pub use ambient::{Clock, Entropy, Monotonic};
pub use append::{AppendFailed, AppendOptions};
pub use appender::Appender;
pub use cell::{Cell, UpdateError};
pub use changes::Changes;
pub use consumer::{
    Block, Consumer, ConsumerError, ConsumerRunning, ConsumerState, DeadLetter, DeadLetterError, DeadLetters,
    Delivery, NamedConsumer, OnEvent, Standing, StartAt, UnreadableLetter, Which,
};
pub use decide::{DecideError, DecideOptions};
pub use digest::Digest;
pub use events::{Events, Status, Waited};
pub use losses::{AcceptLossError, Undecodable};
pub use past::{AtError, FoldedFrom, Past};
pub use pins::{Pin, PinError, Rebuilt};
pub use projection::{Halt, HaltReason, View};
pub use refold::{RefoldError, Refolded};
pub use registry::RegisterError;
pub use sampling::Sampled;
use settings::Settings;
pub use supervisor::{Fault, JobError, OnError, OnStop, Stop, Supervisor};
pub use verify::{Parted, Party, Verified, VerifyError};

use crate::{Backplane, CellKey, Event, Fold, FoldState, Key};

/// A pod's engine over a backplane: folds events into state, keeps cells, and runs what must run beside them.
///
/// Cloning is a reference count. The engine knows no HTTP: a worker that only folds is a first-class user.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use via_backplane::{Backplane, Engine};
///
/// # async fn doc(backplane: Arc<dyn Backplane>) -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::start(backplane);
/// let theme = engine.cell::<String>("theme")?;
/// engine.shutdown(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    core: Core,
}

/// What every part of the engine needs.
#[derive(Clone)]
pub(crate) struct Core(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) backplane: Arc<dyn Backplane>,
    pub(crate) ambient: Ambient,
    pub(crate) settings: Settings,
    pub(crate) supervisor: Supervisor,
    registry: registry::Registry,
    cells: Arc<cells::Cells>,
    reach: reach::Reach,
    tails: tail::Tails,
    consumers: consumer::Seats,
    /// What tells this engine from every other: it signs leases with it.
    pub(crate) id: u128,
}

impl Deref for Core {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Core {
    /// Computes a copy of a state off the fold path.
    pub(crate) async fn copy<T: Send + 'static>(
        &self,
        name: String,
        copy: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobError> {
        if self.ambient.copy_inline {
            return self.supervisor.run(name, OnStop::Abort, async move { copy() }).await;
        }
        self.supervisor.offload(name, copy).await
    }

    /// The snapshots of a key.
    pub(crate) fn snapshots(&self, key: &Key) -> snapshots::Snapshots<'_> {
        let (store, max_cell) = (self.backplane.store(), self.backplane.limits().max_cell);
        let window = self.settings.rollback_window;
        snapshots::Snapshots::of(store, &*self.ambient.entropy, key, max_cell, window)
            .under(self.ambient.rules())
    }

    /// Counts a snapshot that this pod could not use.
    pub(crate) fn snapshot_unusable(&self, key: &Key) {
        ::metrics::counter!(metrics::SNAPSHOT_UNUSABLE, "family" => key.family().as_str().to_owned())
            .increment(1);
    }

    /// True once in so many calls of one thread.
    pub(crate) fn times_this_one(&self, one_in: u32) -> bool {
        thread_local! {
            static CALLS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
        }
        CALLS.with(|calls| {
            calls.set(calls.get().wrapping_add(1));
            calls.get() % one_in == 0
        })
    }
}

/// Builds an [`Engine`] with other surroundings than the operating system's.
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    backplane: Arc<dyn Backplane>,
    ambient: Ambient,
    settings: Settings,
}

impl Builder {
    /// How many instances of a family this pod keeps in memory at most; those that nobody has read for a while go first. At
    /// least one, 10,000 unless set.
    ///
    /// An instance that somebody watches stays beyond that, as do a family's plain field and what is being loaded.
    pub fn with_resident_instances(mut self, most: usize) -> Self {
        self.settings.resident_instances = most.max(1);
        self
    }

    /// Stamps events by this clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.ambient.clock = Arc::new(clock);
        self
    }

    /// Measures by this clock how old what the engine knows is.
    pub fn monotonic(mut self, clock: impl Monotonic) -> Self {
        self.ambient.monotonic = Arc::new(clock);
        self
    }

    /// Draws ids and jitter from this source.
    pub fn entropy(mut self, entropy: impl Entropy) -> Self {
        self.ambient.entropy = Arc::new(entropy);
        self
    }

    /// How many records of a key are folded between two snapshots of it; 64 unless set here, or for the key with
    /// [`Events::with_snapshot_interval`].
    pub fn with_snapshot_interval(mut self, records: u64) -> Self {
        self.settings.snapshot_interval = records.max(1);
        self
    }

    /// The least time between two snapshots of a key, so that a busy one does not write them all the time; one second unless set.
    pub fn with_snapshot_pause(mut self, pause: Duration) -> Self {
        self.settings.snapshot_pause = pause;
        self
    }

    /// How long the last snapshot of a previous state version is kept, for a deploy that is rolled back; 24 hours unless set.
    pub fn with_rollback_window(mut self, window: Duration) -> Self {
        self.settings.rollback_window = window;
        self
    }

    /// How long it is public that records may be dropped before they are, the same on every pod; a minute unless set.
    ///
    /// It has to be longer than any answer of the store may be out of date. A pod that was paused for longer loads what it missed
    /// from snapshots.
    pub fn with_compaction_grace(mut self, grace: Duration) -> Self {
        self.settings.compaction_grace = grace;
        self
    }

    /// Drops no record that a snapshot covers: the log grows for ever, and everything can be folded from its beginning.
    pub fn keep_history(mut self) -> Self {
        self.settings.compacts = false;
        self
    }

    /// Folds each record twice and compares what comes of it, to find a fold that depends on more than its records.
    ///
    /// Each resident key has a second value then, and each event is decoded and folded twice. The two are compared by digest once
    /// so many events have come that no more than a kilobyte is written down for each. Where they differ, the log says between which
    /// offsets, `via_fold_divergence_total` counts it, and nothing of the key is compacted any more.
    pub fn with_fold_verify(mut self) -> Self {
        self.settings.fold_verify = true;
        self
    }

    /// Takes a digest of a key's value after one in so many of its records, so that pods can be compared while they run.
    ///
    /// The records are chosen by their ids, so pods choose the same ones. [`Events::digest`] answers the last of a key; of a family's
    /// plain field, `via_fold_digest` and `via_fold_digest_offset` show it. A state is written down for it, beside the fold: one
    /// that is larger than a kilobyte for each event is sampled less often than asked for. Off unless set; at most every record.
    pub fn with_fold_digests(mut self, one_in: u64) -> Self {
        self.settings.fold_digests = NonZeroU64::new(one_in.max(1));
        self
    }

    /// Switches protocol rules off, to show that they are needed.
    #[cfg(feature = "testing")]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.ambient.rules = rules;
        self
    }

    /// Runs everything on the runtime's own threads and by its clock, so that one seed gives one trace.
    #[cfg(feature = "testing")]
    pub fn deterministic(mut self) -> Self {
        self.ambient.copy_inline = true;
        self.ambient.monotonic = Arc::new(ambient::Simulated::default());
        self
    }

    /// Starts the engine. Must be called within a tokio runtime.
    #[must_use = "the engine runs until it is shut down"]
    pub fn start(self) -> Engine {
        metrics::describe();
        let id = self.ambient.entropy.bits();
        let core = Core(Arc::new(Inner {
            id,
            consumers: consumer::Seats::default(),
            backplane: self.backplane,
            ambient: self.ambient,
            settings: self.settings,
            supervisor: Supervisor::new(),
            registry: registry::Registry::default(),
            cells: Arc::default(),
            reach: reach::Reach::default(),
            tails: tail::Tails::default(),
        }));
        let engine = Engine { core };
        engine.start_tasks();
        engine
    }
}

impl Engine {
    /// An engine with the operating system's clock and entropy. Must be called within a tokio runtime.
    #[must_use = "the engine runs until it is shut down"]
    pub fn start(backplane: Arc<dyn Backplane>) -> Self {
        Self::builder(backplane).start()
    }

    /// Configures an engine before it starts.
    pub fn builder(backplane: Arc<dyn Backplane>) -> Builder {
        Builder { backplane, ambient: Ambient::system(), settings: Settings::default() }
    }

    /// A handle of the event-sourced state of this name; its projector starts with the first one.
    ///
    /// # Errors
    /// [`RegisterError`] if the name is no valid key, is in use with other types, or the event's name is in use by another type.
    pub fn events<E, S>(&self, name: &str) -> Result<Events<E, S>, RegisterError>
    where
        E: Event + Fold<S>,
        S: FoldState,
    {
        self.events_at(name, std::any::type_name::<E>())
    }

    /// As [`events`](Self::events); `place` is where the state is declared, for the error about a second declaration.
    ///
    /// # Errors
    /// As [`events`](Self::events).
    pub fn events_at<E, S>(&self, name: &str, place: &'static str) -> Result<Events<E, S>, RegisterError>
    where
        E: Event + Fold<S>,
        S: FoldState,
    {
        let interval = self.core.settings.snapshot_interval;
        let (family, is_new) = self.core.registry.family::<E, S>(name, place, interval)?;
        if is_new {
            self.start_compaction(&family);
            let projector = projector::Projector::new(self.core.clone(), family.clone());
            self.core
                .supervisor
                .spawn(format!("projector {}", family.name), OnStop::Drain, |stop| projector.run(stop));
        }
        let events = Events::new(self.core.clone(), family.clone(), &Key::of(&family.name));
        // A pod is ready when its plain fields are; instances are loaded when somebody reads them.
        family.want(&events.projection);
        Ok(events)
    }

    /// A handle that only appends to the event-sourced state of this name: this pod tails and folds nothing for it.
    ///
    /// # Errors
    /// [`RegisterError`] if the name is no valid key, is in use with other types, or the event's name is in use by another type.
    pub fn appender<E: Event>(&self, name: &str) -> Result<Appender<E>, RegisterError> {
        let family = self.core.registry.appender::<E>(name, std::any::type_name::<E>())?;
        let metrics = Arc::new(metrics::Appends::new(&family));
        Ok(Appender::new(self.core.clone(), metrics, Key::of(&family)))
    }

    /// A handle of the cell of this name, shared by every pod.
    ///
    /// # Errors
    /// [`RegisterError`] if the name is no valid key or is in use with another type.
    pub fn cell<T>(&self, name: &str) -> Result<Cell<T>, RegisterError>
    where
        T: Serialize + DeserializeOwned + Clone + Default + Send + Sync + 'static,
    {
        self.cell_at(name, std::any::type_name::<T>())
    }

    /// As [`cell`](Self::cell); `place` is where the state is declared, for the error about a second declaration.
    ///
    /// # Errors
    /// As [`cell`](Self::cell).
    pub fn cell_at<T>(&self, name: &str, place: &'static str) -> Result<Cell<T>, RegisterError>
    where
        T: Serialize + DeserializeOwned + Clone + Default + Send + Sync + 'static,
    {
        let (local, is_new) = self.core.registry.cell::<T>(name, place)?;
        if is_new {
            self.core.cells.add(local.clone());
        }
        Ok(Cell { core: self.core.clone(), local })
    }

    /// The backplane this engine runs on.
    #[must_use]
    pub fn backplane(&self) -> &Arc<dyn Backplane> {
        &self.core.backplane
    }

    /// Where tasks beside the engine are spawned; they end with it.
    #[must_use]
    pub fn supervisor(&self) -> &Supervisor {
        &self.core.supervisor
    }

    /// How this pod's engine stands.
    #[must_use]
    pub fn health(&self) -> Health {
        let mut health = Health {
            backplane_is_up: self.core.reach.is_up(),
            disconnected: self.core.tails.disconnected(),
            undecodable: self.core.cells.undecodable(),
            stuck: self.core.consumers.stuck(),
            ..Health::default()
        };
        self.core.registry.add_health(&mut health);
        health
    }

    /// Writes the snapshots that are due, ends every task and closes the backplane; what is not done when the grace period is over
    /// is dropped. Idempotent.
    ///
    /// # Errors
    /// The first [`Fault`] of a task whose failure stops everything.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the engine stopping; call it again to wait.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), Fault> {
        let outcome = self.core.supervisor.stop(grace).await;
        self.core.backplane.close().await;
        outcome
    }

    /// Has what snapshots of a family cover dropped, where the backplane can and the app wants it.
    fn start_compaction<E, S>(&self, family: &Arc<family::Family<E, S>>) {
        let core = &self.core;
        if !core.settings.compacts || core.backplane.compactor().is_none() {
            return;
        }
        let holds = Arc::new(holds::Holds(core.clone()));
        let grace = core.settings.compaction_grace;
        let compaction = compaction::Compaction::new(
            core.backplane.clone(),
            core.ambient.clone(),
            &family.name,
            holds,
            grace,
        );
        family.compacts(compaction.candidates());
        core.supervisor.spawn(format!("compaction {}", family.name), OnStop::Abort, |_| compaction.run());
    }

    fn start_tasks(&self) {
        let app = registry::app_cells();
        let (core, cells) = (self.core.clone(), self.core.cells.clone());
        self.core.supervisor.spawn("cells", OnStop::Abort, |_| cells::follow(core, cells, app));
        let core = self.core.clone();
        self.core.supervisor.spawn("ping", OnStop::Abort, |_| reach::ping(core));
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("backplane", &self.core.backplane).finish_non_exhaustive()
    }
}

/// How a pod's engine stands.
///
/// A pod whose backplane is away goes on reading from its own copies, and its siblings see the same outage: that alone is no
/// reason to take it out of service. `catching_up`, `halted` and `undecodable` say what it does not show as it should.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The backplane answered the last ping; there is one every second.
    pub backplane_is_up: bool,
    /// Tails and watches that are not connected, by the `tail` label of their metrics: what this pod shows of them may be old,
    /// and appends and updates will probably fail.
    pub disconnected: Vec<String>,
    /// Families that have not caught up with their log yet.
    pub catching_up: Vec<crate::Family>,
    /// Keys that fold no further.
    pub halted: Vec<(Key, Halt)>,
    /// Cells whose stored value this binary cannot read: they serve the last value it could, and are not loaded if there was
    /// none, until somebody stores a value that decodes or removes this one.
    pub undecodable: Vec<CellKey>,
    /// Consumers of this pod that lag and do not get on, as family and name: nothing was committed for a minute although there is something
    /// to handle, or they go no further until somebody does something. One that lags and gets on is not among them.
    pub stuck: Vec<String>,
}

/// The name of an engine-owned cell, outside the names users give.
///
/// # Panics
/// If the segments make no valid key; they are written in via's own code.
#[must_use]
pub fn internal_cell(segments: &[&str]) -> CellKey {
    let segments = std::iter::once("via").chain(segments.iter().copied());
    CellKey::new(segments).expect("a name written in via's own code")
}
