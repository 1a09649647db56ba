//! The one task per pod and family that tails the log and folds.
//!
//! It takes a batch, folds it run by run (a run is one key's adjacent records), publishes, and wakes readers once.
//! Handlers are synchronous; only [`Projector::tail`] awaits.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};

use super::{
    Core,
    decode::{Decoded, Problem, Undecodable, decode, decode_caught, identity},
    family::{Family, Recent},
    keys::Keys,
    missed::{Lag, Load},
    momentum::Momentum,
    projection::{Copies, Folded, Halt, HaltReason, Panicked, Published, Run, fold_all},
    retry::Delays,
    supervisor::JobError,
    tail::Tail,
};
use crate::{
    BackendError, Batch, BoxError, Cursor, Epoch, ErrorKind, Event, Fold, Head, Hole, Key, Offset, ReadRange,
    RecordId, Resume, Selector, Stored,
    envelope::{self, Envelope},
};

/// Records that may wait for a fresh copy of a state; beyond that, the projector takes no more from the log.
const MAX_WAITING_RECORDS: usize = 16_384;
/// The same bound in bytes.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Records per page when a value is folded anew.
const REBUILD_PAGE: usize = 1_024;

/// Owns a family's projections on this pod.
pub(super) struct Projector<E, S> {
    core: Core,
    family: Arc<Family<E, S>>,
    selector: Selector,
    keys: Keys<S>,
    /// The last record taken from the log; what is published may be behind while runs wait for a copy.
    cursor: Cursor,
    /// The key of the record at `cursor`, whose floor may explain that the record is gone.
    cursor_key: Option<Key>,
    /// The head this pod has to reach before it is live.
    target: Offset,
    live: bool,
    generation: u64,
    waiting: Load,
    /// What the spares of all keys lag.
    lag: Lag,
    jobs: FuturesUnordered<BoxFuture<'static, Job<S>>>,
    /// The slot of the record that is being decoded, by code that may be the user's.
    decoding: Option<usize>,
    /// Buffers that are reused from batch to batch.
    events: Vec<Decoded<E>>,
    identities: Vec<(Offset, RecordId)>,
}

/// What was done off the fold path.
enum Job<S> {
    /// A fresh copy of the published value, or why there is none.
    Copied { key: usize, copy: Result<Published<S>, String> },
    /// A value folded anew, up to the record before a halt.
    Rebuilt { key: usize, value: Published<S>, halt: Halt },
}

/// Why a tail ended.
enum Ended {
    /// The log is not the one this pod has folded: discard, and start over.
    Changed,
    /// The backend went away: try again.
    Failed(BackendError),
    /// Records are gone and nothing explains it: the family is halted for good.
    Lost,
}

impl From<BackendError> for Ended {
    fn from(error: BackendError) -> Self {
        Self::Failed(error)
    }
}

