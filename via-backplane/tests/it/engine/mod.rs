//! The engine over the in-memory backplane.

mod appends;
mod cells;
mod compaction;
mod consumers;
mod copies;
mod decisions;
mod digests;
mod halts;
mod instances;
mod losses;
pub(crate) mod measures;
mod outages;
mod past;
mod pins;
mod positions;
mod registration;
mod repair;
mod replaced_logs;
mod snapshots;
mod undecodable;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use via_backplane::{
    Append, AppendOptions, Backplane, CodecId, Engine, Entries, Entry, Envelope, Event, EventId, Events,
    Fold, Halt, Key, Offset, Recorded, Status, Waited,
};
use via_inmem::InMemory;

/// How long a fact may take to come true before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// One more line; or a fold that panics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(name = "test.noted", version = 2)]
struct Noted {
    text: String,
}

/// The lines so far.
type Notes = Vec<String>;

impl Fold<Notes> for Noted {
    fn fold(self, notes: &mut Notes, _at: &Recorded) {
        notes.push(self.text.clone());
        // The line is in the state already: whoever served it now would serve a torn value.
        assert!(self.text != "panic", "a fold of {notes:?}");
    }
}

fn noted(text: &str) -> Noted {
    Noted { text: text.to_owned() }
}

fn start(memory: &InMemory) -> Engine {
    Engine::start(Arc::new(memory.clone()))
}

fn notes(engine: &Engine) -> Events<Noted, Notes> {
    engine.events("notes").expect("a valid declaration")
}

/// Appends bytes as they are, as another program would.
async fn append_raw(memory: &InMemory, key: &Key, record: impl Into<Bytes>) -> Offset {
    let entry = Entry { key: key.clone(), record: record.into() };
    let appended =
        memory.log().append(Append::new(Entries::One(entry))).await.expect("memory takes every append");
    appended.offsets.get(0).expect("one entry has one offset")
}

fn record(name: &str, version: u32, payload: &[u8]) -> Vec<u8> {
    let envelope = Envelope {
        id: EventId(*uuid::Uuid::now_v7().as_bytes()),
        time: 1,
        name,
        version,
        codec: CodecId::MESSAGE_PACK,
        payload,
        trace: None,
        trace_state: None,
        subject: None,
        unknown: Default::default(),
    };
    let mut record = Vec::new();
    envelope.encode(&mut record);
    record
}

/// Appends and waits until this pod shows it.
async fn note(notes: &Events<Noted, Notes>, text: &str) {
    let position =
        notes.append_with(noted(text), AppendOptions::default()).await.expect("memory takes every append");
    assert_eq!(notes.wait_for(&position, PATIENCE).await, Waited::Reached);
}

/// Waits until the key is halted, whether or not it has a value.
async fn halted<E, S>(state: &Events<E, S>) -> Halt {
    let mut changes = state.changes();
    let reached = async {
        loop {
            if let Status::Halted(halt) = state.status() {
                return halt;
            }
            assert!(changes.changed().await, "the engine lives");
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("the key halts")
}

/// Waits until the value is as `wanted` says.
async fn until<E, S>(state: &Events<E, S>, wanted: impl Fn(&S) -> bool) {
    let mut changes = state.changes();
    let reached = async {
        while !state.read().is_some_and(|view| wanted(&view)) {
            assert!(changes.changed().await, "the engine lives");
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("the value becomes what it should");
}

async fn stop(engine: &Engine) {
    engine.shutdown(PATIENCE).await.expect("no task failed");
    assert_eq!(engine.supervisor().tasks(), 0, "{:?}", engine.supervisor().names());
}
