//! The events the benchmark folds.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use via_backplane::{Event, Fold, Recorded};

/// The budget's event.
#[derive(Serialize, Deserialize, Event)]
#[event(name = "bench.added")]
pub(super) struct Added {
    pub(super) by: i64,
}

impl Added {
    pub(super) fn example(_index: usize) -> Self {
        Self { by: 1 }
    }
}

impl Fold<i64> for Added {
    fn fold(self, total: &mut i64, _at: &Recorded) {
        *total += self.by;
    }
}

/// Seven fields, about 100 bytes as MessagePack.
#[derive(Serialize, Deserialize, Event)]
#[event(name = "bench.moved")]
pub(super) struct Moved {
    account: u64,
    from: u32,
    to: u32,
    amount: i64,
    currency: [u8; 3],
    approved: bool,
    reference: u128,
}

impl Moved {
    pub(super) fn example(index: usize) -> Self {
        Self {
            account: 40_000_000_000 + index as u64,
            from: 1_000_001,
            to: 2_000_002,
            amount: 129_950,
            currency: *b"EUR",
            approved: true,
            reference: u128::MAX - index as u128,
        }
    }
}

impl Fold<i64> for Moved {
    fn fold(self, moves: &mut i64, _at: &Recorded) {
        *moves += i64::from(self.approved);
    }
}

/// Changes one entry of a large table.
#[derive(Serialize, Deserialize, Event)]
#[event(name = "bench.touched")]
pub(super) enum Touched {
    Filled { entries: u32 },
    Entry { key: u32 },
}

#[derive(Default, Clone, Serialize, Deserialize)]
pub(super) struct Table {
    entries: HashMap<u32, u64>,
    pub(super) folded: usize,
}

impl Fold<Table> for Touched {
    fn fold(self, table: &mut Table, _at: &Recorded) {
        match self {
            Self::Filled { entries } => table.entries = (0..entries).map(|key| (key, 0)).collect(),
            Self::Entry { key } => {
                // An entry that is not there is not added, so the empty table stays empty.
                if let Some(count) = table.entries.get_mut(&key) {
                    *count += 1;
                }
                table.folded += 1;
            }
        }
    }
}
