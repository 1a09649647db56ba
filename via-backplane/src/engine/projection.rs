//! One key's value on this pod: what readers share and the projector folds into.
//!
//! Neither a reader that holds a value nor the size of the state may cost a fold anything. While nobody holds the
//! published value, it is folded in place. While somebody does, a second copy, the *spare*, takes over: it first
//! catches up on the records it missed, then is published, and the value that was held becomes the next spare.
//! Only when both are held is a third copy needed; it is made off the fold path, from a value that cannot change
//! while it is held. See `docs/decisions/projection-copies.md`.

use std::{
    fmt,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    changes::Changes,
    decode::Decoded,
    missed::{Lag, Load, Missed, Share},
    sampling::Sampled,
    supervisor,
};
use crate::{Batch, Cursor, Epoch, Event, Fold, Head, Key, Offset, Stored};

/// Records a spare may lag before it is given up: by then no reader has held the value for that long, and catching up
/// would take about as long as copying.
const MAX_LAG_RECORDS: usize = 16_384;
/// The same bound in bytes, for what a spare lags is kept for it.
const MAX_LAG_BYTES: usize = 8 << 20;

/// A shared, immutable view of a value: cheap to clone, and the same for as long as it is held.
pub struct View<S> {
    value: Arc<Published<S>>,
    /// The epoch the value is of as long as its key has no record.
    epoch: Epoch,
    /// The last record that folds to nothing because its loss was accepted.
    passed: Offset,
}

/// A value with where it stands.
#[derive(Clone)]
pub(crate) struct Published<S> {
    pub(crate) state: S,
    pub(crate) version: u64,
    /// The key's own last record that was folded: the *key head* that expectations compare with. Before the first one,
    /// its epoch says nothing.
    pub(crate) key_head: Cursor,
}

impl<S: Default> Published<S> {
    /// What a key without a record folds to.
    pub(crate) fn begin() -> Self {
        Self { state: S::default(), version: 0, key_head: Cursor::begin(Epoch::default()) }
    }
}

impl<S> View<S> {
    /// A view of a value that was read after its log was known to be of `epoch`.
    pub(crate) fn new(value: Arc<Published<S>>, epoch: Epoch, passed: Offset) -> Self {
        Self { value, epoch, passed }
    }

    /// Rises whenever the value changes on this pod: what [`Changes::above`] compares with.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.value.version
    }

    /// The key's last record that is folded into this value, or whose loss was accepted, [`Offset::BEGIN`] if it had none: what an
    /// append that rests on this value [expects](super::AppendOptions::expect_head).
    ///
    /// A cell has no log: the view of its value answers a head that no log ever has.
    #[must_use]
    pub fn key_head(&self) -> Head {
        let mut head = match self.value.key_head {
            // Nothing was folded, so the value is right for every log without a record of this key. Whether the
            // present one is such a log is for the expectation to find out.
            Cursor { offset: Offset::BEGIN, .. } => Head { epoch: self.epoch, offset: Offset::BEGIN },
            cursor => cursor.head(),
        };
        head.offset = head.offset.max(self.passed);
        head
    }
}

impl<S> Deref for View<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.value.state
    }
}

impl<S> Clone for View<S> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), epoch: self.epoch, passed: self.passed }
    }
}

impl<S: fmt::Debug> fmt::Debug for View<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.state.fmt(f)
    }
}

/// Why a key folds no further on this pod. It keeps serving its last good value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HaltReason {
    /// A record of a newer version than this binary knows.
    NewerVersion {
        /// The event's name.
        name: String,
        /// The record's version.
        version: u32,
    },
    /// A record of an event this binary does not know.
    UnknownEvent {
        /// The record's event name.
        name: String,
    },
    /// The fold panicked.
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// Records were compacted away and no snapshot covers them.
    Compacted {
        /// The key's floor.
        floor: Offset,
    },
    /// Records were compacted away, and no migration makes this binary's state of the snapshot that covers them.
    Unbridgeable {
        /// Which function to write, or what the one there is does wrong.
        message: String,
    },
    /// Records were compacted away, and a newer binary wrote the snapshot that covers them.
    NewerState {
        /// Which version, and the newest this binary knows.
        message: String,
    },
    /// A record this pod has folded is gone from the log, and no compaction explains it.
    Lost,
}