impl<E, S> Projector<E, S>
where
    E: Event + Fold<S>,
    S: Default + Clone + Send + Sync + 'static,
{
    pub(super) fn new(core: Core, family: Arc<Family<E, S>>) -> Self {
        Self {
            selector: Selector::Family(family.name.clone()),
            keys: Keys::default(),
            cursor: Cursor::begin(Epoch::default()),
            cursor_key: None,
            target: Offset::BEGIN,
            live: false,
            generation: 0,
            waiting: Load::default(),
            lag: Lag::default(),
            jobs: FuturesUnordered::new(),
            decoding: None,
            events: Vec::new(),
            identities: Vec::new(),
            core,
            family,
        }
    }

    /// Tails for as long as the engine lives.
    pub(super) async fn run(mut self) -> Result<(), BoxError> {
        let mut tail = Tail::new(&self.core, self.family.name.as_str().to_owned());
        loop {
            let before = self.cursor;
            let ended = self.tail(&mut tail).await;
            tail.ended();
            if self.cursor.offset > before.offset {
                tail.settled();
            }
            match ended {
                Ended::Changed => {
                    self.start_over();
                    if before.offset == Offset::BEGIN {
                        // Nothing was folded since the last time: a head that lags behind the records says so for a while.
                        tail.wait().await;
                    }
                }
                Ended::Failed(error) if error.kind() == ErrorKind::Closed => return Ok(()),
                Ended::Failed(error) => tail.wait_after(&error).await,
                Ended::Lost => return self.rest().await,
            }
        }
    }

    /// Folds no more; what was begun for values that are still served is finished.
    async fn rest(mut self) -> Result<(), BoxError> {
        while let Some(job) = self.jobs.next().await {
            self.finish(job);
        }
        std::future::pending().await
    }

    async fn tail(&mut self, tail: &mut Tail) -> Ended {
        match self.try_tail(tail).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn try_tail(&mut self, tail: &mut Tail) -> Result<std::convert::Infallible, Ended> {
        let core = self.core.clone();
        let log = core.backplane.log();
        let head = log.head(&self.selector).await?;
        self.meet(head)?;
        let from = self.resume_from(head);
        let mut records = log.subscribe(&self.selector, from).await?;
        // A log replaced between the two calls would leave this tail waiting above the new one's end, for ever.
        let head = log.head(&self.selector).await?;
        self.meet(head)?;
        if self.resume_from(head).exclusive() < from.exclusive() {
            return Err(went_back().into());
        }
        tail.opened();
        // Nothing to compare with at the beginning of a log.
        let mut verified = self.cursor.offset == Offset::BEGIN;
        let mut momentum = Momentum::default();
        loop {
            // A log that always has more must not keep other tasks of this thread from running.
            tokio::task::coop::consume_budget().await;
            tokio::select! {
                biased;
                Some(job) = self.jobs.next(), if !self.jobs.is_empty() => self.finish(job),
                item = momentum.next(&mut records), if self.has_room() => {
                    let batch = item.unwrap_or_else(|| Err(silent_end()))?;
                    momentum.gain(&batch);
                    if !verified {
                        verified = self.verify(&batch).await?;
                    }
                    self.take(&batch)?;
                }
            }
        }
    }

    /// Compares the log's epoch with the one this pod has folded.
    fn meet(&mut self, head: Head) -> Result<(), Ended> {
        let is_new = self.cursor.epoch != head.epoch;
        if is_new && self.cursor.offset != Offset::BEGIN && self.core.ambient.rules().compare_epochs {
            return Err(Ended::Changed);
        }
        self.cursor.epoch = head.epoch;
        self.target = head.offset;
        self.publish();
        if is_new && self.live {
            // No value changed, because there was none; but who decides waits for the new epoch.
            self.family.wake_all();
        }
        Ok(())
    }

    /// A head behind the cursor may be a lagging answer or a log put back from an older copy: starting there, the
    /// records say which.
    fn resume_from(&self, head: Head) -> Resume {
        match self.cursor.offset.min(head.offset) {
            Offset::BEGIN => Resume::After(Offset::BEGIN),
            offset => Resume::At(offset),
        }
    }

    /// Compares the first record at or past the cursor with the one this pod has folded (PROTOCOL §1).
    ///
    /// Answers whether that is settled; a batch wholly below the cursor leaves it open.
    async fn verify(&mut self, batch: &Batch) -> Result<bool, Ended> {
        let rules = self.core.ambient.rules();
        if batch.epoch() != self.cursor.epoch && rules.compare_epochs {
            return Err(Ended::Changed);
        }
        for record in batch.iter() {
            if record.offset > self.cursor.offset {
                self.explain_the_missing_record().await?;
                return Ok(true);
            }
            if rules.compare_record_ids && self.known(record.offset) != Some(identity(&record)) {
                return Err(Ended::Changed);
            }
            if record.offset == self.cursor.offset {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn known(&self, offset: Offset) -> Option<RecordId> {
        if offset == self.cursor.offset {
            Some(self.cursor.id)
        } else {
            self.family.recent.lock().get(offset)
        }
    }

    /// The record at the cursor is gone. A floor above it explains that; nothing else does.
    async fn explain_the_missing_record(&mut self) -> Result<(), Ended> {
        let core = self.core.clone();
        if let (Some(compactor), Some(key)) = (core.backplane.compactor(), &self.cursor_key)
            && compactor.floor(key).await? > self.cursor.offset
        {
            return Ok(());
        }
        tracing::error!(family = %self.family.name, offset = %self.cursor.offset, "a folded record is gone from the log");
        let halt = Halt { at: self.cursor.offset, reason: HaltReason::Lost };
        let halted = self.family.halt_every_key(&halt);
        self.family.metrics.halted(&halt.reason).increment(halted as f64);
        self.family.metrics.gap_halt.increment(halted as u64);
        self.publish();
        Err(Ended::Lost)
    }

    /// Folds a batch, publishes it, and wakes readers.
    fn take(&mut self, batch: &Batch) -> Result<(), Ended> {
        if batch.epoch() != self.cursor.epoch && self.core.ambient.rules().compare_epochs {
            return Err(Ended::Changed);
        }
        if let Some(hole) = batch.hole() {
            self.cross(hole);
        }
        let mut run: Option<OpenRun> = None;
        let folded = self.cursor.offset;
        let mut records = batch.slots().filter(|(_, record)| record.offset > folded);
        while let Err(panic) = self.take_records(batch, &mut run, &mut records) {
            self.skip_panicked(batch, run.take(), &*panic);
        }
        self.close(batch, run);
        self.advance(batch);
        self.publish();
        self.announce();
        Ok(())
    }

    /// Takes records until there are no more, or a decoder panics.
    ///
    /// Caught here and not around each decoder, which would cost as much as decoding.
    fn take_records<'a>(
        &mut self,
        batch: &Batch,
        run: &mut Option<OpenRun>,
        records: &mut impl Iterator<Item = (usize, Stored<'a>)>,
    ) -> std::thread::Result<()> {
        catch_unwind(AssertUnwindSafe(|| {
            for (slot, record) in records {
                self.take_record(batch, run, slot, &record);
            }
        }))
    }

    /// Skips the record whose decoder panicked, and folds what came before it.
    fn skip_panicked(&mut self, batch: &Batch, run: Option<OpenRun>, panic: &(dyn Any + Send)) {
        let decoding = self.decoding.take();
        // Nothing of the projector is half done while it decodes; any other panic is its end.
        let decoding = decoding.expect("only decoders panic outside of a fold");
        self.close(batch, run);
        let mut rest = batch.slots().skip_while(|(slot, _)| *slot != decoding);
        let (_, record) = rest.next().expect("the record that was being decoded is in the batch");
        let key = self.index_of(record.key);
        self.meet_problem(key, &record, Problem::panicked(panic));
        self.identities.push((record.offset, identity(&record)));
    }

    fn take_record(&mut self, batch: &Batch, run: &mut Option<OpenRun>, slot: usize, record: &Stored<'_>) {
        let key = match run {
            Some(open) if self.keys.is(open.key, record.key) => open.key,
            _ => {
                self.close(batch, run.take());
                self.index_of(record.key)
            }
        };
        self.decoding = Some(slot);
        let decoded = decode::<E>(record);
        self.decoding = None;
        let identity = match decoded {
            // A halted key folds nothing; its records still count as seen by the family.
            Ok(decoded) if self.keys.is_halted(key) => decoded.id(),
            Ok(decoded) => {
                let id = decoded.id();
                self.events.push(decoded);
                run.get_or_insert(OpenRun { key, first_slot: slot, last_slot: slot }).last_slot = slot;
                id
            }
            Err(problem) => {
                self.close(batch, run.take());
                self.meet_problem(key, record, problem);
                identity(record)
            }
        };
        self.identities.push((record.offset, identity));
    }

    fn meet_problem(&mut self, key: usize, record: &Stored<'_>, problem: Problem) {
        if self.keys.is_halted(key) {
            return;
        }
        match problem {
            Problem::Undecodable(error) => self.skip(record, &error),
            Problem::Newer { name, version } => {
                self.family.metrics.forward_incompatible.increment(1);
                self.halt(
                    key,
                    Halt { at: record.offset, reason: HaltReason::NewerVersion { name, version } },
                );
            }
            Problem::Unknown { name } => {
                self.family.metrics.forward_incompatible.increment(1);
                self.halt(key, Halt { at: record.offset, reason: HaltReason::UnknownEvent { name } });
            }
        }
    }

    fn skip(&mut self, record: &Stored<'_>, error: &Undecodable) {
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::error!(key = %record.key, offset = %record.offset, %error, cause, "an undecodable record was skipped");
        self.family.metrics.undecodable.increment(1);
        self.family.undecodable.lock().note(record);
    }

    /// Folds what a run has gathered.
    fn close(&mut self, batch: &Batch, run: Option<OpenRun>) {
        let Some(open) = run else { return };
        let run = Run { batch, first_slot: open.first_slot, last_slot: open.last_slot };
        match self.keys.copies(open.key).fold(run, &mut self.events) {
            Folded::Published => self.keys.touch(open.key),
            Folded::Held(load) => {
                self.waiting += load;
                self.want_copy(open.key);
            }
            Folded::Panicked(panicked) => self.undo(open.key, panicked),
        }
        if self.lag.is_too_large() {
            self.keys.give_up_spares();
        }
    }

    /// Whether more may be taken from the log: what waits for a copy is bounded.
    fn has_room(&self) -> bool {
        self.waiting.records < MAX_WAITING_RECORDS && self.waiting.bytes < MAX_WAITING_BYTES
    }

    fn index_of(&mut self, key: &Key) -> usize {
        let (family, lag) = (&self.family, &self.lag);
        self.keys.find_or_insert(key, || Copies::new(family.projection(key), lag))
    }

    /// Asks for a fresh copy of a value whose copies are all held, unless one is being made.
    fn want_copy(&mut self, key: usize) {
        if !self.keys.start_copying(key) {
            return;
        }
        let Some(held) = self.keys.copies(key).hold() else { return };
        self.family.metrics.copies.increment(1);
        let (core, family) = (self.core.clone(), self.family.name.clone());
        self.jobs.push(Box::pin(async move {
            match core.copy(format!("copy {family}"), move || Published::clone(&held)).await {
                Ok(copy) => Job::Copied { key, copy: Ok(copy) },
                Err(JobError::Panicked(message)) => Job::Copied { key, copy: Err(message) },
                // The engine stops, and this projector with it: nothing is wrong with the state.
                Err(JobError::Stopped) => std::future::pending().await,
            }
        }));
    }

    /// Halts a key whose fold panicked, and has its value folded anew up to the record before.
    fn undo(&mut self, key: usize, panicked: Panicked) {
        let Panicked { at, message } = panicked;
        let halt = Halt { at, reason: HaltReason::Panicked { message } };
        self.keys.copies(key).begin_rebuilding();
        self.halt(key, halt.clone());
        let projection = self.keys.copies(key).shared.key.clone();
        let core = self.core.clone();
        self.jobs.push(Box::pin(async move {
            let value = rebuild::<E, S>(&core, projection, at).await;
            Job::Rebuilt { key, value, halt }
        }));
    }

    fn finish(&mut self, job: Job<S>) {
        match job {
            Job::Copied { key, copy } => {
                self.keys.stop_copying(key);
                self.use_copy(key, copy);
            }
            Job::Rebuilt { key, value, halt } => {
                self.keys.copies(key).replace(value, Some(halt));
                self.keys.touch(key);
            }
        }
        self.publish();
        self.announce();
    }

    fn use_copy(&mut self, key: usize, copy: Result<Published<S>, String>) {
        let outcome = match copy {
            Ok(copy) => {
                let (load, outcome) = self.keys.copies(key).fold_waiting::<E>(copy);
                self.waiting -= load;
                outcome
            }
            Err(message) => Err(self.give_up_waiting(key, message)),
        };
        match outcome {
            Ok(()) => self.keys.touch(key),
            Err(panicked) => self.undo(key, panicked),
        }
    }

    /// The state could not be cloned: the key halts at the first record that waits.
    fn give_up_waiting(&mut self, key: usize, message: String) -> Panicked {
        let (load, at) = self.keys.copies(key).drop_waiting();
        self.waiting -= load;
        Panicked { at, message: format!("cloning the state: {message}") }
    }

    /// Records are known to be gone. Without a snapshot that covers them, their keys halt.
    fn cross(&mut self, hole: &Hole) {
        for (key, floor) in &hole.floors {
            let index = self.index_of(key);
            if !self.keys.is_halted(index) {
                self.family.metrics.gap_halt.increment(1);
                self.halt(
                    index,
                    Halt { at: self.cursor.offset, reason: HaltReason::Compacted { floor: *floor } },
                );
            }
        }
    }

    fn halt(&mut self, key: usize, halt: Halt) {
        let copies = self.keys.copies(key);
        tracing::error!(key = %copies.shared.key, offset = %halt.at, reason = %halt.reason, "the key is halted on this pod");
        self.family.metrics.halted(&halt.reason).increment(1.0);
        copies.halt(halt);
        self.keys.set_halted(key);
    }

    /// Moves the cursor to the batch's last record.
    fn advance(&mut self, batch: &Batch) {
        let Some(&(offset, id)) = self.identities.last() else { return };
        self.cursor = Cursor { epoch: self.cursor.epoch, offset, id };
        self.cursor_key = self.keys.last().cloned();
        self.family.recent.lock().extend(&mut self.identities);
        self.family.metrics.lag_events.set(self.target.0.saturating_sub(offset.0) as f64);
        if let Some(appended) = batch.iter().last().and_then(|record| appended_at(&record)) {
            let age = self.core.ambient.clock.now().duration_since(appended).unwrap_or_default();
            self.family.metrics.lag_seconds.set(age.as_secs_f64());
        }
    }

    /// Says how far readers can see, unless runs still wait for a copy.
    fn publish(&mut self) {
        if self.waiting.records > 0 {
            return;
        }
        let becomes_live = !self.live && self.cursor.offset >= self.target;
        self.live |= becomes_live;
        self.family.metrics.offset.set(self.cursor.offset.0 as f64);
        self.family.publish(self.cursor, self.generation, self.live);
        if becomes_live {
            self.family.wake_all();
        }
    }

    fn announce(&mut self) {
        self.keys.announce_touched();
    }

    /// Discards every value: the log is not the one they were folded from.
    fn start_over(&mut self) {
        tracing::warn!(family = %self.family.name, cursor = ?self.cursor, "the log was recreated or restored: folding anew");
        self.family.metrics.epoch_reset.increment(1);
        self.generation += 1;
        self.live = false;
        self.cursor = Cursor::begin(Epoch::default());
        self.cursor_key = None;
        self.waiting = Load::default();
        self.jobs.clear();
        *self.family.recent.lock() = Recent::default();
        // First nothing is shown, then there is nothing to show: readers must not see the values begin anew.
        self.family.publish(self.cursor, self.generation, false);
        for halt in self.keys.discard_values() {
            self.family.metrics.halted(&halt.reason).decrement(1.0);
        }
        self.announce();
    }
}

/// Folds a key's records below `before` into a fresh value, retrying for as long as the backend is away.
async fn rebuild<E, S>(core: &Core, key: Key, before: Offset) -> Published<S>
where
    E: Event + Fold<S>,
    S: Default,
{
    let selector = Selector::Key(key);
    let mut value = Published::begin();
    let mut after = Offset::BEGIN;
    let mut delays = Delays::new(Duration::from_millis(10), Duration::from_secs(5), core.ambient.seed());
    let mut is_said = false;
    loop {
        let range = ReadRange { after, up_to: Offset(before.0 - 1), limit: REBUILD_PAGE };
        let page = match core.backplane.log().read(&selector, range).await {
            Ok(page) => page,
            Err(error) => {
                if !std::mem::replace(&mut is_said, true) {
                    tracing::warn!(?selector, %error, "reading a halted key's records failed; trying again");
                }
                delays.wait().await;
                continue;
            }
        };
        let Some(last) = page.iter().last() else { return value };
        after = last.offset;
        let events = page.iter().filter_map(|record| decode_caught::<E>(&record).ok());
        if let Err(panicked) = fold_all(&mut value, page.epoch(), events) {
            // These records folded well a moment ago, so this fold is not deterministic. Serving the value that the
            // panic tore would be worse than serving an old one.
            tracing::error!(?selector, at = %panicked.at, "a fold panicked on a record it had folded before");
            return Published::begin();
        }
    }
}

fn appended_at(record: &Stored<'_>) -> Option<std::time::SystemTime> {
    Envelope::decode(record.bytes).ok().map(|envelope| envelope::system_time(envelope.time))
}

fn went_back() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the log's head went back while its tail was opened")
}

fn silent_end() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the subscription ended without saying why")
}

/// A run being gathered; its decoded events are in the projector's buffer.
#[derive(Clone, Copy)]
struct OpenRun {
    key: usize,
    first_slot: usize,
    last_slot: usize,
}
