//! What the tests with an engine append and fold.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use via_backplane::{
    AppendId, AppendOptions, Backplane, Engine, Event, Events, Fold, Position, Recorded, View, Waited,
};

/// How long a fact may take on a machine that builds meanwhile.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "test.noted", version = 1)]
pub(crate) struct Noted {
    pub(crate) text: String,
}

impl Fold<Vec<String>> for Noted {
    fn fold(self, notes: &mut Vec<String>, _at: &Recorded) {
        notes.push(self.text);
    }
}

pub(crate) type Notes = Events<Noted, Vec<String>>;

/// A pod: a connection with an engine on it.
pub(crate) struct Pod {
    pub(crate) engine: Engine,
    pub(crate) notes: Notes,
}

impl Pod {
    pub(crate) async fn on(url: &str) -> Self {
        Self::with(builder(url)).await
    }

    pub(crate) async fn with(builder: vianats::Builder) -> Self {
        let backplane: Arc<dyn Backplane> = Arc::new(builder.connect().await.expect("connected"));
        let engine = Engine::start(backplane);
        let notes = engine.events("notes").expect("a valid name");
        Self { engine, notes }
    }

    /// Appends once, whatever happens to the connection meanwhile: with an id, an unknown outcome is resolved.
    pub(crate) async fn note(&self, text: impl Into<String>) -> Position {
        static NOTES: AtomicUsize = AtomicUsize::new(0);
        let id = format!("note {}", NOTES.fetch_add(1, Ordering::Relaxed));
        let options = AppendOptions::default().id(AppendId::new(id).expect("a valid id"));
        self.notes.append_with(Noted { text: text.into() }, options).await.expect("appended")
    }

    pub(crate) async fn reaches(&self, position: &Position) {
        assert_eq!(self.notes.wait_for(position, PATIENCE).await, Waited::Reached);
    }

    /// Waits until the notes are as wanted, and says how they were otherwise.
    pub(crate) async fn until(&self, wanted: impl Fn(&[String]) -> bool) -> View<Vec<String>> {
        let mut changes = self.notes.changes();
        let reached = async {
            loop {
                if let Some(notes) = self.notes.read().filter(|notes| wanted(notes)) {
                    return notes;
                }
                changes.changed().await;
            }
        };
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(notes) => notes,
            Err(_) => {
                let last = self.notes.read();
                let last = last.as_deref().map(|notes| &notes[notes.len().saturating_sub(5)..]);
                panic!("not so after {PATIENCE:?}: {:?}, the last are {last:?}", self.notes.status())
            }
        }
    }

    pub(crate) async fn stop(&self) {
        self.engine.shutdown(Duration::from_secs(5)).await.expect("no task failed");
        assert_eq!(self.engine.supervisor().tasks(), 0);
    }
}

pub(crate) fn builder(url: &str) -> vianats::Builder {
    vianats::Builder::new(url).request_timeout(Duration::from_secs(3)).connect_timeout(PATIENCE)
}

/// A call of JetStream's API by a client that is not via's, as an operator's tools make it.
pub(crate) async fn api(url: &str, call: &str, body: serde_json::Value) -> serde_json::Value {
    let client = async_nats::connect(url).await.expect("connected");
    let answer = client.request(format!("$JS.API.{call}"), body.to_string().into()).await.expect("an answer");
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert!(answer.get("error").is_none_or(serde_json::Value::is_null), "{call}: {answer}");
    answer
}