impl HaltReason {
    /// Whether a snapshot that somebody writes may end it.
    pub(crate) fn ends_with_a_snapshot(&self) -> bool {
        matches!(self, Self::Compacted { .. } | Self::Unbridgeable { .. } | Self::NewerState { .. })
    }

    /// The value of the `reason` label in metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NewerVersion { .. } => "newer_version",
            Self::UnknownEvent { .. } => "unknown_event",
            Self::Panicked { .. } => "panicked",
            Self::Compacted { .. } => "compacted",
            Self::Unbridgeable { .. } => "unbridgeable",
            Self::NewerState { .. } => "newer_state",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewerVersion { name, version } => {
                write!(
                    f,
                    "a record is `{name}` version {version}, which this binary does not know: deploy one that does"
                )
            }
            Self::UnknownEvent { name } => {
                write!(f, "a record is `{name}`, an event this binary does not know: deploy one that does")
            }
            Self::Panicked { message } => write!(f, "the fold panicked: {message}"),
            Self::Compacted { floor } => {
                write!(f, "records below {floor} were compacted and no snapshot covers them")
            }
            Self::Unbridgeable { message } | Self::NewerState { message } => f.write_str(message),
            Self::Lost => {
                f.write_str("a record that was folded is gone from the log and no compaction explains it")
            }
        }
    }
}

/// A halt and the record it happened at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    /// The record that could not be folded.
    pub at: Offset,
    /// Why.
    pub reason: HaltReason,
}

/// What the handles of one key and its projector share.
pub(crate) struct Projection<S> {
    pub(crate) key: Key,
    slot: Mutex<Slot<S>>,
    version: watch::Sender<u64>,
    /// Somebody asked for the value, and it is on its way or here.
    wanted: AtomicBool,
    /// Somebody read the value since the last time eviction came by.
    used: AtomicBool,
    /// The last digest that was taken of the value, where digests are on. Boxed, because mostly there is none.
    sampled: Mutex<Option<Box<Sampled>>>,
    /// One `decide` at a time per pod and key.
    pub(crate) deciding: tokio::sync::Mutex<()>,
}

struct Slot<S> {
    /// `None` until it is loaded, and while a value that a panic tore is being rebuilt.
    value: Option<Arc<Published<S>>>,
    /// A value is being folded anew, up to the record before a halt; what is shown until then may be older.
    is_rebuilding: bool,
    halt: Option<Halt>,
    /// The first record that the value lacks because it does not decode.
    lacks: Option<Offset>,
    /// The last record it lacks for good, because its loss was accepted.
    passed: Offset,
}

impl<S> Projection<S> {
    /// Not loaded; halted from the start if the whole family is.
    pub(crate) fn new(key: Key, halt: Option<Halt>) -> Self {
        Self {
            key,
            slot: Mutex::new(Slot {
                value: None,
                is_rebuilding: false,
                halt,
                lacks: None,
                passed: Offset::BEGIN,
            }),
            version: watch::Sender::new(0),
            wanted: AtomicBool::new(false),
            used: AtomicBool::new(false),
            sampled: Mutex::new(None),
            deciding: tokio::sync::Mutex::new(()),
        }
    }

    /// The value now, and the last record it lacks for good; `None` if it is not loaded, or is being rebuilt.
    pub(crate) fn read(&self) -> Option<(Arc<Published<S>>, Offset)> {
        self.note_use();
        let slot = self.slot.lock();
        Some((slot.value.clone()?, slot.passed))
    }

    /// The first record that the value lacks because this pod cannot decode it. A value that was read before has no record
    /// after it unless this says so.
    pub(crate) fn lacks(&self) -> Option<Offset> {
        self.slot.lock().lacks
    }

