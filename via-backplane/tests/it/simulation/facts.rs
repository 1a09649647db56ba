//! The events, states and cells of the simulated app. Everything written carries the tag of the operation that wrote
//! it, so that the end of a run can account for every one of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use via_backplane::{Event, EventId, Fold, FoldState, Offset, Recorded};

/// How many items a stock begins with.
pub(crate) const STOCK: i64 = 12;

/// Which operation wrote something, and which of the things it wrote this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Tag {
    pub(crate) op: u32,
    pub(crate) index: u32,
}

/// One folded record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) offset: Offset,
    pub(crate) id: EventId,
    pub(crate) tag: Tag,
}

impl Line {
    fn new(tag: Tag, at: &Recorded) -> Self {
        Self { offset: at.offset(), id: at.id(), tag }
    }
}

/// An event of the simulated app.
pub(crate) trait Fact: Event + Fold<Self::Book> + Clone {
    /// What it folds into.
    type Book: Book;
    fn tag(&self) -> Tag;
}

/// A state of the simulated app.
pub(crate) trait Book: FoldState + PartialEq + std::fmt::Debug {
    /// What was folded, in order.
    fn lines(&self) -> &[Line];
    /// How the state breaks what its decisions guard, if it does.
    fn broken(&self) -> Option<String>;
}

/// Something is noted, unconditionally.
#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(name = "sim.noted")]
pub(crate) struct Noted {
    pub(crate) tag: Tag,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notes {
    lines: Vec<Line>,
}

impl Fold<Notes> for Noted {
    fn fold(self, notes: &mut Notes, at: &Recorded) {
        notes.lines.push(Line::new(self.tag, at));
    }
}

impl Fact for Noted {
    type Book = Notes;

    fn tag(&self) -> Tag {
        self.tag
    }
}

impl Book for Notes {
    fn lines(&self) -> &[Line] {
        &self.lines
    }

    fn broken(&self) -> Option<String> {
        None
    }
}

/// A note as a later binary reads it: one without a tag, which [`Noted`] cannot decode, is of operation 99.
#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(name = "sim.noted")]
pub(crate) struct Mended {
    #[serde(default)]
    pub(crate) tag: Option<Tag>,
}

impl Fold<Notes> for Mended {
    fn fold(self, notes: &mut Notes, at: &Recorded) {
        notes.lines.push(Line::new(self.tag.unwrap_or(Tag { op: 99, index: 0 }), at));
    }
}

/// A number is drawn, by a fold that keeps no contract: each fold of one record gives another.
#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(name = "sim.drawn")]
pub(crate) struct Drawn;

impl Fold<Vec<u64>> for Drawn {
    fn fold(self, numbers: &mut Vec<u64>, _at: &Recorded) {
        use std::cell::Cell;

        thread_local! {
            static NEXT: Cell<u64> = const { Cell::new(0) };
        }
        numbers.push(NEXT.replace(NEXT.get() + 1));
    }
}

/// Something happens to a stock.
#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(name = "sim.traded")]
pub(crate) struct Traded {
    pub(crate) tag: Tag,
    pub(crate) deed: Deed,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Deed {
    /// Decided on: only what is there may be taken.
    Taken(i64),
    /// Appended without looking.
    Restocked(i64),
    /// Decided on: a name is claimed once.
    Claimed(u8),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stock {
    pub(crate) left: i64,
    pub(crate) claimed: BTreeMap<u8, Tag>,
    broken: Option<String>,
    lines: Vec<Line>,
}

impl Default for Stock {
    fn default() -> Self {
        Self { left: STOCK, claimed: BTreeMap::new(), broken: None, lines: Vec::new() }
    }
}

impl Fold<Stock> for Traded {
    fn fold(self, stock: &mut Stock, at: &Recorded) {
        let broken = match self.deed {
            Deed::Taken(items) => {
                stock.left -= items;
                (stock.left < 0).then(|| format!("{:?} oversold at {}", self.tag, at.offset()))
            }
            Deed::Restocked(items) => {
                stock.left += items;
                None
            }
            Deed::Claimed(name) => {
                let before = stock.claimed.insert(name, self.tag);
                before.map(|before| format!("{:?} claimed {name} after {before:?}", self.tag))
            }
        };
        stock.broken = stock.broken.take().or(broken);
        stock.lines.push(Line::new(self.tag, at));
    }
}

impl Fact for Traded {
    type Book = Stock;

    fn tag(&self) -> Tag {
        self.tag
    }
}

impl Book for Stock {
    fn lines(&self) -> &[Line] {
        &self.lines
    }

    fn broken(&self) -> Option<String> {
        self.broken.clone()
    }
}

/// The value of a cell: which updates it holds, in the order they were made.
pub(crate) trait Held:
    Serialize + DeserializeOwned + Clone + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static
{
}

impl<T> Held for T where
    T: Serialize + DeserializeOwned + Clone + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static
{
}

/// A counter that knows whom it counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) total: u32,
    pub(crate) ops: Vec<u32>,
}
