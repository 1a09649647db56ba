//! Compaction: raise the floor, then drop below it in bounded steps.

use std::ops::Range;

use via_backplane::{Key, Offset};

use super::{
    chunk::Body,
    family::{Log, State},
};

/// How many records are dropped under one hold of the family's lock.
const STEP: u64 = 1024;

pub(crate) enum Progress {
    /// Everything below this floor is dropped.
    Done(Offset),
    /// The floor holds, and there is more to drop.
    More,
}

impl Log {
    /// Raises the key's floor and drops up to [`STEP`] records below it.
    pub(crate) fn compact_some(&self, key: &Key, before: Offset) -> Progress {
        // Freed after the lock is let go: a chunk's records are many frees.
        let mut freed = Vec::new();
        self.state.lock().compact_some(key, before.0, &mut freed)
    }
}

impl State {
    fn compact_some(&mut self, key: &Key, before: u64, freed: &mut Vec<Body>) -> Progress {
        let Some(number) = self.keys.find(key) else { return Progress::Done(Offset::BEGIN) };
        let state = self.keys.get_mut(number);
        // Clamped to the head, which is therefore never dropped.
        let target = before.min(state.runs.head());
        if target > state.floor {
            // The floor and what it costs are known before the first record goes.
            state.floor = target;
            self.is_compacted = true;
            if let (Some(first), Some(last)) = (state.runs.first(), state.runs.last_below(target)) {
                self.losses.note(number, first, last);
            }
        }
        let floor = state.floor;
        let mut left = STEP;
        while let Some(offsets) = self.keys.get_mut(number).runs.pop_below(floor, left) {
            left -= offsets.end - offsets.start;
            self.drop_records(offsets, freed);
            if left == 0 {
                return Progress::More;
            }
        }
        Progress::Done(Offset(floor))
    }

    /// Drops consecutive records, segment by segment.
    fn drop_records(&mut self, offsets: Range<u64>, freed: &mut Vec<Body>) {
        let mut from = offsets.start;
        while from < offsets.end {
            let next = self.segments.range(from + 1..).next().map_or(u64::MAX, |(first, _)| *first);
            let (first, segment) = self.segment_with(from).expect("a retained record lies in a segment");
            segment.drop_records(from..offsets.end.min(next));
            from = next;
            self.shrink(first, freed);
        }
    }

    /// Lets go of what dropped records occupy in the segment that starts at `first`.
    fn shrink(&mut self, first: u64, freed: &mut Vec<Body>) {
        let Some(segment) = self.segments.get_mut(&first) else { return };
        if !segment.is_mostly_dropped() {
            return;
        }
        if segment.live() > 0 {
            freed.push(segment.thin());
        } else {
            freed.extend(self.segments.remove(&first).map(super::chunk::Segment::into_body));
        }
        // The chunk that was being filled is no longer part of the log; what comes next gets another.
        if first == self.open.chunk.first() {
            self.open_next();
        }
    }
}
