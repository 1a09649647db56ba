//! The messages an append becomes: one publish, an atomic batch, or a question.

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::time::Instant;
use via_backplane::{AppendError, AppendId, BackendError, Entry, ErrorKind, Expectation, Key, OnStop};

use crate::{
    ack::{self, NotStored},
    answers::Answer,
    api::Refusal,
    generation::Generation,
    link::{Failed, Link},
    names::LogSubjects,
    pod::Pod,
};

const MESSAGE_ID: &str = "Nats-Msg-Id";
const EXPECTED_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const ROLLUP: &str = "Nats-Rollup";
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

impl Pod {
    /// Asks where the append of an id is, by a publish that is never stored: with replicas or without, a server compares ids
    /// before it refuses a rollup that is none, and refuses that before it remembers the id. (An expectation would not do. Without
    /// replicas, one on sequences is judged before ids are; with them, one on ids only after the id was taken.)
    pub(crate) async fn recall(
        &self,
        generation: &Generation<LogSubjects>,
        key: &Key,
        id: &AppendId,
    ) -> Result<Recalled, AppendError> {
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, message_id(key, id));
        headers.insert(ROLLUP, "none");
        let answer = self.link().request(generation.subjects.events(key), Some(headers), Bytes::new()).await;
        let answer = match answer {
            Ok(answer) => answer,
            // Whether the append itself took place is what could not be found out.
            Err(failed) => return Err(AppendError::MaybeCommitted(failed.error("an append's id"))),
        };
        match ack::read(&answer) {
            Ok(stored) if stored.duplicate => Ok(Recalled::At(stored.sequence)),
            Err(NotStored::Refused(refusal)) if refusal.err_code == ack::ROLLUP_REFUSED => {
                Ok(Recalled::Never)
            }
            Err(NotStored::Refused(refusal)) if refusal.err_code == ack::ID_ON_ITS_WAY => {
                Ok(Recalled::OnItsWay(refusal))
            }
            Err(NotStored::Refused(refusal)) => Err(AppendError::MaybeCommitted(refusal.into())),
            Err(NotStored::Garbled(error)) => Err(AppendError::MaybeCommitted(error)),
            Ok(_) => Err(AppendError::MaybeCommitted(BackendError::new(
                ErrorKind::Internal,
                "the server stored a question about an id",
            ))),
        }
    }

    pub(crate) fn publish(
        &self,
        generation: &Generation<LogSubjects>,
        entry: &Entry,
        expected: Option<&Expectation>,
        id: Option<&AppendId>,
        deadline: Instant,
    ) -> impl Future<Output = Answer> {
        let mut headers = None;
        if let Some(id) = id {
            headers.get_or_insert_with(HeaderMap::new).insert(MESSAGE_ID, message_id(&entry.key, id));
        }
        if let Some(expected) = expected {
            let headers = headers.get_or_insert_with(HeaderMap::new);
            expect(generation, expected, &entry.key, headers);
        }
        let subject = generation.subjects.events(&entry.key);
        self.link().request_until(
            deadline,
            self.link().request_timeout(),
            subject,
            headers,
            entry.record.clone(),
        )
    }

    /// Publishes an atomic batch: every message but the last goes out unanswered, and the last one's ack is the batch's.
    pub(crate) async fn publish_batch(
        &self,
        generation: &Generation<LogSubjects>,
        entries: &[Entry],
        expected: &[Expectation],
        id: Option<&AppendId>,
    ) -> Answer {
        let mut guards = Guards::assign(entries, expected);
        let mut messages = Vec::with_capacity(entries.len() + guards.homeless.len());
        for (index, entry) in entries.iter().enumerate() {
            let mut headers = HeaderMap::new();
            if let (0, Some(id)) = (index, id) {
                headers.insert(MESSAGE_ID, message_id(&entry.key, id));
            }
            if let Some(expected) = guards.of_entries[index].take() {
                expect(generation, expected, &entry.key, &mut headers);
            }
            messages.push((generation.subjects.events(&entry.key), headers, entry.record.clone()));
        }
        for expected in guards.homeless {
            let mut headers = HeaderMap::new();
            headers.insert(EXPECTED_SEQUENCE, expected.head.offset.0.to_string());
            headers.insert(EXPECTED_SUBJECT, generation.subjects.events(&expected.key));
            messages.push((generation.subjects.guard(), headers, Bytes::new()));
        }
        // A caller that leaves must not leave a batch half sent: the server holds few of them open.
        let link = self.link().clone();
        let sent = async move { send_batch(&link, messages).await };
        let sent = self.link().supervisor().run("nats batch", OnStop::Abort, sent).await;
        sent.unwrap_or_else(|_| Err(Failed::Unknown(BackendError::closed())))
    }
}