    /// Notes that somebody reads the value.
    pub(crate) fn note_use(&self) {
        // Read first: a value that is read all the time costs no write to what other threads read.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// The value now, without counting as a reader of it.
    pub(crate) fn peek(&self) -> Option<Arc<Published<S>>> {
        self.slot.lock().value.clone()
    }

    /// Whether somebody read the value since this was last asked.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Notes that the value is wanted; `true` if it was not before.
    pub(crate) fn becomes_wanted(&self) -> bool {
        !self.wanted.load(Ordering::Relaxed) && !self.wanted.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Forgets the value, and with it why it went no further; who reads next asks for it again. Answers the halt.
    pub(crate) fn unload(&self) -> Option<Halt> {
        // Wanted again only by those who find nothing, so the value goes first.
        let mut slot = self.slot.lock();
        (slot.value, slot.is_rebuilding) = (None, false);
        (slot.lacks, slot.passed) = (None, Offset::BEGIN);
        let halt = slot.halt.take();
        *self.sampled.lock() = None;
        self.wanted.store(false, Ordering::Relaxed);
        halt
    }

    pub(crate) fn sampled(&self) -> Option<Sampled> {
        self.sampled.lock().as_deref().copied()
    }

    pub(crate) fn note_sampled(&self, sampled: Sampled) {
        *self.sampled.lock() = Some(Box::new(sampled));
    }

    /// Whether readers do not see yet what was folded.
    pub(crate) fn is_incomplete(&self) -> bool {
        let slot = self.slot.lock();
        slot.is_rebuilding || slot.value.is_none()
    }

    /// Whether a value that a panic tore is being folded anew.
    pub(crate) fn is_rebuilding(&self) -> bool {
        self.slot.lock().is_rebuilding
    }

    pub(crate) fn halted(&self) -> Option<Halt> {
        self.slot.lock().halt.clone()
    }

    /// Folds no further, and says so to those who wait; `false` if it was halted already, which stays the reason.
    pub(crate) fn halt_unless_halted(&self, halt: &Halt) -> bool {
        let mut slot = self.slot.lock();
        let halts = slot.halt.is_none();
        if halts {
            slot.halt = Some(halt.clone());
            drop(slot);
            self.wake();
        }
        halts
    }

    pub(crate) fn changes(&self) -> Changes {
        Changes::new(Arc::from(format!("events {}", self.key)), self.version.subscribe())
    }

    /// Whether somebody may wait for a change without holding a handle.
    pub(crate) fn is_watched(&self) -> bool {
        self.version.receiver_count() > 0
    }

    /// Wakes those who wait for a value that is not shown yet.
    pub(crate) fn wake(&self) {
        self.version.send_modify(|_| {});
    }
}

/// A run of one key's adjacent records in a batch.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) first_slot: usize,
    pub(crate) last_slot: usize,
}

impl<'a> Run<'a> {
    pub(crate) fn records(self) -> impl Iterator<Item = Stored<'a>> {
        self.batch.records_in(self.first_slot..self.last_slot + 1)
    }
}

/// What folding a run came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Folded {
    /// Readers see it.
    Published,
    /// Every copy is held: the run, which is this large, waits until a fresh one is made.
    Held(Load),
    /// The fold panicked.
    Panicked(Panicked),
}

/// A fold that panicked at a record. The value it was folding into is torn and gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Panicked {
    pub(crate) at: Offset,
    pub(crate) message: String,
}

/// The projector's side of a projection: the copies of its value.
pub(crate) struct Copies<S> {
    pub(crate) shared: Arc<Projection<S>>,
    version: u64,
    spare: Option<Spare<S>>,
    /// What no copy could take yet. While there is any, nothing else is published.
    waiting: Missed,
    /// The emptied buffers of a spare that caught up, for the next one.
    buffers: Missed,
    family: Lag,
}

struct Spare<S> {
    value: Arc<Published<S>>,
    /// What the published value has and this one has not.
    missed: Missed,
    share: Share,
}

