//! A value being folded, batch by batch.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Failed, Loaded};
use crate::{
    Batch, Cursor, Event, Fold, Head, Offset, Stored,
    engine::{
        decode::{Decoded, Problem, decode},
        projection::{Halt, HaltReason, Published, fold_all},
    },
};

pub(super) struct Folding<E, S> {
    loaded: Loaded<S>,
    stop: Option<Halt>,
    events: Vec<Decoded<E>>,
    /// The last record looked at.
    seen: Offset,
}

impl<E: Event + Fold<S>, S> Folding<E, S> {
    pub(super) fn new(loaded: Loaded<S>, stop: Option<Halt>) -> Self {
        let folded = loaded.value.as_ref().map_or(Offset::BEGIN, |value| value.key_head.offset);
        Self { seen: folded.max(loaded.complete_to), loaded, stop, events: Vec::new() }
    }

    /// The last record looked at.
    pub(super) fn seen(&self) -> Offset {
        self.seen
    }

    fn value(&mut self) -> &mut Published<S> {
        self.loaded.value.as_mut().expect("a value that is being folded is there")
    }

    /// The last record in the value.
    pub(super) fn cursor(&self) -> Cursor {
        self.loaded.value.as_ref().map_or(Cursor::begin(self.loaded.epoch), |value| value.key_head)
    }

    /// Folds what is new in a batch; `false` once the key is halted.
    pub(super) fn take(&mut self, batch: &Batch) -> Result<bool, Failed> {
        if batch.epoch() != self.loaded.epoch {
            return Err(Failed::Replaced);
        }
        let (seen, stop) = (self.seen, self.stops_at());
        let accepted = std::mem::take(&mut self.loaded.accepted);
        let mut records = batch.iter().filter(|record| {
            record.offset > seen && record.offset < stop && accepted.binary_search(&record.offset).is_err()
        });
        let outcome = self.take_records(&mut records);
        self.loaded.accepted = accepted;
        let last = batch.last().map_or(Offset::BEGIN, |record| record.offset);
        if outcome? && last < stop {
            // The last ones may be losses that were accepted.
            self.seen = self.seen.max(last);
            return Ok(true);
        }
        Ok(false)
    }

    /// Folds records one after the other; `false` once the key is halted.
    fn take_records<'a>(
        &mut self,
        mut records: &mut impl Iterator<Item = Stored<'a>>,
    ) -> Result<bool, Failed> {
        loop {
            let met = self.decode_some(&mut records);
            self.fold()?;
            let Some((at, problem)) = met else { return Ok(true) };
            match problem {
                Problem::Undecodable(error) => self.loaded.skipped.push((at, error)),
                Problem::Newer { name, version } => {
                    self.halt(at, HaltReason::NewerVersion { name, version });
                    return Ok(false);
                }
                Problem::Unknown { name } => {
                    self.halt(at, HaltReason::UnknownEvent { name });
                    return Ok(false);
                }
            }
        }
    }

    /// The record that is not to be folded any more.
    fn stops_at(&self) -> Offset {
        self.stop.as_ref().map_or(Offset(u64::MAX), |halt| halt.at)
    }

    /// Decodes until there are no more records, or one that does not.
    ///
    /// A decoder's panic is caught here and not around each, which would cost as much as decoding.
    fn decode_some<'a>(
        &mut self,
        records: &mut impl Iterator<Item = Stored<'a>>,
    ) -> Option<(Offset, Problem)> {
        let mut decoding = None;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for record in records {
                decoding = Some(record.offset);
                match decode::<E>(&record) {
                    Ok(decoded) => self.events.push(decoded),
                    Err(problem) => return Some((record.offset, problem)),
                }
            }
            None
        }));
        self.seen = decoding.unwrap_or(self.seen);
        outcome.unwrap_or_else(|panic| {
            let at = decoding.expect("only decoders panic here");
            Some((at, Problem::panicked(&*panic)))
        })
    }

    fn fold(&mut self) -> Result<(), Failed> {
        let mut events = std::mem::take(&mut self.events);
        let (count, epoch) = (events.len() as u64, self.loaded.epoch);
        let outcome = fold_all(self.value(), epoch, events.drain(..));
        self.events = events;
        self.loaded.folded += count;
        outcome.map_err(Failed::Panicked)
    }

    fn halt(&mut self, at: Offset, reason: HaltReason) {
        self.loaded.halt = Some(Halt { at, reason });
    }

    /// What was loaded when `head` was the key's head, or when it was already past it.
    pub(super) fn into_loaded(mut self, head: Head) -> Loaded<S> {
        if self.loaded.halt.is_none() {
            self.loaded.halt = self.stop.take();
        }
        self.loaded.complete_to = self.seen.max(head.offset);
        self.loaded
    }
}
