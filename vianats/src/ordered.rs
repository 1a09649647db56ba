//! A push consumer whose messages arrive in order, none missing, none twice.
//!
//! The server numbers what it delivers. A number that is left out means that this client dropped messages (it holds a
//! bounded number per subscription), so the consumer is opened again after the last one that came. What else can
//! happen to a consumer (its server restarted, its stream was deleted) may come with another log under the same name, so
//! that ends the stream with an error, and whoever reads it checks where it stands.

use std::{sync::Arc, time::Duration};

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    task::coop::unconstrained,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use via_backplane::{BackendError, ErrorKind, metrics::REREAD};

use crate::{
    api::{self, ApiError},
    generation::Generation,
    link::{Link, unavailable},
};

/// How often the server says that a quiet consumer is there.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Silence that means that the consumer is gone. In a cluster the rest goes on at once when a consumer's server dies, and
/// whoever reads from that consumer shows what is old for as long as this.
const SILENCE: Duration = Duration::from_secs(2);
/// A pause in the middle of what is known to come, after which the rest is taken to have been dropped by the client. It
/// doubles with every attempt that brings nothing.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a consumer may take to be created. Of those asked for on a cluster's stream that is just being created itself,
/// about one in a hundred is never answered for.
const CREATED_WITHIN: Duration = Duration::from_secs(1);
/// How long the server keeps a consumer that nobody listens to.
const ABANDONED_AFTER: Duration = Duration::from_secs(10);

/// Where a consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the first message above this sequence.
    After(u64),
    /// With the last message of each subject.
    Latest,
}

/// One message of a stream, as it was delivered.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) sequence: u64,
    /// How many matching messages come after it, as far as the server knew.
    pub(crate) pending: u64,
    pub(crate) message: Message,
}

/// An ordered push consumer of one generation of a stream.
pub(crate) struct Ordered<S> {
    link: Link,
    stream: String,
    filter: String,
    generation: Arc<Generation<S>>,
    connection: CancellationToken,
    consumer: String,
    inbox: Subscriber,
    /// The number of the last message of this consumer.
    delivered: u64,
    /// The stream's sequence of the last message, or where reading began.
    last: u64,
    /// How many messages are known to come.
    pending: u64,
    /// How long to wait for them before they are taken to have been dropped.
    pause: Duration,
    /// When the server was last heard, to within a batch: the clock costs as much as a message. Callers that give up waiting
    /// and call again must not begin the silence anew.
    heard: Instant,
    /// How many messages matched when the consumer was opened.
    pub(crate) pending_at_start: u64,
}

impl<S> Ordered<S> {
    pub(crate) async fn open(
        link: &Link,
        stream: &str,
        filter: String,
        generation: Arc<Generation<S>>,
        start: Start,
    ) -> Result<Self, BackendError> {
        let connection = link.connected().await?;
        let opened = open(link, stream, &filter, start).await?;
        Ok(Self {
            link: link.clone(),
            stream: stream.to_owned(),
            filter,
            generation,
            connection,
            consumer: opened.consumer,
            inbox: opened.inbox,
            delivered: 0,
            last: match start {
                Start::After(sequence) => sequence,
                Start::Latest => 0,
            },
            pending: opened.pending,
            pause: PAUSE,
            heard: Instant::now(),
            pending_at_start: opened.pending,
        })
    }

    pub(crate) fn generation(&self) -> &Generation<S> {
        &self.generation
    }

    /// The next message.
    ///
    /// # Errors
    /// If the consumer, the connection, the generation or the backplane is over.
    ///
    /// # Cancel safety
    /// Cancel-safe, but for the reopening after messages were dropped, which then begins anew.
    pub(crate) async fn next(&mut self) -> Result<Delivered, BackendError> {
        loop {
            // A writer that is faster than this reader must not keep it from hearing that it is over.
            if self.link.closed().is_cancelled() {
                return Err(BackendError::closed());
            }
            // What has arrived is taken before silence is judged: a reader that was slow has heard nothing meanwhile.
            if let Some(delivered) = self.ready().await? {
                self.heard = Instant::now();
                return Ok(delivered);
            }
            let patience = if self.pending > 0 { self.pause.min(SILENCE) } else { SILENCE };
            let message = tokio::select! {
                biased;
                () = self.link.closed().cancelled() => return Err(BackendError::closed()),
                () = self.generation.over.cancelled() => {
                    return Err(unavailable("the stream was recreated or restored"));
                }
                () = self.connection.cancelled() => return Err(unavailable("the connection ended")),
                message = self.inbox.next() => message,
                () = tokio::time::sleep_until(self.heard + patience) => {
                    if patience == SILENCE {
                        return Err(unavailable(format!("the consumer was silent for {SILENCE:?}")));
                    }
                    self.pause *= 2;
                    self.reopen().await?;
                    continue;
                }
            };
            let message = message.ok_or_else(|| unavailable("the client ended the subscription"))?;
            if let Some(delivered) = self.take(message).await? {
                self.heard = Instant::now();
                return Ok(delivered);
            }
        }
    }

