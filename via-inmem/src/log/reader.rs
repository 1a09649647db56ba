//! Reading on from an offset, for tails and bounded reads alike.

use std::{ops::Range, sync::Arc};

use via_backplane::{BackendError, Batch, Epoch, ErrorKind, Hole, Key, Offset, ReadRange, Records, Selector};

use super::{
    chunk::{Chunk, MAX_SLOTS, Picked, Segment},
    family::{Log, State},
    losses::{Holes, KeyNumber, Turn},
};

/// Where a reader stands in a log.
pub(crate) struct Reader {
    selector: Selector,
    pub(crate) after: u64,
    holes: Holes,
    seen: Turn,
}

/// The next records of a reader, without a copy of any.
pub(crate) struct Portion {
    pub(crate) records: Arc<dyn Records>,
    pub(crate) slots: Range<usize>,
    pub(crate) hole: Option<Hole>,
    /// The chunk the records lie in, if they are a run of slots of one.
    pub(crate) chunk: Option<Arc<Chunk>>,
    last: u64,
}

impl Portion {
    pub(crate) fn into_batch(self, epoch: Epoch) -> Batch {
        let batch = Batch::new(epoch, self.records, self.slots);
        match self.hole {
            Some(hole) => batch.with_hole(hole),
            None => batch,
        }
    }
}

impl Reader {
    pub(crate) fn new(selector: Selector, after: Offset, holes: Holes) -> Self {
        Self { selector, after: after.0, holes, seen: Turn::START }
    }

    pub(crate) fn selector(&self) -> &Selector {
        &self.selector
    }

    /// The next records up to `up_to`, at most `limit` and at most a chunk's worth; moves past them.
    pub(crate) fn next(&mut self, state: &State, up_to: u64, limit: usize) -> Option<Portion> {
        let limit = limit.min(MAX_SLOTS);
        if limit == 0 || self.after >= up_to.min(state.head) {
            return None;
        }
        let mut portion = match &self.selector {
            Selector::Family(_) => state.family_portion(self.after, up_to, limit)?,
            Selector::Key(key) => state.key_portion(state.keys.find(key)?, self.after, up_to, limit)?,
        };
        portion.hole = self.hole(state, portion.last);
        self.after = portion.last;
        Some(portion)
    }

    fn hole(&mut self, state: &State, to: u64) -> Option<Hole> {
        if self.holes != Holes::Told {
            return None;
        }
        let lost: Vec<KeyNumber> = match &self.selector {
            Selector::Family(_) => state.losses.crossed(self.after, to, &mut self.seen),
            Selector::Key(key) => {
                let lost =
                    state.keys.find(key).filter(|key| state.losses.ahead(*key, self.after, &mut self.seen));
                lost.into_iter().collect()
            }
        };
        let floor = |number: KeyNumber| {
            let state = state.keys.get(number);
            (state.key.clone(), Offset(state.floor))
        };
        (!lost.is_empty()).then(|| Hole { floors: lost.into_iter().map(floor).collect() })
    }
}

impl State {
    fn family_portion(&self, after: u64, up_to: u64, limit: usize) -> Option<Portion> {
        let from = after + 1;
        let to = up_to.saturating_add(1);
        let holding = self.segments.range(..=from).next_back();
        let following = self.segments.range(from + 1..to.max(from + 1));
        // The first of these may have nothing left at or above `from`; a later one always has.
        holding.into_iter().chain(following).find_map(|(_, segment)| segment.portion(from..to, limit))
    }

    fn key_portion(&self, key: KeyNumber, after: u64, up_to: u64, limit: usize) -> Option<Portion> {
        let mut pieces = self.key_pieces(key, after, up_to);
        let first = pieces.next()?;
        // A run that fills the batch, or is all there is, needs no list of slots.
        let Some(second) = (first.slots.len() < limit).then(|| pieces.next()).flatten() else {
            return Some(first.cut(limit));
        };
        let mut picked = Picked::default();
        let mut last = 0;
        for piece in [first, second].into_iter().chain(pieces) {
            let left = limit - picked.len();
            if left == 0 {
                break;
            }
            let piece = piece.cut(left);
            last = piece.last;
            picked.add(piece.records, piece.slots);
        }
        Some(Portion::picked(picked, last))
    }

