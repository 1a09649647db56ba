//! Taking digests of values, where the app wants its pods compared.

use std::num::NonZeroU64;

use super::{Projector, loading::Job};
use crate::{
    Event, Fold, FoldState, Offset, RecordId,
    engine::{
        keys::KeyId,
        sampling::{self, Sample},
        supervisor::JobError,
    },
};

/// Digests of one family that are computed at the same time; each holds a value.
const MAX_SAMPLES: usize = 4;

/// The digests of a family.
pub(super) struct Samples {
    /// After one in how many records; none if there are none, or they say nothing.
    one_in: Option<NonZeroU64>,
    running: usize,
}

impl Samples {
    pub(super) fn new(one_in: Option<NonZeroU64>) -> Self {
        Self { one_in, running: 0 }
    }

    pub(super) fn are_on(&self) -> bool {
        self.one_in.is_some()
    }

    /// Forgets those under way.
    pub(super) fn clear(&mut self) {
        self.running = 0;
    }
}

impl<E, S> Projector<E, S>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    /// Whether a digest is taken after a record.
    pub(super) fn is_sampled(&self, key: KeyId, id: RecordId) -> bool {
        let Some(one_in) = self.samples.one_in.filter(|_| self.samples.running < MAX_SAMPLES) else {
            return false;
        };
        self.keys.get(key).is_some_and(|keyed| keyed.sampling.chooses(one_in, id))
    }

    /// Takes a digest of a value whose last record was just folded.
    pub(super) fn sample(&mut self, id: KeyId, at: Offset) {
        let Some(keyed) = self.keys.get_mut(id) else { return };
        // A value that lacks a record, or waits for a copy, is another one.
        let held = keyed.copies.hold().filter(|held| held.key_head.offset == at && !keyed.saving.is_dirty());
        let Some(held) = held else { return };
        let looks = keyed.sampling.begin();
        self.samples.running += 1;
        let core = self.core.clone();
        self.jobs.push(Box::pin(async move {
            match sampling::sample(&core, held, looks).await {
                Ok(sample) => Job::Sampled { key: id, sample: Some(sample) },
                Err(JobError::Panicked(message)) => {
                    tracing::error!(message, "a state panicked while it was written down for its digest");
                    Job::Sampled { key: id, sample: None }
                }
                // The engine stops, and this projector with it.
                Err(JobError::Stopped) => std::future::pending().await,
            }
        }));
    }

    pub(super) fn use_sample(&mut self, id: KeyId, sample: Option<Sample>) {
        self.samples.running = self.samples.running.saturating_sub(1);
        let Some(keyed) = self.keys.get_mut(id) else { return };
        keyed.sampling.end(sample.as_ref());
        let projection = &keyed.copies.shared;
        match sample {
            Some(Sample::Taken { sampled, .. }) => {
                projection.note_sampled(sampled);
                if projection.key.instance_name().is_none() {
                    self.family.metrics.show_digest(&sampled);
                }
            }
            Some(Sample::Meaningless) => {
                tracing::warn!(key = %projection.key, "the state is written in another order by each pod, as a `HashMap` is, or cannot be written: it has no digests");
                self.samples.one_in = None;
            }
            None => {}
        }
    }
}
