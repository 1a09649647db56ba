//! A value being folded, batch by batch.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Bound, Failed, Loaded};
use crate::{
    Batch, Cursor, Event, Fold, Head, Offset, Stored,
    engine::{
        decode::{Decoded, Problem, decode},
        projection::{Halt, HaltReason, Panicked, Published, fold_all},
    },
};

pub(super) struct Folding<E, S> {
    loaded: Loaded<S>,
    bound: Bound,
    events: Vec<Decoded<E>>,
    /// The last record looked at.
    seen: Offset,
}

impl<S> Loaded<S> {
    /// Folds records on top that came since, or says what stops them; then there is no value any more.
    pub(in crate::engine) fn on<E: Event + Fold<S>>(self, batch: &Batch) -> Result<Self, Halt> {
        let complete_to = batch.last().map_or(Offset::BEGIN, |last| last.offset).max(self.complete_to);
        let head = Head { epoch: self.epoch, offset: complete_to };
        let mut folding = Folding::<E, S>::new(self, Bound::Head);
        match folding.take(batch) {
            Ok(_) => Ok(folding.into_loaded(head)),
            Err(Failed::Panicked(Panicked { at, message })) => {
                Err(Halt { at, reason: HaltReason::Panicked { message } })
            }
            Err(Failed::Backend(_) | Failed::Replaced) => unreachable!("it is a batch of the same log"),
        }
    }
}

impl<E: Event + Fold<S>, S> Folding<E, S> {
    pub(super) fn new(loaded: Loaded<S>, bound: Bound) -> Self {
        let folded = loaded.value.as_ref().map_or(Offset::BEGIN, |value| value.key_head.offset);
        Self { seen: folded.max(loaded.complete_to), loaded, bound, events: Vec::new() }
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
        let (seen, bound) = (self.seen, self.bound.clone());
        let accepted = std::mem::take(&mut self.loaded.accepted);
        let mut records = batch.iter().filter(|record| {
            record.offset > seen
                && bound.has(record.offset)
                && accepted.binary_search(&record.offset).is_err()
        });
        let outcome = self.take_records(&mut records);
        self.loaded.accepted = accepted;
        let last = batch.last().map_or(Offset::BEGIN, |record| record.offset);
        if outcome? && bound.has(last) {
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
        self.loaded.complete_to = self.seen.max(head.offset);
        match self.bound {
            Bound::Head => {}
            Bound::Through(last) => self.loaded.complete_to = self.loaded.complete_to.min(last),
            Bound::Before(halt) => {
                self.loaded.halt.get_or_insert(halt);
            }
        }
        self.loaded
    }
}