impl<S> Spare<S> {
    fn new(value: Arc<Published<S>>, missed: Missed, family: &Lag) -> Self {
        let mut share = family.share();
        share.set(missed.load().bytes);
        Self { value, missed, share }
    }

    fn misses(&mut self, run: Run<'_>) {
        self.missed.add(run);
        self.share.set(self.missed.load().bytes);
    }

    fn lags_too_far(&self) -> bool {
        let Load { records, bytes } = self.missed.load();
        records > MAX_LAG_RECORDS || bytes > MAX_LAG_BYTES
    }
}

impl<S> Copies<S> {
    /// The copies of one of a family's keys; what they lag counts as the family's.
    pub(crate) fn new(shared: Arc<Projection<S>>, family: &Lag) -> Self {
        // The value may have been here before: its versions go on rising.
        let version = *shared.version.borrow();
        Self {
            version,
            shared,
            spare: None,
            waiting: Missed::default(),
            buffers: Missed::default(),
            family: family.clone(),
        }
    }

    /// Folds a decoded run into a copy nobody holds and publishes it. `events` is emptied.
    pub(crate) fn fold<E: Event + Fold<S>>(&mut self, run: Run<'_>, events: &mut Vec<Decoded<E>>) -> Folded {
        let folded = self.fold_now(run, events);
        events.clear();
        folded.unwrap_or_else(|| Folded::Held(self.waiting.add(run)))
    }

    /// `None` if every copy is held.
    fn fold_now<E: Event + Fold<S>>(&mut self, run: Run<'_>, events: &mut Vec<Decoded<E>>) -> Option<Folded> {
        if !self.waiting.is_empty() {
            return None;
        }
        if let Some(folded) = self.fold_in_place(run, events) {
            return Some(folded);
        }
        let mut copy = self.take_caught_up_spare::<E>()?;
        let target = Arc::get_mut(&mut copy).expect("a spare that was taken is held by nobody else");
        if let Err(panicked) = fold_all(target, run.batch.epoch(), events.drain(..)) {
            return Some(Folded::Panicked(panicked));
        }
        let mut missed = std::mem::take(&mut self.buffers);
        missed.add(run);
        self.publish_instead(copy, missed);
        Some(Folded::Published)
    }

    /// Folds into the published value if nobody holds it. A reader waits for the lock while that takes.
    fn fold_in_place<E: Fold<S>>(&mut self, run: Run<'_>, events: &mut Vec<Decoded<E>>) -> Option<Folded> {
        let mut slot = self.shared.slot.lock();
        let published = Arc::get_mut(slot.value.as_mut()?)?;
        if let Err(panicked) = fold_all(published, run.batch.epoch(), events.drain(..)) {
            slot.value = None;
            return Some(Folded::Panicked(panicked));
        }
        self.version += 1;
        published.version = self.version;
        drop(slot);
        if let Some(spare) = &mut self.spare {
            spare.misses(run);
        }
        self.drop_a_spare_that_lags();
        Some(Folded::Published)
    }

    /// The spare, caught up with the published value, if nobody holds it.
    fn take_caught_up_spare<E: Event + Fold<S>>(&mut self) -> Option<Arc<Published<S>>> {
        let mut spare = self.spare.take()?;
        let Some(copy) = Arc::get_mut(&mut spare.value) else {
            self.spare = Some(spare);
            return None;
        };
        // These records have been folded before. A fold that panics only the second time is not
        // deterministic; the spare is torn and a fresh copy is made instead.
        fold_all(copy, spare.missed.epoch(), spare.missed.decode::<E>(&self.shared.key)).ok()?;
        self.buffers = spare.missed.emptied();
        Some(spare.value)
    }

    /// Publishes `copy`; the value published so far becomes the spare, which has `missed` the rest.
    fn publish_instead(&mut self, mut copy: Arc<Published<S>>, missed: Missed) {
        self.version += 1;
        Arc::get_mut(&mut copy).expect("a copy is held by nobody else until it is published").version =
            self.version;
        let before = self.shared.slot.lock().value.replace(copy);
        self.spare = before.map(|before| Spare::new(before, missed, &self.family));
        self.drop_a_spare_that_lags();
    }

