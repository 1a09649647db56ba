//! What a pod of a process of its own is asked and answers, one line of JSON each.

use serde::{Deserialize, Serialize};
use via_backplane::{Event, Fold, Recorded};

/// One thing a pod is asked, on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub enum Asked {
    /// Append a note, and answer once it is folded here.
    Note(String),
    /// Answer once this pod shows so many notes.
    Notes(usize),
    /// Answer below which offset the notes were dropped.
    Floor,
    /// End as a pod does that is stopped well.
    Leave,
}

/// What it answers, on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answered {
    /// It has begun, and shows what there was.
    Ready,
    /// A note stands at this offset.
    Noted(u64),
    /// A note was not acknowledged.
    Unacknowledged {
        /// Why.
        why: String,
        /// Whether it may be in the log.
        may_be_there: bool,
    },
    /// The notes it shows.
    Notes(Vec<String>),
    /// Records below this offset are gone.
    Floor(u64),
    /// It has ended well.
    Left,
}

/// How a pod is to live: its only argument, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Life {
    /// The server.
    pub url: String,
    /// Records between two snapshots.
    pub snapshot_interval: u64,
    /// How long what is to be dropped is announced, in milliseconds.
    pub compaction_grace_ms: u64,
}

/// One more line.
#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(name = "test.noted")]
pub struct Noted {
    /// What it says.
    pub text: String,
}

impl Fold<Vec<String>> for Noted {
    fn fold(self, notes: &mut Vec<String>, _at: &Recorded) {
        notes.push(self.text);
    }
}
