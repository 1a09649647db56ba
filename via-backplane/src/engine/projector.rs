//! The one task per pod and family that tails the log and folds.
//!
//! It takes a batch, folds it run by run (a run is one key's adjacent records), publishes, and wakes readers once. Keys
//! that nobody has asked for are passed over. Handlers are synchronous; only [`Projector::try_tail`] awaits.

mod holes;
mod loading;
mod refolds;
mod samples;
mod saves;
mod shadows;
mod taking;

use std::{convert::Infallible, sync::Arc};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};

use super::{
    Core,
    control::{CeilingWatch, Control},
    decode::{Decoded, identity},
    family::Family,
    keys::Keys,
    missed::{Lag, Load},
    momentum::Momentum,
    orders::{Inbox, Order},
    projection::{Halt, HaltReason},
    supervisor::Stop,
    tail::{Tail, silent_end},
};
use crate::{
    BackendError, Batch, BoxError, Cursor, Epoch, ErrorKind, Event, Fold, FoldState, Head, Key, Offset,
    RecordId, Resume, Selector,
};
use loading::Job;
use refolds::MAX_REFOLDS;

/// Records that may wait for a fresh copy of a state; beyond that, the projector takes no more from the log.
const MAX_WAITING_RECORDS: usize = 16_384;
/// The same bound in bytes.
const MAX_WAITING_BYTES: usize = 64 << 20;

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
    /// The log was opened at its head, and every record since was taken.
    started: bool,
    /// The head this pod has to reach before it is live.
    target: Offset,
    live: bool,
    generation: u64,
    waiting: Load,
    /// What the spares of all keys lag.
    lag: Lag,
    jobs: FuturesUnordered<BoxFuture<'static, Job<S>>>,
    /// Values that were asked for and are not being loaded yet.
    queue: loading::Queue<S>,
    /// Snapshots that are due.
    saves: saves::Saves,
    samples: samples::Samples,
    /// Below what a hole may hide dropped records.
    ceiling: CeilingWatch,
    /// What is asked of this projector.
    inbox: Inbox,
    /// Values that are being computed anew.
    refolds: usize,
    /// Where eviction looks next.
    hand: usize,
    /// The slot of the record that is being decoded, by code that may be the user's.
    decoding: Option<usize>,
    /// Buffers that are reused from batch to batch.
    events: Vec<Decoded<E>>,
    identities: Vec<(Offset, RecordId)>,
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
    S: FoldState,
{
    pub(super) fn new(core: Core, family: Arc<Family<E, S>>) -> Self {
        let control = Control::new(core.backplane.clone(), core.ambient.entropy.clone(), family.name.clone());
        let (clock, rules) = (core.ambient.monotonic.clone(), core.ambient.rules());
        Self {
            inbox: family.take_inbox(),
            refolds: 0,
            ceiling: CeilingWatch::new(control, clock, rules, core.settings.compaction_grace),
            selector: Selector::Family(family.name.clone()),
            keys: Keys::default(),
            cursor: Cursor::begin(Epoch::default()),
            cursor_key: None,
            started: false,
            target: Offset::BEGIN,
            live: false,
            generation: 0,
            waiting: Load::default(),
            lag: Lag::default(),
            jobs: FuturesUnordered::new(),
            queue: loading::Queue::default(),
            saves: saves::Saves::default(),
            samples: samples::Samples::new(core.settings.fold_digests),
            hand: 0,
            decoding: None,
            events: Vec::new(),
            identities: Vec::new(),
            core,
            family,
        }
    }

    /// Tails for as long as the engine lives, and writes the snapshots that are due when it stops.
    pub(super) async fn run(mut self, stop: Stop) -> Result<(), BoxError> {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            outcome = self.follow() => return outcome,
        }
        self.save_what_is_due().await;
        Ok(())
    }

    /// Tails until the backplane is closed. Dropped, it has taken a batch wholly or not at all.
    async fn follow(&mut self) -> Result<(), BoxError> {
        let mut tail = Tail::new(&self.core, self.family.name.as_str().to_owned());
        loop {
            let before = self.cursor;
            let Err(ended) = self.try_tail(&mut tail).await;
            tail.ended();
            if self.cursor.offset > before.offset {
                tail.settled();
            }
            match ended {
                Ended::Changed => {
                    self.start_over();
                    if before.offset == Offset::BEGIN {
                        // Nothing was taken since the last time: a head that lags behind the records says so for a while.
                        tail.wait().await;
                    }
                }
                Ended::Failed(error) if error.kind() == ErrorKind::Closed => return Ok(()),
                Ended::Failed(error) => self.work_until(tail.wait_after(&error)).await,
                Ended::Lost => {
                    // Folds no more; what was begun for values that are still served is finished.
                    self.work_until(std::future::pending()).await;
                }
            }
        }
    }

    /// Finishes what was begun while there is no tail.
    async fn work_until(&mut self, over: impl Future<Output = ()>) {
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                Some(job) = self.jobs.next(), if !self.jobs.is_empty() => self.finish(job),
                Some(order) = self.inbox.recv(), if self.refolds < MAX_REFOLDS => self.obey(order),
                () = &mut over => return,
            }
        }
    }

    async fn try_tail(&mut self, tail: &mut Tail) -> Result<Infallible, Ended> {
        let (core, family) = (self.core.clone(), self.family.clone());
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
        // Nothing to compare with before the first record this pod has taken.
        let mut verified = self.cursor.offset == Offset::BEGIN;
        self.started = true;
        let mut momentum = Momentum::default();
        loop {
            self.start_loads();
            // A log that always has more must not keep other tasks of this thread from running.
            tokio::task::coop::consume_budget().await;
            tokio::select! {
                biased;
                Some(job) = self.jobs.next(), if !self.jobs.is_empty() => self.finish(job),
                Some(order) = self.inbox.recv(), if self.refolds < MAX_REFOLDS => self.obey(order),
                () = family.wanted() => self.queue_wanted(),
                () = self.saves.due() => self.start_saves(),
                item = momentum.next(&mut records), if self.has_room() => {
                    let batch = item.unwrap_or_else(|| Err(silent_end()))?;
                    momentum.gain(&batch);
                    if !verified {
                        verified = self.verify(&batch).await?;
                    }
                    self.look_for_holes(&batch).await?;
                    self.take(&batch)?;
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Accepted { key, offset, reply } => {
                self.accept(&key, &[offset]);
                self.keys.announce_touched();
                reply.send(()).ok(); // The asker may have left.
            }
            Order::Refold { key, reply } => self.refold(&key, reply),
        }
    }

    /// Compares the log's epoch with the one this pod has folded.
    fn meet(&mut self, head: Head) -> Result<(), Ended> {
        let is_new = self.cursor.epoch != head.epoch;
        let holds_something = self.cursor.offset != Offset::BEGIN || !self.keys.is_empty();
        if is_new && holds_something && self.core.ambient.rules().compare_epochs {
            return Err(Ended::Changed);
        }
        self.cursor.epoch = head.epoch;
        self.target = head.offset;
        self.publish();
        Ok(())
    }

    /// A tail that was open resumes at its cursor, and one that was not begins at the head: what is below is loaded key by key.
    ///
    /// A head behind the cursor may be a lagging answer or a log put back from an older copy: starting there, the
    /// records say which.
    fn resume_from(&self, head: Head) -> Resume {
        let at = if self.started { self.cursor.offset.min(head.offset) } else { head.offset };
        match at {
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

    /// Whether more may be taken from the log: what waits for a copy is bounded.
    fn has_room(&self) -> bool {
        self.waiting.records < MAX_WAITING_RECORDS && self.waiting.bytes < MAX_WAITING_BYTES
    }
}

fn went_back() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the log's head went back while its tail was opened")
}
