//! The task that compacts a family's keys on a pod: announce, wait, confirm, drop (PROTOCOL §2, §3).
//!
//! It is told of keys whose previous snapshot has moved on. It raises the family's ceiling to what they could let go of, waits until that
//! has been public for the grace period by its own clock, and then drops, key by key. A task that starts anew, here or elsewhere,
//! knows of no wait and waits anew. However long the pod was paused meanwhile, two writes confirm right before each drop what it
//! rests on: one on the control cell, that the ceiling still stands, and one on the key's manifest, that nothing holds the key.

mod candidates;

use std::{error::Error as StdError, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use metrics::{Counter, Gauge, counter, gauge};

use self::candidates::Candidate;
pub(crate) use self::candidates::Candidates;
use super::{
    ambient::Ambient,
    control::{Announced, Control, Pinned},
    metrics::{COMPACTED, COMPACTION_CEILING, COMPACTION_FAILURES},
    retry::Delays,
};
use crate::{BackendError, Backplane, BoxError, Compactor, Epoch, ErrorKind, Family, Head, Key, Offset};

/// How many keys are compacted at the same time.
const CONCURRENCY: usize = 8;
/// After a failure, the least and the most that is waited before trying again.
const DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// The least that is waited for a consumer that pins the ceiling.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Who knows what holds a key.
pub(crate) trait Holds: Send + Sync + 'static {
    /// Confirms by a write that the key may be compacted, and answers below which offset: at most `limit`, its previous snapshot and its
    /// holds. `None` if there is nothing to gain.
    ///
    /// Who finds a new reason to hold the key after this write learns from it that it is too late.
    fn confirm<'a>(
        &'a self,
        key: &'a Key,
        epoch: Epoch,
        limit: Offset,
    ) -> BoxFuture<'a, Result<Option<Offset>, BoxError>>;
}

/// Compacts one family on this pod.
pub(crate) struct Compaction {
    backplane: Arc<dyn Backplane>,
    ambient: Ambient,
    control: Control,
    holds: Arc<dyn Holds>,
    candidates: Candidates,
    grace: Duration,
    /// A ceiling that has been public for the grace period by this task's clock.
    public: Option<Announced>,
    metrics: OfCompaction,
}

impl Compaction {
    /// `grace` is how long a ceiling is public before anything below it is dropped, the same on every pod.
    pub(crate) fn new(
        backplane: Arc<dyn Backplane>,
        ambient: Ambient,
        family: &Family,
        holds: Arc<dyn Holds>,
        grace: Duration,
    ) -> Self {
        Self {
            control: Control::new(backplane.clone(), ambient.entropy.clone(), family.clone())
                .under(ambient.rules()),
            candidates: Candidates::new(family),
            metrics: OfCompaction::new(family),
            public: None,
            backplane,
            ambient,
            holds,
            grace,
        }
    }

    /// Where keys are handed in.
    pub(crate) fn candidates(&self) -> Candidates {
        self.candidates.clone()
    }

    /// Compacts for as long as the engine lives. Dropping it between any two awaits is what a crash is.
    pub(crate) async fn run(mut self) -> Result<(), BoxError> {
        let backplane = self.backplane.clone();
        let Some(compactor) = backplane.compactor() else { return Ok(()) };
        let mut delays = Delays::new(DELAYS.0, DELAYS.1, self.ambient.seed());
        let mut is_said = false;
        loop {
            self.next_round().await;
            match self.round(compactor).await {
                Ok(()) => {
                    delays.reset();
                    is_said = false;
                }
                Err(error) if is_closed(&*error) => return Ok(()),
                Err(error) => {
                    self.metrics.failures.increment(1);
                    self.say(&*error, std::mem::replace(&mut is_said, true));
                    delays.wait().await;
                    self.candidates.wake();
                }
            }
        }
    }

    /// Waits for a key, or until what a consumer pinned is worth another look.
    async fn next_round(&self) {
        if self.candidates.is_empty() {
            return self.candidates.offered().await;
        }
        let pause = tokio::time::sleep(self.grace.max(SHORTEST_PAUSE));
        tokio::select! {
            biased;
            () = self.candidates.offered() => {}
            () = pause => {}
        }
    }

    /// Compacts what was handed in; what could not be compacted, or not as far as it might, is kept for another time.
    async fn round(&mut self, compactor: &dyn Compactor) -> Result<(), BoxError> {
        let mut batch = self.candidates.take();
        let outcome = self.compact(compactor, &mut batch).await;
        batch
            .into_iter()
            .filter(Candidate::has_more)
            .for_each(|candidate| self.candidates.put_back(candidate));
        outcome
    }

