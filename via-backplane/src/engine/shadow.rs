//! A second value of a key, folded beside the published one from the same records.

use super::{
    decode::decode,
    digest,
    projection::{Published, Run, fold_all},
};
use crate::{Event, Fold, FoldState, Offset};

/// What comparing may cost: so many bytes are written down per event, however large the state is.
const BYTES_PER_EVENT: usize = 1_024;

/// The second value. It is never shown.
pub(super) struct Shadow<S> {
    value: Published<S>,
    /// Up to here the two were the same.
    agreed: Offset,
    /// A fold of it panicked where the published value's did not.
    is_torn: bool,
    /// Bytes that may be written down by now.
    credit: usize,
    /// How many bytes comparing took last.
    cost: usize,
}

/// Between which offsets the two parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Between {
    pub(super) after: Offset,
    pub(super) by: Offset,
}

impl<S: FoldState> Shadow<S> {
    pub(super) fn of(value: &Published<S>) -> Self {
        let (value, agreed) = (value.clone(), value.key_head.offset);
        Self { value, agreed, is_torn: false, credit: 0, cost: 0 }
    }

    /// Folds a run that the published value has folded, from its records.
    pub(super) fn fold<E: Event + Fold<S>>(&mut self, run: Run<'_>) {
        let mut records = 0;
        let events = run.records().filter_map(|record| decode::<E>(&record).ok()).inspect(|_| records += 1);
        self.is_torn |= fold_all(&mut self.value, run.batch.epoch(), events).is_err();
        self.credit = self.credit.saturating_add(records * BYTES_PER_EVENT);
    }

    /// Compares the two, if enough events have come since the last time; answers where they parted.
    pub(super) fn compare(&mut self, published: &Published<S>) -> Option<Between> {
        let by = published.key_head.offset;
        if self.is_torn {
            return Some(Between { after: self.agreed, by });
        }
        if self.credit < self.cost || self.value.key_head != published.key_head {
            return None;
        }
        let here = digest::bytes_of(&self.value.state).ok()?;
        let there = digest::bytes_of(&published.state).ok()?;
        (self.credit, self.cost) = (0, here.len() + there.len());
        if here == there {
            self.agreed = by;
            return None;
        }
        // A map without an order of its own is written in another one by each copy.
        digest::is_canonical::<S>(&here).then_some(Between { after: self.agreed, by })
    }
}
