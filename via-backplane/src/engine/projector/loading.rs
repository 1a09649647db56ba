//! Which keys are here: loading what was asked for, and letting go of what nobody reads.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::Projector;
use crate::{
    Batch, Cursor, Epoch, Event, Fold, FoldState, Key, Offset, OwnedRecord,
    engine::{
        family::Recent,
        keys::{Buffer, KeyId, Keyed},
        loader::{Findings, Load, Loaded, Origin},
        missed,
        projection::{Copies, Halt, HaltReason, Panicked, Projection, Published},
        sampling::Sample,
        saving::Saved,
        snapshots::Hold,
        supervisor::{JobError, OnStop},
    },
};

/// Values that are loaded at the same time.
const MAX_LOADS: usize = 64;
/// How long a key rests that has no value for want of a snapshot.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// How long a load waits that found another log than the tail has.
pub(super) const DOUBT: Duration = Duration::from_millis(20);
/// Places that eviction looks at each time a value was loaded.
const LOOKS: usize = 64;

/// Values that were asked for, in the order they were.
pub(super) struct Queue<S> {
    waiting: VecDeque<Wanted<S>>,
    /// Loads under way.
    loads: usize,
}

enum Wanted<S> {
    /// Somebody reads a key that is not here.
    New(Arc<Projection<S>>),
    /// A key that is here may have missed records.
    Again(KeyId),
}

impl<S> Default for Queue<S> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), loads: 0 }
    }
}

/// What was done off the fold path.
pub(super) enum Job<S> {
    /// A fresh copy of the published value, or why there is none.
    Copied { key: KeyId, copy: Result<Published<S>, String> },
    /// A value from the log and what was found on the way, or why there is none.
    Loaded { key: KeyId, loaded: Result<(Loaded<S>, Findings), String> },
    /// A value that was computed anew, and what was found on the way, or why there is none.
    Refolded { key: KeyId, loaded: Result<(Loaded<S>, Findings), String> },
    /// A snapshot that was due, of so many records.
    Saved { key: KeyId, saved: Saved, since: u64 },
    /// The digest of a value, or nothing if it could not be computed.
    Sampled { key: KeyId, sample: Option<Sample> },
    /// An undecodable record is kept from being dropped, or need not be.
    Held { key: KeyId, offset: Offset, hold: Option<Hold> },
    /// The losses that were accepted of a key that has skipped some records; nothing if they could not be asked for.
    Reviewed { key: KeyId, accepted: Vec<Offset> },
    /// A key that has no value for want of a snapshot is tried again.
    Again { key: KeyId },
}

