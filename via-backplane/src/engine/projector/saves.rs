//! Having snapshots written of what was folded.

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use futures_util::StreamExt as _;
use tokio::time::{Instant, Sleep};

use super::{Projector, loading::Job};
use crate::{
    Event, Fold, FoldState, Key, Offset,
    engine::{
        keys::KeyId,
        notes::{self, Note},
        saving::{self, Saved},
        snapshots::Hold,
        supervisor::{JobError, OnStop},
    },
};

/// Snapshots of one family that are written at the same time.
const MAX_SAVES: usize = 4;
/// How often a key that has skipped records asks whether their loss was accepted.
const REVIEW: Duration = Duration::from_secs(30);
/// How long a key rests whose snapshot could not be written.
const REST: Duration = Duration::from_secs(5);

/// The keys whose snapshots are due, each once, by when.
#[derive(Default)]
pub(super) struct Saves {
    due: BTreeMap<(Instant, u64), KeyId>,
    /// Tells apart what is due at the same time.
    serial: u64,
    running: usize,
    /// Set to when the first of them is due, and set anew only when that changes: it is looked at with every batch.
    timer: Option<Pin<Box<Sleep>>>,
    /// When this pod last wrote or saw a snapshot of the family; before the first, when it first tried.
    last: Option<Instant>,
    /// The engine stops: what is due is written now, and nothing else becomes due.
    is_last_call: bool,
}

impl Saves {
    fn add(&mut self, at: Instant, key: KeyId) {
        if self.is_last_call {
            return;
        }
        self.serial += 1;
        self.due.insert((at, self.serial), key);
    }

    /// Waits until something is due and there is room for it. Cancel-safe.
    pub(super) async fn due(&mut self) {
        let Some((&(at, _), _)) = self.due.first_key_value().filter(|_| self.running < MAX_SAVES) else {
            return std::future::pending().await;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.await;
    }

    fn next_due(&mut self, now: Instant) -> Option<KeyId> {
        let is_due = |at: Instant| at <= now || self.is_last_call;
        let first = self.due.first_entry().filter(|first| is_due(first.key().0))?;
        Some(first.remove())
    }

    /// Forgets everything: what was folded is of a log that is no more.
    pub(super) fn clear(&mut self) {
        self.due.clear();
        self.running = 0;
    }
}

impl<E, S> Projector<E, S>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    /// Counts records that were folded, and puts their key in the queue once a snapshot is due.
    pub(super) fn count_folded(&mut self, id: KeyId, records: usize) {
        let interval = self.family.snapshot_interval();
        let Some(keyed) = self.keys.get_mut(id) else { return };
        keyed.saving.since += records as u64;
        if keyed.saving.since >= interval && !keyed.saving.is_queued && !keyed.saving.is_running {
            self.queue_save(id, Duration::ZERO);
        }
    }

    fn queue_save(&mut self, id: KeyId, rest: Duration) {
        let (now, pause) = (Instant::now(), self.core.settings.snapshot_pause);
        let chance = self.core.ambient.seed();
        let Some(keyed) = self.keys.get_mut(id) else { return };
        keyed.saving.is_queued = true;
        let at = keyed.saving.due(now, pause, chance).max(now + rest);
        self.saves.add(at, id);
    }

    /// Starts what is due.
    pub(super) fn start_saves(&mut self) {
        let now = Instant::now();
        while self.saves.running < MAX_SAVES {
            let Some(id) = self.saves.next_due(now) else { return };
            self.start_save(id, now);
        }
    }

    /// Writes what is due before the engine ends, whatever pause was left.
    ///
    /// A backplane that does not answer is not waited for.
    pub(super) async fn save_what_is_due(&mut self) {
        self.saves.is_last_call = true;
        while self.core.reach.is_up() {
            self.start_saves();
            if self.saves.running == 0 {
                return;
            }
            let Some(job) = self.jobs.next().await else { return };
            self.finish(job);
        }
    }

    fn start_save(&mut self, id: KeyId, now: Instant) {
        let cursor = self.cursor;
        let Some(keyed) = self.keys.get_mut(id) else { return };
        keyed.saving.is_queued = false;
        if keyed.halted || keyed.saving.is_dirty() && self.core.ambient.rules().dirty_writes_none {
            // What a better binary, or an accepted loss, makes of it is saved after the load that finds it.
            return;
        }
        let is_whole = keyed.loading.is_none() && keyed.copies.is_settled();
        let held = keyed.copies.hold().filter(|held| is_whole && held.key_head.offset <= cursor.offset);
        let Some(held) = held else {
            // On its way, or ahead of the tail: soon.
            return self.queue_save(id, self.core.settings.snapshot_pause);
        };
        let (plan, since) = (keyed.saving.begin(now), keyed.saving.since);
        let (core, key) = (self.core.clone(), keyed.copies.shared.key.clone());
        self.saves.running += 1;
        let name = format!("snapshot {}", self.family.name);
        self.jobs.push(Box::pin(async move {
            let for_save = core.clone();
            let job = async move { saving::save::<E, S>(&for_save, &key, held, cursor, plan).await };
            match core.supervisor.run(name, OnStop::Drain, job).await {
                Ok(saved) => Job::Saved { key: id, saved, since },
                Err(JobError::Panicked(_)) => Job::Saved { key: id, saved: Saved::Failed, since },
                // The engine stops, and this projector with it.
                Err(JobError::Stopped) => std::future::pending().await,
            }
        }));
    }