    async fn compact(
        &mut self,
        compactor: &dyn Compactor,
        batch: &mut Vec<Candidate>,
    ) -> Result<(), BoxError> {
        let head = self.control.head().await?;
        batch.retain_mut(|candidate| candidate.clamp(head));
        let Some(to) = batch.iter().map(|candidate| candidate.before.offset).max() else { return Ok(()) };
        let (announced, since) = self.announce(Head { epoch: head.epoch, offset: to }).await?;
        let ceiling = announced.ceiling;
        let mut gaining: Vec<_> =
            batch.iter_mut().filter(|candidate| candidate.limit(ceiling) > candidate.done).collect();
        if gaining.is_empty() {
            return Ok(());
        }
        if let Some(since) = since {
            self.wait_until_public(&announced, since).await;
        }
        let mut failed = None;
        for wave in gaining.chunks_mut(CONCURRENCY) {
            let pinned = self.confirm(&announced).await?;
            let keys = wave.iter_mut().map(|candidate| {
                let limit = candidate.limit(ceiling).min(pinned.limit(candidate.instance()));
                self.compact_key(compactor, candidate, ceiling.epoch, limit)
            });
            for outcome in join_all(keys).await {
                // A key that cannot be compacted does not keep its siblings from it.
                if let Err(error) = outcome {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Raises the ceiling; answers what it is, and since when by this pod's clock it is known to be public, unless it has been for
    /// long enough.
    async fn announce(&self, to: Head) -> Result<(Announced, Option<Duration>), BoxError> {
        let covers =
            |public: &&Announced| public.ceiling.epoch == to.epoch && public.ceiling.offset >= to.offset;
        if let Some(public) = self.public.as_ref().filter(covers) {
            return Ok((public.clone(), None));
        }
        let announced = self.control.raise(to).await?;
        self.metrics.ceiling.set(announced.ceiling.offset.0 as f64);
        let is_public = self.public.as_ref() == Some(&announced) || !self.ambient.rules().announce_ceiling;
        // Looked at after the answer: the write may have taken place at its very end.
        Ok((announced, (!is_public).then(|| self.ambient.monotonic.now())))
    }

    async fn wait_until_public(&mut self, announced: &Announced, since: Duration) {
        loop {
            let passed = self.ambient.monotonic.now().saturating_sub(since);
            let Some(left) = self.grace.checked_sub(passed).filter(|left| !left.is_zero()) else { break };
            // The runtime's clock may count otherwise than the one that decides.
            tokio::time::sleep(left).await;
        }
        self.public = Some(announced.clone());
    }

    /// Confirms that the ceiling still stands, in a log that is still the same; answers what single instances are needed for.
    async fn confirm(&mut self, announced: &Announced) -> Result<Pinned, BoxError> {
        if !self.ambient.rules().confirm_by_cas {
            return Ok(Pinned::default());
        }
        let Some(pinned) = self.control.confirm(announced).await? else {
            self.public = None;
            return Err("what was announced no longer stands: the control cell was replaced".into());
        };
        // The cell does not know of a log that was replaced until somebody has told it.
        let head = self.control.head().await?;
        if head.epoch != announced.ceiling.epoch {
            return Err(format!("the log is in epoch {} now", head.epoch).into());
        }
        Ok(pinned)
    }

    async fn compact_key(
        &self,
        compactor: &dyn Compactor,
        candidate: &mut Candidate,
        epoch: Epoch,
        limit: Offset,
    ) -> Result<(), BoxError> {
        if limit <= candidate.done {
            return Ok(());
        }
        if let Some(before) = self.holds.confirm(&candidate.key, epoch, limit).await? {
            let floor = compactor.compact(&candidate.key, before.min(limit)).await?;
            tracing::debug!(key = %candidate.key, %floor, "compacted");
            self.metrics.compacted.increment(1);
        }
        candidate.done = limit;
        Ok(())
    }

    fn say(&self, error: &(dyn StdError + 'static), is_said: bool) {
        let family = self.control.family();
        let source = error.source().map(ToString::to_string).unwrap_or_default();
        if is_said {
            tracing::debug!(%family, %error, source, "still not compacted");
        } else {
            tracing::warn!(%family, %error, source, "compaction failed; trying again");
        }
    }
}

/// A family's handles, looked up once.
struct OfCompaction {
    ceiling: Gauge,
    compacted: Counter,
    failures: Counter,
}

impl OfCompaction {
    fn new(family: &Family) -> Self {
        let label = family.as_str().to_owned();
        Self {
            ceiling: gauge!(COMPACTION_CEILING, "family" => label.clone()),
            compacted: counter!(COMPACTED, "family" => label.clone()),
            failures: counter!(COMPACTION_FAILURES, "family" => label),
        }
    }
}

/// Whether the backplane was closed, whoever passes that on.
fn is_closed(error: &(dyn StdError + 'static)) -> bool {
    match error.downcast_ref::<BackendError>() {
        Some(error) => error.kind() == ErrorKind::Closed,
        None => error.source().is_some_and(is_closed),
    }
}

#[cfg(test)]
mod tests;