    fn drop_a_spare_that_lags(&mut self) {
        if self.spare.as_ref().is_some_and(Spare::lags_too_far) {
            self.spare = None;
        }
    }

    /// Gives up the spare; whoever holds the value next pays for a copy.
    pub(crate) fn give_up_the_spare(&mut self) {
        self.spare = None;
    }

    /// The published value, held so that it cannot change while it is copied.
    pub(crate) fn hold(&self) -> Option<Arc<Published<S>>> {
        self.shared.slot.lock().value.clone()
    }

    /// Folds what waits into a fresh copy of the published value and publishes it; answers how much no longer waits.
    pub(crate) fn fold_waiting<E: Event + Fold<S>>(
        &mut self,
        mut copy: Published<S>,
    ) -> (Load, Result<(), Panicked>) {
        let waited = std::mem::take(&mut self.waiting);
        let load = waited.load();
        let outcome = fold_all(&mut copy, waited.epoch(), waited.decode::<E>(&self.shared.key));
        if outcome.is_ok() {
            self.publish_instead(Arc::new(copy), waited);
        }
        (load, outcome)
    }

    /// Forgets what waits; answers how much it was, and the first record's offset.
    pub(crate) fn drop_waiting(&mut self) -> (Load, Offset) {
        let waited = std::mem::take(&mut self.waiting);
        (waited.load(), waited.first().unwrap_or_default())
    }

    /// Shows a value that was loaded or folded anew, if there is one, and forgets every other copy; answers how much no longer waits.
    /// Losses that were accepted are `passed`; the first record that does not decode, `lacks`, is told with the value.
    pub(crate) fn replace(
        &mut self,
        value: Option<Published<S>>,
        halt: Option<Halt>,
        passed: Offset,
        lacks: Option<Offset>,
    ) -> Load {
        self.spare = None;
        let waited = std::mem::take(&mut self.waiting);
        self.version += 1;
        let mut slot = self.shared.slot.lock();
        if let Some(mut value) = value {
            value.version = self.version;
            slot.value = Some(Arc::new(value));
        }
        slot.is_rebuilding = false;
        slot.halt = halt;
        (slot.lacks, slot.passed) = (lacks, passed);
        waited.load()
    }

    /// Whether a copy is of the value that is published now.
    pub(crate) fn is_of_published(&self, copy: &Published<S>) -> bool {
        copy.version == self.version
    }

    /// Whether nothing waits for a copy.
    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The value is about to be folded anew.
    pub(crate) fn begin_rebuilding(&self) {
        self.shared.slot.lock().is_rebuilding = true;
    }

    /// Tells readers that there is something new.
    pub(crate) fn announce(&self) {
        self.shared.version.send_replace(self.version);
    }

    /// Says which record the value lacks, if any, before it shows one that comes after.
    pub(crate) fn lack(&self, first: Option<Offset>) {
        self.shared.slot.lock().lacks = first;
    }

    /// A record that the value lacks is lost for good.
    pub(crate) fn pass(&self, offset: Offset) {
        let mut slot = self.shared.slot.lock();
        slot.passed = slot.passed.max(offset);
    }

    /// Folds no further.
    pub(crate) fn halt(&self, halt: Halt) {
        self.shared.slot.lock().halt = Some(halt);
    }
}

/// Folds events of one epoch into a value. A panic leaves the value torn: the caller discards it.
pub(crate) fn fold_all<S, E: Fold<S>>(
    published: &mut Published<S>,
    epoch: Epoch,
    events: impl Iterator<Item = Decoded<E>>,
) -> Result<(), Panicked> {
    let mut at = published.key_head;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for Decoded { at: recorded, event } in events {
            at = Cursor { epoch, offset: recorded.offset(), id: recorded.id().into() };
            event.fold(&mut published.state, &recorded);
        }
    }));
    if outcome.is_ok() {
        published.key_head = at;
    }
    outcome.map_err(|panic| Panicked { at: at.offset, message: supervisor::message(&*panic) })
}