    /// The next message that has already arrived.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub(crate) async fn ready(&mut self) -> Result<Option<Delivered>, BackendError> {
        // The runtime's budget would end a batch early; whoever reads batches gives way between them.
        while let Some(Some(message)) = unconstrained(self.inbox.next()).now_or_never() {
            if let Some(delivered) = self.take(message).await? {
                return Ok(Some(delivered));
            }
        }
        Ok(None)
    }

    async fn take(&mut self, message: Message) -> Result<Option<Delivered>, BackendError> {
        if let Some(status) = message.status {
            self.heard = Instant::now();
            self.heed(status, &message).await?;
            return Ok(None);
        }
        let Some(place) = message.reply.as_deref().and_then(Place::parse) else {
            return Err(not_understood(&message));
        };
        if place.delivered != self.delivered + 1 {
            self.reopen().await?;
            return Ok(None);
        }
        self.delivered = place.delivered;
        self.pending = place.pending;
        self.pause = PAUSE;
        if place.sequence <= self.last {
            // A consumer that begins anew may tell again what was heard.
            return Ok(None);
        }
        self.last = place.sequence;
        Ok(Some(Delivered { sequence: place.sequence, pending: place.pending, message }))
    }

    /// A heartbeat, or a question whether this client keeps up.
    async fn heed(&mut self, status: StatusCode, message: &Message) -> Result<(), BackendError> {
        if status != StatusCode::IDLE_HEARTBEAT {
            return Err(unavailable(format!(
                "the server ended the consumer: {status} {}",
                message.description.as_deref().unwrap_or_default()
            )));
        }
        let header = |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name));
        let question = message.reply.as_ref().map(ToString::to_string);
        let stalled = header("Nats-Consumer-Stalled").map(ToString::to_string);
        if let Some(subject) = question.or(stalled) {
            self.link.send(subject, None, Bytes::new()).await?;
        }
        // The end of what was delivered may be what is missing, and nothing would follow to show it.
        let told = header("Nats-Last-Consumer").and_then(|told| told.as_str().parse::<u64>().ok());
        if message.reply.is_none() && told.is_some_and(|told| told > self.delivered) {
            self.reopen().await?;
        }
        Ok(())
    }

    /// Opens the consumer again after the last message that came.
    async fn reopen(&mut self) -> Result<(), BackendError> {
        tracing::debug!(
            stream = self.stream,
            filter = self.filter,
            "messages were dropped by the client, and are read again"
        );
        metrics::counter!(REREAD).increment(1);
        let abandoned = self.consumer.clone();
        let opened = open(&self.link, &self.stream, &self.filter, Start::After(self.last)).await?;
        self.consumer = opened.consumer;
        self.inbox = opened.inbox;
        self.delivered = 0;
        self.pending = opened.pending;
        self.heard = Instant::now();
        delete(&self.link, &self.stream, &abandoned).await;
        Ok(())
    }

    /// Ends the consumer now, where many are opened one after the other; dropping leaves it to the server.
    pub(crate) async fn close(self) {
        delete(&self.link, &self.stream, &self.consumer).await;
    }
}

struct Opened {
    consumer: String,
    inbox: Subscriber,
    pending: u64,
}

/// Opens a consumer, for as long as a request may take; asks for another where one is not answered for.
async fn open(link: &Link, stream: &str, filter: &str, start: Start) -> Result<Opened, BackendError> {
    let deadline = Instant::now() + link.request_timeout();
    loop {
        let attempt = (Instant::now() + CREATED_WITHIN).min(deadline);
        match timeout_at(attempt, create(link, stream, filter, start)).await {
            Ok(opened) => return opened,
            Err(_) if attempt == deadline => {
                return Err(unavailable(format!(
                    "no consumer was created on `{stream}` within {:?}",
                    link.request_timeout()
                )));
            }
            Err(_) => tracing::debug!(stream, filter, "a consumer was asked for in vain"),
        }
    }
}