    /// The key's records as runs of slots, each within a segment. Lazy: it costs what is taken.
    fn key_pieces(&self, key: KeyNumber, after: u64, up_to: u64) -> impl Iterator<Item = Portion> + '_ {
        let to = up_to.saturating_add(1);
        let runs = self.keys.get(key).runs.above(after).map(move |run| run.start..run.end.min(to));
        runs.take_while(|run| !run.is_empty()).flat_map(move |run| {
            let holding = self.segments.range(..=run.start).next_back().into_iter();
            let following = self.segments.range(run.start + 1..run.end.max(run.start + 1));
            holding.chain(following).filter_map(move |(_, segment)| {
                // Offsets of a run are consecutive, so their slots are too.
                Portion::run(segment, segment.slots(run.clone()))
            })
        })
    }
}

impl Segment {
    /// The live records of a range of offsets, at most `limit`.
    fn portion(&self, offsets: Range<u64>, limit: usize) -> Option<Portion> {
        let slots = self.slots(offsets);
        if !self.has_dropped(slots.clone()) {
            return Portion::run(self, slots).map(|portion| portion.cut(limit));
        }
        let live: Vec<usize> = self.live_slots(slots).take(limit).collect();
        let last = self.offset_of(*live.last()?);
        let mut picked = Picked::default();
        picked.add(self.records(), live);
        Some(Portion::picked(picked, last))
    }
}

impl Portion {
    fn run(segment: &Segment, slots: Range<usize>) -> Option<Self> {
        let last = segment.offset_of(slots.end.checked_sub(1).filter(|last| slots.contains(last))?);
        let chunk = segment.chunk().cloned();
        Some(Self { records: segment.records(), slots, hole: None, chunk, last })
    }

    fn picked(picked: Picked, last: u64) -> Self {
        let slots = 0..picked.len();
        Self { records: Arc::new(picked), slots, hole: None, chunk: None, last }
    }

    /// At most `limit` of a run of slots.
    fn cut(mut self, limit: usize) -> Self {
        let excess = self.slots.len().saturating_sub(limit);
        if excess > 0 {
            self.slots.end -= excess;
            let last = self.records.get(self.slots.end - 1).expect("a run of slots has no empty one");
            self.last = last.offset.0;
        }
        self
    }
}

impl Log {
    /// A bounded read. The lock is held for one batch at a time, however much is read.
    pub(crate) fn read(&self, selector: &Selector, range: ReadRange) -> Result<Batch, BackendError> {
        let mut reader = Reader::new(selector.clone(), range.after, self.holes);
        let generation = self.generation();
        let mut portions = Vec::new();
        let mut left = range.limit;
        let epoch = loop {
            let state = self.state.lock();
            if self.generation() != generation {
                return Err(replaced());
            }
            let Some(portion) = reader.next(&state, range.up_to.0, left) else { break state.epoch };
            left -= portion.slots.len();
            portions.push(portion);
        };
        Ok(join(portions, epoch))
    }
}

fn join(mut portions: Vec<Portion>, epoch: Epoch) -> Batch {
    match portions.pop() {
        None => Batch::of(epoch, Vec::new()),
        Some(only) if portions.is_empty() => only.into_batch(epoch),
        Some(last) => {
            let mut picked = Picked::default();
            let mut floors: Vec<(Key, Offset)> = Vec::new();
            for portion in portions.into_iter().chain([last]) {
                floors.extend(portion.hole.into_iter().flat_map(|hole| hole.floors));
                picked.add(portion.records, portion.slots);
            }
            let hole = (!floors.is_empty()).then_some(Hole { floors });
            Portion { hole, ..Portion::picked(picked, 0) }.into_batch(epoch)
        }
    }
}

pub(crate) fn replaced() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the log was replaced")
}
