//! What a pod of a process of its own is asked and says, one line of JSON each.

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
    /// Run the consumer [`CONSUMER`], or stand by to; answer once it is registered.
    Consume(Consuming),
    /// Have the handlers of a text end that wait for it.
    LetGo(String),
    /// Answer once this pod owns the consumer.
    Owns,
    /// Answer once this pod stands by, because another one owns the consumer.
    StandsBy,
    /// Answer once this pod has committed up to this offset.
    Commits(u64),
    /// Answer how the consumer is stored.
    Consumer,
    /// End as a pod does that is stopped well. Handlers that wait are let go once it has begun to stop.
    Leave,
}

/// The consumer of notes that pods run.
pub const CONSUMER: &str = "note";

/// How a pod is to run the consumer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Consuming {
    /// How long its lease lasts, in milliseconds.
    pub lease_ms: u64,
    /// After how many events it commits, and after how many milliseconds; as the engine has it if not set.
    pub commit_every: Option<(usize, u64)>,
    /// The texts whose handler waits on this pod until it is let go.
    pub held: Vec<String>,
}

/// What it says, on its standard output: answers in the order of what it was asked, and reports whenever there is something to report.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// What it was asked.
    Answered(Answered),
    /// A handler was begun.
    Delivered(Delivered),
    /// A handler is about to end well.
    Handled(Delivered),
}

/// An event as its handler was given it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// What the note says.
    pub text: String,
    /// Where it stands.
    pub offset: u64,
    /// Which event it is.
    pub id: String,
    /// Which attempt this is.
    pub attempt: u32,
    /// The number of the lease.
    pub term: u64,
}

/// The consumer as all pods agree on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The engine that owns it.
    pub owner: Option<String>,
    /// Whether that is the pod that answers.
    pub is_owned_here: bool,
    /// The number of the last lease.
    pub term: u64,
    /// Everything up to here was handled.
    pub committed: u64,
    /// The last event there is.
    pub head: u64,
}

/// What it answers.
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
    /// The consumer is registered.
    Consumes,
    /// The handlers are let go.
    LetGo,
    /// It owns the consumer, under this term.
    Owns(u64),
    /// Another pod owns the consumer.
    StandsBy,
    /// It has committed so far.
    Commits,
    /// The consumer, or why it cannot be looked at.
    Consumer(Result<Stored, String>),
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