impl<E, S> Projector<E, S>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    /// Notes what was asked for.
    pub(super) fn queue_wanted(&mut self) {
        self.queue.waiting.extend(self.family.take_wanted().into_iter().map(Wanted::New));
    }

    /// Starts to load what was asked for, as far as there is room.
    ///
    /// Only while the log is followed: what comes after a load has begun is kept for it.
    pub(super) fn start_loads(&mut self) {
        while self.live && self.queue.loads < MAX_LOADS {
            match self.queue.waiting.pop_front() {
                Some(Wanted::New(projection)) => self.start_load(projection),
                Some(Wanted::Again(id)) => {
                    let Some(keyed) = self.keys.get(id) else { continue };
                    let key = keyed.copies.shared.key.clone();
                    self.load(id, Load::of(key));
                }
                None => return,
            }
        }
    }

    fn start_load(&mut self, projection: Arc<Projection<S>>) {
        if self.keys.find(&projection.key).is_some() {
            return;
        }
        let key = projection.key.clone();
        let copies = Copies::new(projection, &self.lag);
        let mut keyed = Keyed::loading(copies);
        keyed.began_at = self.cursor.offset;
        let id = self.keys.insert(keyed);
        self.load(id, Load::of(key));
        self.family.metrics.resident.set(self.keys.len() as f64);
    }

    fn load(&mut self, key: KeyId, load: Load<S>) {
        self.queue.loads += 1;
        let core = self.core.clone();
        let name = format!("load {}", self.family.name);
        self.jobs.push(Box::pin(async move {
            let for_load = core.clone();
            let job = async move { load.run::<E>(&for_load).await };
            match core.supervisor.run(name, OnStop::Abort, job).await {
                Ok(loaded) => Job::Loaded { key, loaded: Ok(loaded) },
                Err(JobError::Panicked(message)) => Job::Loaded { key, loaded: Err(message) },
                // The engine stops, and this projector with it.
                Err(JobError::Stopped) => std::future::pending().await,
            }
        }));
    }

    pub(super) fn finish(&mut self, job: Job<S>) {
        match job {
            Job::Copied { key, copy } => self.use_copy(key, copy),
            Job::Loaded { key, loaded } => {
                self.queue.loads -= 1;
                self.use_loaded(key, loaded);
                self.evict();
            }
            Job::Refolded { key, loaded } => self.use_refolded(key, loaded),
            Job::Saved { key, saved, since } => self.use_saved(key, saved, since),
            Job::Sampled { key, sample } => self.use_sample(key, sample),
            Job::Held { key, offset, hold } => self.use_held(key, offset, hold),
            Job::Reviewed { key, accepted } => self.use_reviewed(key, &accepted),
            Job::Again { key } => self.try_again(key),
        }
        self.publish();
        self.keys.announce_touched();
    }

    /// Shows what was loaded, with what came since.
    fn use_loaded(&mut self, id: KeyId, loaded: Result<(Loaded<S>, Findings), String>) {
        let Some(keyed) = self.keys.get_mut(id) else { return };
        let key = keyed.copies.shared.key.clone();
        let (mut loaded, findings) = loaded.unwrap_or_else(|message| {
            // Neither the fold nor a decoder, whose panics are told apart from this.
            let halt = Halt { at: Offset::BEGIN, reason: HaltReason::Panicked { message } };
            (Loaded::none(self.cursor.epoch, halt), Findings::default())
        });
        if loaded.epoch != self.cursor.epoch && self.core.ambient.rules().compare_epochs {
            // One of the two knows a log that is no more. The tail finds out which; until then it is asked again.
            return self.load(id, Load::of(key).after(DOUBT));
        }
        let keyed = self.keys.get_mut(id).expect("it was there a moment ago");
        let buffer = keyed.loading.take();
        let above = buffer.map_or(Some(Vec::new()), |buffer| buffer.above(loaded.complete_to));
        let records = match above {
            Some(records) => records,
            None if loaded.halt.is_some() => Vec::new(),
            None => {
                keyed.loading = Some(Buffer::new());
                keyed.began_at = keyed.began_at.max(self.cursor.offset);
                return self.load(id, Load::of(key).on_from(loaded));
            }
        };
        let (passed, lacks) = (loaded.passed(), loaded.lacks());
        let was_halted = std::mem::replace(&mut keyed.halted, loaded.halt.is_some());
        keyed.complete_to = loaded.complete_to.max(keyed.began_at);
        let header = match &loaded.origin {
            Origin::Snapshot(header) => Some(header),
            Origin::Genesis => None,
        };
        keyed.saving.loaded(header, findings);
        let before = keyed.copies.shared.halted();
        let stood_at = keyed.copies.shared.peek().map(|value| value.key_head.offset);
        if let (Some(stood_at), Some(header)) = (stood_at, header)
            && header.key_head.offset > stood_at
        {
            self.family.metrics.reseed.increment(1);
        }
        self.waiting -= keyed.copies.replace(loaded.value, loaded.halt.clone(), passed, lacks);
        self.keys.touch(id);
        self.shadow(id);
        for (offset, error) in std::mem::take(&mut loaded.skipped) {
            self.skip(id, offset, &error);
        }
        match loaded.halt {
            Some(halt) => {
                if !was_halted {
                    self.tell_of_halt(id, &halt);
                }
                self.try_again_later(id, &halt);
            }
            None => {
                if let Some(before) = before {
                    self.tell_of_recovery(&key, &before);
                }
                self.count_folded(id, loaded.folded as usize);
                self.fold_kept(records);
            }
        }
    }

    /// A key whose records are gone has a value again once somebody has written a snapshot that this binary reads.
    fn try_again_later(&mut self, key: KeyId, halt: &Halt) {
        if halt.reason.ends_with_a_snapshot() {
            self.jobs.push(Box::pin(async move {
                tokio::time::sleep(TRY_AGAIN).await;
                Job::Again { key }
            }));
        }
    }

    fn try_again(&mut self, id: KeyId) {
        let Some(keyed) = self.keys.get_mut(id) else { return };
        let projection = &keyed.copies.shared;
        if projection.halted().is_some_and(|halt| halt.reason.ends_with_a_snapshot()) {
            self.reload(id, self.cursor.offset);
        }
    }

    /// Loads a key anew, once the family's head is at least at `from`; what it shows stays until then.
    pub(super) fn reload(&mut self, id: KeyId, from: Offset) {
        let Some(keyed) = self.keys.get_mut(id) else { return };
        keyed.began_at = keyed.began_at.max(from);
        // The family's cursor goes on meanwhile, and what it passes is not in the value that is shown.
        keyed.copies.begin_rebuilding();
        if let Some(refolding) = &mut keyed.refolding {
            refolding.buffer.give_up();
        }
        match &mut keyed.loading {
            // A load under way may have begun too early.
            Some(buffer) => buffer.give_up(),
            None => {
                keyed.loading = Some(Buffer::new());
                self.queue.waiting.push_back(Wanted::Again(id));
            }
        }
    }

    pub(super) fn tell_of_recovery(&self, key: &Key, halt: &Halt) {
        tracing::info!(%key, reason = %halt.reason, "the key is no longer halted on this pod");
        self.family.metrics.halted(&halt.reason).decrement(1.0);
    }

    /// Folds records that were kept while their key was being loaded.
    fn fold_kept(&mut self, records: Vec<OwnedRecord>) {
        self.fold(&Batch::of(self.cursor.epoch, records), Offset::BEGIN);
        // The family has seen them before.
        self.identities.clear();
    }

    /// Asks for a fresh copy of a value whose copies are all held, unless one is being made.
    pub(super) fn want_copy(&mut self, key: KeyId) {
        let Some(keyed) = self.keys.get_mut(key) else { return };
        if std::mem::replace(&mut keyed.copying, true) {
            return;
        }
        let Some(held) = keyed.copies.hold() else { return };
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

    fn use_copy(&mut self, key: KeyId, copy: Result<Published<S>, String>) {
        let Some(keyed) = self.keys.get_mut(key) else { return };
        keyed.copying = false;
        if keyed.copies.is_settled() {
            // The value was loaded anew meanwhile, and nothing waits any more.
            return;
        }
        let outcome = match copy {
            Ok(copy) if !keyed.copies.is_of_published(&copy) => return self.want_copy(key),
            Ok(copy) => {
                let (load, outcome) = keyed.copies.fold_waiting::<E>(copy);
                self.waiting -= load;
                outcome
            }
            Err(message) => {
                // The state could not be cloned: the key halts at the first record that waits.
                let (load, at) = keyed.copies.drop_waiting();
                self.waiting -= load;
                Err(Panicked { at, message: format!("cloning the state: {message}") })
            }
        };
        match outcome {
            Ok(()) => self.keys.touch(key),
            Err(panicked) => self.undo(key, panicked),
        }
    }

    /// Halts a key whose fold panicked, and has its value folded anew up to the record before.
    pub(super) fn undo(&mut self, id: KeyId, panicked: Panicked) {
        let Panicked { at, message } = panicked;
        let halt = Halt { at, reason: HaltReason::Panicked { message } };
        let Some(keyed) = self.keys.get(id) else { return };
        keyed.copies.begin_rebuilding();
        let key = keyed.copies.shared.key.clone();
        self.halt(id, halt.clone());
        self.load(id, Load::of(key).up_to(halt));
    }

    /// Lets go of values that nobody has read for a while, if there are more than there may be.
    ///
    /// A hand goes round and spares each value that was read since it last came by (the CLOCK algorithm, Corbató 1968).
    fn evict(&mut self) {
        let most = self.core.settings.resident_instances;
        for _ in 0..LOOKS {
            if self.keys.len() <= most {
                return;
            }
            self.hand = (self.hand + 1) % self.keys.places().max(1);
            let Some(id) = self.keys.at(self.hand) else { continue };
            if !self.core.ambient.rules().spare_loads {
                self.keys.forget_buffer(id);
            }
            if self.may_go(id, most) {
                self.let_go(id);
            }
        }
    }

    fn may_go(&self, id: KeyId, most: usize) -> bool {
        let Some(keyed) = self.keys.get(id) else { return false };
        let projection = &keyed.copies.shared;
        let is_busy = keyed.loading.is_some() || keyed.refolding.is_some() || keyed.copying;
        let is_busy = is_busy || keyed.saving.is_running || !keyed.copies.is_settled();
        // A halted key is what an operator looks for, so it goes only where there are far too many.
        let is_kept = keyed.halted && self.keys.len() <= most.saturating_mul(2);
        let is_plain = projection.key.instance_name().is_none();
        !is_busy && !is_kept && !is_plain && !projection.is_watched() && !projection.take_used()
    }

    /// Forgets a key's value. Who reads it next finds nothing, and has it loaded.
    fn let_go(&mut self, id: KeyId) {
        let Some(keyed) = self.keys.remove(id) else { return };
        let projection = keyed.copies.shared.clone();
        drop(keyed);
        if let Some(halt) = projection.unload() {
            self.family.metrics.halted(&halt.reason).decrement(1.0);
        }
        self.family.metrics.evicted.increment(1);
        self.family.metrics.resident.set(self.keys.len() as f64);
        self.family.forget(projection);
    }

    /// Discards every value: the log is not the one they were folded from.
    pub(super) fn start_over(&mut self) {
        tracing::warn!(family = %self.family.name, cursor = ?self.cursor, "the log was recreated or restored: folding anew");
        self.family.metrics.epoch_reset.increment(1);
        self.generation += 1;
        (self.live, self.started) = (false, false);
        self.cursor = Cursor::begin(Epoch::default());
        self.cursor_key = None;
        self.waiting = missed::Load::default();
        self.jobs.clear();
        self.refolds = 0;
        self.queue = Queue::default();
        self.saves.clear();
        self.samples.clear();
        *self.family.recent.lock() = Recent::default();
        // First nothing is shown, then there is nothing to show: readers must not see the values begin anew.
        self.family.publish(self.cursor, self.generation, false);
        for id in self.keys.ids() {
            let Some(keyed) = self.keys.remove(id) else { continue };
            let projection = keyed.copies.shared.clone();
            if let Some(halt) = projection.unload() {
                self.family.metrics.halted(&halt.reason).decrement(1.0);
            }
            projection.wake();
            if projection.is_watched() || projection.key.instance_name().is_none() {
                self.family.want(&projection);
            }
        }
    }
}
