//! Folding what the tail brings.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{Ended, Projector};
use crate::{
    Batch, Cursor, Event, Fold, FoldState, Offset, RecordId, Stored,
    engine::{
        decode::{Problem, Undecodable, decode, identity},
        keys::KeyId,
        projection::{Folded, Halt, HaltReason, Run},
    },
    envelope::{self, Envelope},
};

/// A run being gathered; its decoded events are in the projector's buffer.
#[derive(Clone, Copy)]
pub(super) struct OpenRun {
    key: KeyId,
    first_slot: usize,
    last_slot: usize,
}

impl<E, S> Projector<E, S>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    /// Folds a batch, publishes it, and wakes readers.
    pub(super) fn take(&mut self, batch: &Batch) -> Result<(), Ended> {
        if batch.epoch() != self.cursor.epoch && self.core.ambient.rules().compare_epochs {
            return Err(Ended::Changed);
        }
        self.fold(batch, self.cursor.offset);
        self.advance(batch);
        self.publish();
        self.keys.announce_touched();
        Ok(())
    }

    /// Folds a batch's records above an offset.
    pub(super) fn fold(&mut self, batch: &Batch, above: Offset) {
        let mut run: Option<OpenRun> = None;
        let mut records = batch.slots().filter(|(_, record)| record.offset > above);
        while let Err(panic) = self.take_records(batch, &mut run, &mut records) {
            self.skip_panicked(batch, run.take(), &*panic);
        }
        self.close(batch, run);
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
                let identity = self.take_record(batch, run, slot, &record);
                self.identities.push((record.offset, identity));
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
        let key = self.keys.find(record.key).expect("only records of keys that are here are decoded");
        self.meet_problem(key, &record, Problem::panicked(panic));
        self.identities.push((record.offset, identity(&record)));
    }

    fn take_record(
        &mut self,
        batch: &Batch,
        run: &mut Option<OpenRun>,
        slot: usize,
        record: &Stored<'_>,
    ) -> RecordId {
        let key = match run {
            Some(open) if self.keys.is(open.key, record.key) => open.key,
            _ => {
                self.close(batch, run.take());
                match self.keys.find(record.key) {
                    Some(key) if self.is_followed(key, record) => key,
                    // Nobody asked for it, or it is halted, or kept for later: it still counts as seen by the family.
                    _ => return identity(record),
                }
            }
        };
        self.decoding = Some(slot);
        let decoded = decode::<E>(record);
        self.decoding = None;
        match decoded {
            Ok(decoded) => {
                let id = decoded.id();
                self.events.push(decoded);
                run.get_or_insert(OpenRun { key, first_slot: slot, last_slot: slot }).last_slot = slot;
                if self.samples.are_on() && self.is_sampled(key, id) {
                    // The value as it is after this record and before the next.
                    self.close(batch, run.take());
                    self.sample(key, record.offset);
                }
                id
            }
            Err(problem) => {
                self.close(batch, run.take());
                self.meet_problem(key, record, problem);
                identity(record)
            }
        }
    }

    /// Whether a key's value takes this record now. While the value is being loaded, the record is kept for it.
    fn is_followed(&mut self, key: KeyId, record: &Stored<'_>) -> bool {
        let keeps = self.core.ambient.rules().buffer_while_loading;
        let Some(keyed) = self.keys.get_mut(key) else { return false };
        let is_followed = match &mut keyed.loading {
            Some(buffer) => {
                if keeps {
                    buffer.add(record);
                }
                false
            }
            None => !keyed.halted && record.offset > keyed.complete_to,
        };
        if !is_followed {
            keyed.keep(record);
        }
        is_followed
    }

    fn meet_problem(&mut self, key: KeyId, record: &Stored<'_>, problem: Problem) {
        if let Some(keyed) = self.keys.get_mut(key) {
            keyed.keep(record);
        }
        match problem {
            Problem::Undecodable(error) => self.skip(key, record.offset, &error),
            Problem::Newer { name, version } => {
                self.halt(
                    key,
                    Halt { at: record.offset, reason: HaltReason::NewerVersion { name, version } },
                );
            }
            Problem::Unknown { name } => {
                self.halt(key, Halt { at: record.offset, reason: HaltReason::UnknownEvent { name } });
            }
        }
    }

    /// Passes over a record that does not decode: its key's value is no longer for others, and nobody may drop the record.
    pub(super) fn skip(&mut self, id: KeyId, offset: Offset, error: &Undecodable) {
        let Some(keyed) = self.keys.get_mut(id) else { return };
        keyed.saving.skip(offset);
        keyed.copies.lack(keyed.saving.first_skipped());
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        let told = if cause.is_empty() { error.to_string() } else { format!("{error}: {cause}") };
        if self.family.undecodable.lock().note(&keyed.copies.shared.key, offset, &told) {
            tracing::error!(key = %keyed.copies.shared.key, %offset, %error, cause, "an undecodable record was skipped");
            self.family.metrics.undecodable.increment(1);
        }
        self.keys.touch(id);
        self.hold(id, offset);
    }

    /// Folds what a run has gathered.
    fn close(&mut self, batch: &Batch, run: Option<OpenRun>) {
        let Some(open) = run else { return };
        let run = Run { batch, first_slot: open.first_slot, last_slot: open.last_slot };
        let records = self.events.len();
        let keyed = self.keys.get_mut(open.key).expect("no key leaves while a batch is taken");
        if keyed.refolding.is_some() {
            run.records().for_each(|record| keyed.keep(&record));
        }
        let folded = keyed.copies.fold(run, &mut self.events);
        if self.core.settings.fold_verify && !matches!(folded, Folded::Panicked(_)) {
            self.fold_again(open.key, run);
        }
        match folded {
            Folded::Published => {
                self.keys.touch(open.key);
                self.count_folded(open.key, records);
            }
            Folded::Held(load) => {
                self.waiting += load;
                self.want_copy(open.key);
                self.count_folded(open.key, records);
            }
            Folded::Panicked(panicked) => self.undo(open.key, panicked),
        }
        if self.lag.is_too_large() {
            self.keys.give_up_spares();
        }
    }

    pub(super) fn halt(&mut self, key: KeyId, halt: Halt) {
        let Some(keyed) = self.keys.get_mut(key) else { return };
        keyed.halted = true;
        keyed.copies.halt(halt.clone());
        self.keys.touch(key);
        self.tell_of_halt(key, &halt);
    }

    /// Says in the log and in metrics that a key goes no further.
    pub(super) fn tell_of_halt(&self, key: KeyId, halt: &Halt) {
        let Some(keyed) = self.keys.get(key) else { return };
        let metrics = &self.family.metrics;
        tracing::error!(key = %keyed.copies.shared.key, offset = %halt.at, reason = %halt.reason, "the key is halted on this pod");
        metrics.halted(&halt.reason).increment(1.0);
        match &halt.reason {
            HaltReason::NewerVersion { .. }
            | HaltReason::UnknownEvent { .. }
            | HaltReason::NewerState { .. } => {
                metrics.forward_incompatible.increment(1);
            }
            HaltReason::Compacted { .. } => metrics.gap_halt.increment(1),
            HaltReason::Unbridgeable { .. } => metrics.unbridgeable.increment(1),
            HaltReason::Panicked { .. } | HaltReason::Lost => {}
        }
    }

    /// Moves the cursor to the batch's last record.
    fn advance(&mut self, batch: &Batch) {
        let Some(&(offset, id)) = self.identities.last() else { return };
        self.cursor = Cursor { epoch: self.cursor.epoch, offset, id };
        let last = batch.last();
        self.cursor_key = last.map(|record| record.key.clone());
        self.family.recent.lock().extend(&mut self.identities);
        self.family.metrics.lag_events.set(self.target.0.saturating_sub(offset.0) as f64);
        if let Some(appended) = last.and_then(|record| appended_at(&record)) {
            let age = self.core.ambient.clock.now().duration_since(appended).unwrap_or_default();
            self.family.metrics.lag_seconds.set(age.as_secs_f64());
        }
    }
}

fn appended_at(record: &Stored<'_>) -> Option<std::time::SystemTime> {
    Envelope::decode(record.bytes).ok().map(|envelope| envelope::system_time(envelope.time))
}
