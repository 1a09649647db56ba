//! The offsets of one key.

use std::{collections::VecDeque, ops::Range};

/// How many runs a block holds. Blocks bound what growing or shrinking the index moves at once.
const BLOCK: usize = 128;

/// A key's retained offsets in order, as runs of consecutive ones.
///
/// A family with one instance has a single run, however long its log is; and a key with one record needs no allocation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs {
    older: VecDeque<VecDeque<Run>>,
    last: Run,
}

/// Consecutive offsets; empty only before a key's first record.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    start: u64,
    end: u64,
}

impl Runs {
    /// The key's head, 0 if it has no record.
    pub(crate) fn head(&self) -> u64 {
        self.last.end.saturating_sub(1)
    }

    /// The lowest offset.
    pub(crate) fn first(&self) -> Option<u64> {
        self.runs_from(0).next().map(|run| run.start)
    }

    pub(crate) fn push(&mut self, offset: u64) {
        if self.last.end == offset {
            self.last.end += 1;
            return;
        }
        if self.last.end > 0 {
            self.retire(self.last);
        }
        self.last = Run { start: offset, end: offset + 1 };
    }

    fn retire(&mut self, run: Run) {
        match self.older.back_mut() {
            Some(block) if block.len() < BLOCK => block.push_back(run),
            _ => self.older.push_back(VecDeque::from([run])),
        }
    }

    /// Takes up to `limit` of the lowest offsets, if they are below `floor`.
    pub(crate) fn pop_below(&mut self, floor: u64, limit: u64) -> Option<Range<u64>> {
        let front = match self.older.front_mut() {
            Some(block) => block.front_mut().expect("a block is never empty"),
            None => &mut self.last,
        };
        let taken = front.start..front.end.min(floor).min(front.start.saturating_add(limit));
        if taken.is_empty() {
            return None;
        }
        front.start = taken.end;
        if front.start == front.end {
            self.drop_front();
        }
        Some(taken)
    }

    fn drop_front(&mut self) {
        let block = self.older.front_mut().expect("the last run keeps the key's head");
        block.pop_front();
        if block.is_empty() {
            self.older.pop_front();
        }
    }

    /// The highest offset below `floor`.
    pub(crate) fn last_below(&self, floor: u64) -> Option<u64> {
        if (self.last.start..self.last.end).contains(&floor.saturating_sub(1)) {
            return Some(floor - 1);
        }
        if self.last.end > 0 && self.last.end <= floor {
            return Some(self.last.end - 1);
        }
        let block = self.older.partition_point(|block| block.front().is_some_and(|run| run.start < floor));
        let block = self.older.get(block.checked_sub(1)?)?;
        let run = block.partition_point(|run| run.start < floor);
        let run = block.get(run.checked_sub(1)?)?;
        Some(run.end.min(floor) - 1)
    }

    /// The offsets above `after`, in order, as ranges.
    pub(crate) fn above(&self, after: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let from = after.saturating_add(1);
        self.runs_from(from).map(move |run| run.start.max(from)..run.end)
    }

    /// The runs that end above `from`.
    fn runs_from(&self, from: u64) -> impl Iterator<Item = Run> + '_ {
        let ends_before = |run: &Run| run.end <= from;
        let block = self.older.partition_point(|block| block.back().is_some_and(ends_before));
        let skip = self.older.get(block).map_or(0, |block| block.partition_point(ends_before));
        let older = self.older.range(block..).flatten().skip(skip);
        older.copied().chain([self.last]).filter(move |run| run.end > from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(runs: &Runs, after: u64) -> Vec<u64> {
        runs.above(after).flatten().collect()
    }

    #[test]
    fn consecutive_offsets_are_one_run_and_gaps_split() {
        let mut runs = Runs::default();
        assert_eq!((runs.head(), runs.first(), runs.last_below(9)), (0, None, None));
        [3, 4, 5, 9, 20, 21].into_iter().for_each(|offset| runs.push(offset));
        assert_eq!(offsets(&runs, 0), [3, 4, 5, 9, 20, 21]);
        assert_eq!(offsets(&runs, 4), [5, 9, 20, 21]);
        assert_eq!(offsets(&runs, 21), [0; 0]);
        assert_eq!((runs.head(), runs.first()), (21, Some(3)));
    }

    #[test]
    fn last_below_finds_the_highest_lower_offset() {
        let mut runs = Runs::default();
        (0..1000).for_each(|n| runs.push(10 + n * 3));
        for floor in 0..3100 {
            let expected = (0..1000).map(|n| 10 + n * 3).filter(|offset| *offset < floor).max();
            assert_eq!(runs.last_below(floor), expected, "floor {floor}");
        }
    }

    #[test]
    fn popping_takes_the_lowest_in_bounded_steps_and_spares_the_floor() {
        let mut runs = Runs::default();
        (0..300).for_each(|n| runs.push(1 + n * 2));
        (700..800).for_each(|offset| runs.push(offset));
        let mut popped = Vec::new();
        while let Some(range) = runs.pop_below(750, 7) {
            assert!(range.end - range.start <= 7);
            popped.extend(range);
        }
        let expected: Vec<_> = (0..300).map(|n| 1 + n * 2).chain(700..750).collect();
        assert_eq!(popped, expected);
        assert_eq!(offsets(&runs, 0), (750..800).collect::<Vec<_>>());
        assert_eq!(runs.pop_below(750, 7), None);
    }
}