    pub(super) fn use_saved(&mut self, id: KeyId, saved: Saved, since: u64) {
        self.saves.running = self.saves.running.saturating_sub(1);
        self.tell_age(&saved);
        let metrics = &self.family.metrics;
        match &saved {
            Saved::Written { bytes, .. } => {
                metrics.snapshots_written.increment(1);
                metrics.snapshot_bytes.set(*bytes as f64);
            }
            Saved::Failed | Saved::Hopeless => metrics.snapshot_failures.increment(1),
            Saved::Seen(_) | Saved::Claimed { .. } | Saved::Displaces(_) => {}
        }
        let interval = self.family.snapshot_interval();
        let Some(keyed) = self.keys.get_mut(id) else { return };
        keyed.saving.end(&saved, since, Instant::now());
        let is_due = keyed.saving.since >= interval;
        let key = keyed.copies.shared.key.clone();
        match saved {
            Saved::Seen(seen) if seen.diverges => self.diverged(id),
            Saved::Written { before: Some(before), .. } => self.family.compact_later(&key, before),
            _ => {}
        }
        if is_due {
            let rest =
                if matches!(saved, Saved::Failed | Saved::Claimed { .. }) { REST } else { Duration::ZERO };
            self.queue_save(id, rest);
        }
    }

    /// Says how long ago the last snapshot was, which is news only while the next one fails.
    fn tell_age(&mut self, saved: &Saved) {
        let now = Instant::now();
        let succeeded = matches!(saved, Saved::Written { .. } | Saved::Seen(_));
        let last = if succeeded { self.saves.last.insert(now) } else { self.saves.last.get_or_insert(now) };
        self.family.metrics.snapshot_age.set(now.duration_since(*last).as_secs_f64());
    }

    /// Another pod has folded the same records to something else: nobody knows who is right, so nothing is dropped any more.
    fn diverged(&mut self, id: KeyId) {
        let Some(keyed) = self.keys.get(id) else { return };
        let (key, offset) = (keyed.copies.shared.key.clone(), self.cursor.offset);
        tracing::error!(%key, %offset, "this pod's value is not what another pod folded from the same records");
        self.family.metrics.divergence.increment(1);
        self.hold_all(key);
    }

    /// Keeps all of a key from being dropped: two folds of it differ.
    pub(super) fn hold_all(&self, key: Key) {
        let at = self.cursor;
        let core = self.core.clone();
        self.core.supervisor.spawn(format!("hold {}", self.family.name), OnStop::Abort, |_| async move {
            notes::tell(&core, &key, Note::Diverged, at.epoch, at.offset).await;
            Ok(())
        });
    }

    /// Keeps a record that this pod cannot decode from being dropped, and learns whether its loss was accepted.
    pub(super) fn hold(&mut self, id: KeyId, offset: Offset) {
        let Some(keyed) = self.keys.get(id) else { return };
        let (core, key, epoch) = (self.core.clone(), keyed.copies.shared.key.clone(), self.cursor.epoch);
        let name = format!("hold {}", self.family.name);
        self.jobs.push(Box::pin(async move {
            let for_hold = core.clone();
            let job = async move { notes::tell(&for_hold, &key, Note::Undecodable, epoch, offset).await };
            match core.supervisor.run(name, OnStop::Abort, job).await {
                Ok(hold) => Job::Held { key: id, offset, hold },
                Err(_) => std::future::pending().await,
            }
        }));
    }

    pub(super) fn use_held(&mut self, id: KeyId, offset: Offset, hold: Option<Hold>) {
        let Some(keyed) = self.keys.get(id) else { return };
        let key = keyed.copies.shared.key.clone();
        match hold {
            Some(Hold::Accepted) => self.accept(&key, &[offset]),
            Some(Hold::TooLate) => {
                tracing::error!(%key, %offset, "an undecodable record may be compacted away: others could decode it");
            }
            Some(Hold::Held) | None => {}
        }
        self.review_later(id);
    }

    /// Records whose loss was accepted count as no events: once no others were skipped, the value is for others again.
    pub(super) fn accept(&mut self, key: &Key, losses: &[Offset]) {
        for offset in losses {
            self.family.undecodable.lock().forget(key, *offset);
        }
        let interval = self.family.snapshot_interval();
        let Some(id) = self.keys.find(key) else { return };
        let Some(keyed) = self.keys.get_mut(id) else { return };
        for offset in losses {
            if keyed.saving.accept(*offset) {
                keyed.copies.pass(*offset);
            }
        }
        keyed.copies.lack(keyed.saving.first_skipped());
        let saving = &keyed.saving;
        if saving.since >= interval && !saving.is_queued && !saving.is_running && !saving.is_dirty() {
            self.queue_save(id, Duration::ZERO);
        }
        self.keys.touch(id);
    }

    /// Asks after a while whether what a key has skipped was accepted, on this pod or another.
    fn review_later(&mut self, id: KeyId) {
        let Some(keyed) = self.keys.get_mut(id).filter(|keyed| keyed.saving.is_dirty()) else { return };
        if std::mem::replace(&mut keyed.is_reviewed, true) {
            return;
        }
        let (core, key, epoch) = (self.core.clone(), keyed.copies.shared.key.clone(), self.cursor.epoch);
        self.jobs.push(Box::pin(async move {
            tokio::time::sleep(REVIEW).await;
            // A failure is no news: it is asked again.
            let accepted = core.snapshots(&key).accepted_losses(epoch).await.unwrap_or_default();
            Job::Reviewed { key: id, accepted }
        }));
    }

    pub(super) fn use_reviewed(&mut self, id: KeyId, accepted: &[Offset]) {
        let Some(keyed) = self.keys.get_mut(id) else { return };
        keyed.is_reviewed = false;
        let key = keyed.copies.shared.key.clone();
        self.accept(&key, accepted);
        self.review_later(id);
    }
}