async fn create(link: &Link, stream: &str, filter: &str, start: Start) -> Result<Opened, BackendError> {
    #[derive(Serialize)]
    struct Request<'a> {
        stream_name: &'a str,
        config: serde_json::Value,
        action: &'a str,
    }
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        num_pending: u64,
    }
    // Listening comes first, so that nothing is delivered to nobody.
    let deliver_to = link.client().new_inbox();
    let inbox = link.bounded(link.client().subscribe(deliver_to.clone())).await?;
    let inbox = inbox.map_err(|error| unavailable("the client could not subscribe").with_source(error))?;
    let consumer = format!("via-{:016x}", rand::random::<u64>());
    let mut config = json!({
        "name": consumer,
        "deliver_subject": deliver_to,
        "filter_subject": filter,
        "ack_policy": "none",
        "replay_policy": "instant",
        "max_deliver": 1,
        "flow_control": true,
        "idle_heartbeat": nanos(HEARTBEAT),
        "inactive_threshold": nanos(ABANDONED_AFTER),
        "num_replicas": 1,
        "mem_storage": true,
    });
    match start {
        Start::After(sequence) => {
            config["deliver_policy"] = "by_start_sequence".into();
            config["opt_start_seq"] = (sequence + 1).into();
        }
        Start::Latest => config["deliver_policy"] = "last_per_subject".into(),
    }
    let request = Request { stream_name: stream, config, action: "create" };
    let call = format!("CONSUMER.CREATE.{stream}.{consumer}");
    let answer: Answer = api::call(link, &call, &request).await.map_err(explain)?;
    Ok(Opened { consumer, inbox, pending: answer.num_pending })
}

/// A stream that is not there, or listens to other subjects, is not the one that was known: looking again shows which.
fn explain(error: ApiError) -> BackendError {
    const FILTER_NOT_SUBSET: u64 = 10093;
    match error {
        ApiError::Refused(refusal)
            if matches!(refusal.err_code, api::STREAM_NOT_FOUND | FILTER_NOT_SUBSET) =>
        {
            unavailable("the stream is not the one that was known").with_source(refusal)
        }
        error => error.into(),
    }
}

async fn delete(link: &Link, stream: &str, consumer: &str) {
    // The server deletes it by itself after a while, so nobody waits for the answer.
    link.send(format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}"), None, Bytes::new()).await.ok();
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn not_understood(message: &Message) -> BackendError {
    let reply = message.reply.as_deref().unwrap_or_default();
    BackendError::new(
        ErrorKind::Internal,
        format!("the server delivered a message without a place: `{reply}`"),
    )
}

/// Where a message stands, as the subject for its acknowledgement says:
/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<time>.<pending>`, or with
/// domain and account before the stream and a token at the end.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    sequence: u64,
    delivered: u64,
    pending: u64,
}

impl Place {
    fn parse(reply: &str) -> Option<Self> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        let count = rest.bytes().filter(|byte| *byte == b'.').count() + 1;
        // Seven tokens in the old form; nine or more in the new one, whose first two are domain and account.
        let skipped = if count == 7 { 3 } else { 5 };
        let mut tokens = rest.split('.').skip(skipped);
        let sequence = tokens.next()?.parse().ok()?;
        let delivered = tokens.next()?.parse().ok()?;
        let pending = tokens.nth(1)?.parse().ok()?;
        Some(Self { sequence, delivered, pending })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_from_both_forms_of_the_subject() {
        let place = Some(Place { sequence: 514, delivered: 7, pending: 30 });
        assert_eq!(Place::parse("$JS.ACK.via-events.c1.1.514.7.1700000000000000000.30"), place);
        assert_eq!(Place::parse("$JS.ACK._.hash.via-events.c1.1.514.7.1700000000000000000.30"), place);
        assert_eq!(Place::parse("$JS.ACK.hub.hash.via-events.c1.1.514.7.1700000000000000000.30.tok"), place);
        for wrong in ["", "_INBOX.x", "$JS.ACK.a.b.c", "$JS.ACK.s.c.1.x.7.1.30"] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
    }
}