/// Sends the messages of an atomic batch; answers the ack of the last one.
async fn send_batch(link: &Link, messages: Vec<(String, HeaderMap, Bytes)>) -> Answer {
    let batch = format!("{:032x}", rand::random::<u128>());
    let last = messages.len();
    for (index, (subject, mut headers, payload)) in messages.into_iter().enumerate() {
        let number = index + 1;
        headers.insert(BATCH_ID, &*batch);
        headers.insert(BATCH_SEQUENCE, number.to_string());
        if number == last {
            headers.insert(BATCH_COMMIT, "1");
            return link.request(subject, Some(headers), payload).await;
        }
        // Until the last one is sent, nothing can be committed.
        link.send(subject, Some(headers), payload).await.map_err(Failed::NotSent)?;
    }
    unreachable!("a batch has a last message")
}

/// Where the append of an id is.
pub(crate) enum Recalled {
    At(u64),
    Never,
    OnItsWay(Refusal),
}

fn expect(generation: &Generation<LogSubjects>, expected: &Expectation, at: &Key, headers: &mut HeaderMap) {
    headers.insert(EXPECTED_SEQUENCE, expected.head.offset.0.to_string());
    if expected.key != *at {
        headers.insert(EXPECTED_SUBJECT, generation.subjects.events(&expected.key));
    }
}

/// Which message of a batch carries which expectation. The server takes one per message, and none about a subject that
/// the batch has written to before.
pub(crate) struct Guards<'a> {
    of_entries: Vec<Option<&'a Expectation>>,
    /// Expectations for which there is no message: they get one that says nothing else.
    homeless: Vec<&'a Expectation>,
}

impl<'a> Guards<'a> {
    /// How many expectations need a message that says nothing else.
    pub(crate) fn count(entries: &[Entry], expected: &[Expectation]) -> usize {
        if expected.is_empty() { 0 } else { Guards::assign(entries, expected).homeless.len() }
    }

    pub(crate) fn assign(entries: &[Entry], expected: &'a [Expectation]) -> Self {
        let mut of_entries = vec![None; entries.len()];
        let mut others = Vec::new();
        for expected in expected {
            match entries.iter().position(|entry| entry.key == expected.key) {
                Some(first) => of_entries[first] = Some(expected),
                None => others.push(expected),
            }
        }
        let mut free = (0..entries.len()).filter(|index| of_entries[*index].is_none()).collect::<Vec<_>>();
        let mut homeless = Vec::new();
        for expected in others {
            match free.pop() {
                Some(index) => of_entries[index] = Some(expected),
                None => homeless.push(expected),
            }
        }
        Self { of_entries, homeless }
    }
}

/// The id of a message: an append's id is scoped to its key, and may hold anything.
fn message_id(key: &Key, id: &AppendId) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("via 2026 message id of an append id");
    let instance = key.instance_name();
    for part in [key.family().as_str(), instance.unwrap_or_default(), id.as_str()] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.update(&[u8::from(instance.is_some())]);
    hasher.finalize().to_hex().to_string()
}
