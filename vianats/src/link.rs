//! The connection: one client, whether it is up, and requests that always end.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, HeaderMap, PublishErrorKind, Statistics, Subject, Subscriber, connection::State};
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use via_backplane::{BackendError, ErrorKind, OnStop, Supervisor};

use crate::answers::{Answer, Answers, Asked};

/// How often the client is asked for its state (one that this crate made says so by itself, at once), and whether a request
/// has waited for long enough.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Requests to JetStream's API that one pod has in flight at most; a server drops what waits when it is 10,000.
const API_IN_FLIGHT: usize = 128;
/// Refusals that are remembered, for the requests that are still waiting for an answer.
const MAX_REFUSALS: usize = 64;

/// A connection to the servers, shared by everything this backplane does. Cloning is a reference count.
#[derive(Clone)]
pub(crate) struct Link(Arc<Inner>);

struct Inner {
    client: Client,
    /// Whether the user made the client; then closing it is theirs too.
    supplied: bool,
    supervisor: Supervisor,
    request_timeout: Duration,
    closed: CancellationToken,
    /// The same, for those who only look: every request does.
    is_closed: AtomicBool,
    up: AtomicBool,
    /// Counts connections: what was asked on one is not answered on the next.
    connections: AtomicU64,
    statistics: Arc<Statistics>,
    answers: Answers,
    /// Refusals that waiting requests were woken for.
    refusals: AtomicU64,
    /// Ends with the present connection.
    present: Mutex<CancellationToken>,
    /// Wakes whoever waits for an answer that may not come any more.
    disturbed: Notify,
    turns: Semaphore,
    events: Arc<Events>,
}

/// A moment in the life of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moment {
    connection: u64,
    refusals: u64,
}

/// What the client says by itself.
#[derive(Debug, Default)]
pub(crate) struct Events {
    poked: Notify,
    /// How many there were; every request looks whether that has changed.
    refusals: AtomicU64,
    latest_refusals: Mutex<VecDeque<String>>,
    /// No answer comes on this connection, because the server refused to deliver any.
    is_deaf: AtomicBool,
}

impl Events {
    /// Takes in an event of the client.
    pub(crate) fn take(&self, event: &async_nats::Event) {
        match event {
            async_nats::Event::ServerError(error) => self.refused(&error.to_string()),
            async_nats::Event::SlowConsumer(_) => tracing::debug!("a subscription was too slow"),
            // Everything is subscribed to again, and what the server says of that comes after this.
            async_nats::Event::Connected => self.is_deaf.store(false, Ordering::Release),
            other => tracing::debug!(event = %other, "nats"),
        }
        self.poked.notify_one();
    }

    fn refused(&self, text: &str) {
        // Also where a request will say so: a message that nobody answers has nobody else to say it.
        tracing::warn!(error = text, "the server reports an error");
        if !text.to_ascii_lowercase().contains("permissions violation") {
            return;
        }
        if is_about_subscribing(text) && about(text).is_some_and(|subject| subject.starts_with("_INBOX.")) {
            self.is_deaf.store(true, Ordering::Release);
        }
        let mut latest = self.latest_refusals.lock();
        latest.push_back(text.to_owned());
        if latest.len() > MAX_REFUSALS {
            latest.pop_front();
        }
        self.refusals.fetch_add(1, Ordering::AcqRel);
    }

    fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Acquire)
    }

    /// What the server refused since `seen`, about this subject; or at any time, about where answers arrive.
    fn refusal(&self, seen: u64, subject: &str) -> Option<BackendError> {
        if self.is_deaf.load(Ordering::Acquire) {
            return Some(denied("subscribe", "_INBOX.>"));
        }
        if self.refusals() == seen {
            return None;
        }
        let latest = self.latest_refusals.lock();
        let fresh = usize::try_from(self.refusals() - seen).unwrap_or(usize::MAX).min(latest.len());
        let text = latest.iter().rev().take(fresh).find(|text| about(text) == Some(subject))?;
        Some(denied(if is_about_subscribing(text) { "subscribe" } else { "publish" }, subject))
    }
}

/// The subject that the server's words are about.
fn about(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

fn is_about_subscribing(text: &str) -> bool {
    text.to_ascii_lowercase().contains("subscription")
}

fn denied(operation: &str, subject: &str) -> BackendError {
    BackendError::new(
        ErrorKind::Denied,
        format!("no permission to {operation} to `{subject}`: grant this user {operation} permission for it"),
    )
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It had no effect: it was never sent, or refused before anybody looked at it.
    NotSent(BackendError),
    /// Nobody listens to its subject.
    NoResponders,
    /// It may have had its effect, or may still have it.
    Unknown(BackendError),
    /// As above; the connection is there, and nobody answered in time.
    Silent(BackendError),
}

impl Failed {
    /// The error, where it does not matter whether the request had an effect.
    pub(crate) fn error(self, subject: &str) -> BackendError {
        match self {
            Self::NotSent(error) | Self::Unknown(error) | Self::Silent(error) => error,
            Self::NoResponders => unavailable(format!("nobody answers on `{subject}`")),
        }
    }
}

pub(crate) fn unavailable(message: impl Into<std::borrow::Cow<'static, str>>) -> BackendError {
    BackendError::new(ErrorKind::Unavailable, message)
}

impl Link {
    /// Takes charge of a client.
    ///
    /// # Errors
    /// If the client takes no subscription.
    pub(crate) async fn open(
        client: Client,
        supplied: bool,
        request_timeout: Duration,
        events: Arc<Events>,
    ) -> Result<Self, BackendError> {
        let statistics = client.statistics();
        let link = Self(Arc::new(Inner {
            supplied,
            supervisor: Supervisor::new(),
            request_timeout,
            closed: CancellationToken::new(),
            is_closed: AtomicBool::new(false),
            up: AtomicBool::new(client.connection_state() == State::Connected),
            connections: AtomicU64::new(statistics.connects.load(Ordering::Acquire)),
            statistics,
            answers: Answers::new(&client.new_inbox()),
            refusals: AtomicU64::new(0),
            present: Mutex::default(),
            disturbed: Notify::new(),
            turns: Semaphore::new(API_IN_FLIGHT),
            events,
            client,
        }));
        let watched = link.clone();
        link.supervisor().spawn("nats link", OnStop::Abort, |_| async move {
            watched.watch().await;
            Ok(())
        });
        let mut inbox = match link.listen(link.0.answers.all()).await {
            Ok(inbox) => inbox,
            Err(error) => {
                link.close().await;
                return Err(error);
            }
        };
        let answered = link.clone();
        link.supervisor().spawn("nats answers", OnStop::Abort, |_| async move {
            while let Some(message) = inbox.next().await {
                answered.0.answers.take(message);
            }
            Ok(())
        });
        Ok(link)
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    pub(crate) fn supervisor(&self) -> &Supervisor {
        &self.0.supervisor
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.0.request_timeout
    }

    /// Says when a connection ends, and when the next one is there.
    async fn watch(&self) {
        loop {
            let poked = self.0.events.poked.notified();
            // Both are facts already when this is late: it only has to look again.
            timeout(LOOK_EVERY, poked).await.ok();
            self.look();
            let now = Instant::now();
            self.0.answers.end(|asked| (asked.until <= now).then(|| silent(asked)));
        }
    }

    /// Looks now, where the client is not in the state that was seen last. What is sent before the connection it is sent on
    /// has been seen would be taken for unanswered with the one before.
    fn look_if_changed(&self) {
        let inner = &*self.0;
        let up = inner.client.connection_state() == State::Connected;
        let connections = self.connects();
        if up != inner.up.load(Ordering::Acquire) || connections != inner.connections.load(Ordering::Acquire)
        {
            self.look();
        }
    }

    fn look(&self) {
        let inner = &*self.0;
        let up = inner.client.connection_state() == State::Connected;
        let connections = self.connects();
        let is_another = inner.connections.swap(connections, Ordering::AcqRel) != connections;
        let was_up = inner.up.swap(up, Ordering::AcqRel);
        if is_another || was_up && !up {
            let ended = std::mem::take(&mut *inner.present.lock());
            tracing::info!(up, "the connection to the servers ended");
            ended.cancel();
        }
        let refusals = inner.events.refusals();
        let is_refused = inner.refusals.swap(refusals, Ordering::AcqRel) != refusals;
        if is_another || was_up != up || is_refused {
            self.disturb();
        }
    }

    /// Whoever waits looks whether it concerns them.
    fn disturb(&self) {
        self.0.disturbed.notify_waiters();
        self.0.answers.end(|asked| self.ended(asked.since, &asked.subject));
    }

    fn connects(&self) -> u64 {
        self.0.statistics.connects.load(Ordering::Acquire)
    }

    /// Resolves when the present connection ends.
    ///
    /// # Errors
    /// If the backplane is closed, or there is no connection now.
    pub(crate) fn connection(&self) -> Result<CancellationToken, BackendError> {
        self.is_up()?;
        Ok(self.0.present.lock().clone())
    }

    fn is_up(&self) -> Result<(), BackendError> {
        if self.0.is_closed.load(Ordering::Acquire) {
            return Err(BackendError::closed());
        }
        self.look_if_changed();
        if !self.0.up.load(Ordering::Acquire) {
            return Err(unavailable("the connection to the servers is down"));
        }
        Ok(())
    }

    /// Waits until there is a connection, for as long as a request may take: most interruptions are shorter.
    ///
    /// # Errors
    /// If the backplane is closed, or there is still no connection then.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn connected(&self) -> Result<CancellationToken, BackendError> {
        match self.connection() {
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            decided => return decided,
        }
        Box::pin(self.connected_again()).await
    }

    /// As [`connected`](Self::connected), for those who need not know when the connection ends; `true` if it was waited for.
    ///
    /// # Errors
    /// The same.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn reachable(&self) -> Result<bool, BackendError> {
        match self.is_up() {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                Box::pin(self.connected_again()).await.map(|_| true)
            }
            decided => decided.map(|()| false),
        }
    }

    async fn connected_again(&self) -> Result<CancellationToken, BackendError> {
        let back = async {
            loop {
                let disturbed = self.0.disturbed.notified();
                tokio::pin!(disturbed);
                disturbed.as_mut().enable();
                match self.connection() {
                    Err(error) if error.kind() == ErrorKind::Unavailable => disturbed.await,
                    decided => return decided,
                }
            }
        };
        // The connection as it was when time was up.
        timeout(self.0.request_timeout, back).await.unwrap_or_else(|_| self.connection())
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.0.closed
    }

    /// Asks, and waits for the answer for as long as one may come.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the request.
    pub(crate) fn request(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> impl Future<Output = Answer> {
        self.request_within(self.0.request_timeout, subject, headers, payload)
    }

    /// As [`request`](Self::request), for less time.
    pub(crate) fn request_within(
        &self,
        patience: Duration,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> impl Future<Output = Answer> {
        self.request_until(Instant::now() + patience, patience, subject, headers, payload)
    }

    /// As [`request`](Self::request), until then, which is `patience` from now; or for that long, once there is a connection again.
    pub(crate) async fn request_until(
        &self,
        mut until: Instant,
        patience: Duration,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Answer {
        if self.reachable().await.map_err(Failed::NotSent)? {
            until = Instant::now() + patience;
        }
        let (subject, since) = (Subject::from(subject), self.now());
        let asked = Asked { subject: subject.clone(), since, until, patience };
        let (reply, mut answer) = self.0.answers.expect(asked);
        // What ended before this was entered has told nobody of it.
        if let Some(failed) = self.ended(since, &subject) {
            return Err(Failed::NotSent(failed.error(&subject)));
        }
        // Boxed, because it is large and soon over.
        let sent = Box::pin(async {
            match headers {
                Some(headers) => {
                    self.client().publish_with_reply_and_headers(subject, reply, headers, payload).await
                }
                None => self.client().publish_with_reply(subject, reply, payload).await,
            }
        });
        tokio::select! {
            biased;
            sent = sent => sent.map_err(|error| {
                let kind = match error.kind() {
                    PublishErrorKind::Send => ErrorKind::Unavailable,
                    _ => ErrorKind::Internal,
                };
                Failed::NotSent(BackendError::new(kind, "the client refused a request").with_source(error))
            })?,
            // The client takes nothing, and it is not worth waiting any more.
            answer = &mut answer => return answer.unwrap_or_else(|_| Err(Failed::Unknown(BackendError::closed()))),
        }
        answer.await.unwrap_or_else(|_| Err(Failed::Unknown(BackendError::closed())))
    }

    /// Why a request or subscription that was made since on this subject will hear nothing more, if so.
    fn ended(&self, since: Moment, subject: &str) -> Option<Failed> {
        let inner = &*self.0;
        if inner.is_closed.load(Ordering::Acquire) {
            return Some(Failed::Unknown(BackendError::closed()));
        }
        if let Some(error) = self.refused(since, subject) {
            return Some(Failed::NotSent(error));
        }
        let is_another = inner.connections.load(Ordering::Acquire) != since.connection;
        (is_another || !inner.up.load(Ordering::Acquire))
            .then(|| Failed::Unknown(unavailable("the connection ended before the answer came")))
    }

    /// Sends without waiting for an answer.
    ///
    /// # Errors
    /// If there is no connection, or the client takes nothing for as long as a request may take.
    pub(crate) async fn send(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<(), BackendError> {
        self.reachable().await?;
        let client = self.client();
        let sent = async {
            match headers {
                Some(headers) => client.publish_with_headers(subject, headers, payload).await,
                None => client.publish(subject, payload).await,
            }
        };
        self.bounded(sent)
            .await?
            .map_err(|error| unavailable("the client could not send a message").with_source(error))
    }

    /// Subscribes. The server knows of it when it has answered something that was asked afterwards, and not before: the
    /// client's own `flush` waits for the socket only.
    ///
    /// # Errors
    /// If there is no connection, or the client takes nothing for as long as a request may take.
    pub(crate) async fn listen(&self, subject: String) -> Result<Subscriber, BackendError> {
        let subscribed = self.bounded(self.client().subscribe(subject)).await?;
        subscribed.map_err(|error| unavailable("the client could not subscribe").with_source(error))
    }

    /// The present, for [`over`](Self::over) and [`refused`](Self::refused).
    pub(crate) fn now(&self) -> Moment {
        let connection = self.0.connections.load(Ordering::Acquire);
        Moment { connection, refusals: self.0.events.refusals() }
    }

    /// What the server has refused since, about this subject.
    pub(crate) fn refused(&self, since: Moment, subject: &str) -> Option<BackendError> {
        self.0.events.refusal(since.refusals, subject)
    }

    /// Resolves when a subscription that was made since will hear nothing more.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn over(&self, since: Moment, subject: &str) -> BackendError {
        loop {
            let disturbed = self.0.disturbed.notified();
            tokio::pin!(disturbed);
            disturbed.as_mut().enable();
            if let Some(failed) = self.ended(since, subject) {
                return failed.error(subject);
            }
            disturbed.await;
        }
    }

    /// Waits for its turn to ask JetStream's API: a server that ten thousand requests wait for drops them all.
    ///
    /// # Errors
    /// If the backplane is closed, there is no connection, or those before take as long as a request may.
    ///
    /// # Cancel safety
    /// Cancel-safe; it then waits at the end of the line.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, BackendError> {
        if let Ok(turn) = self.0.turns.try_acquire() {
            return Ok(turn);
        }
        self.connected().await?;
        let turn = self.bounded(self.0.turns.acquire()).await?;
        Ok(turn.expect("the semaphore is never closed"))
    }

    /// Bounds a call of the client, none of which have a timeout of their own.
    pub(crate) async fn bounded<T>(&self, call: impl Future<Output = T>) -> Result<T, BackendError> {
        let present = self.connection()?;
        tokio::select! {
            biased;
            () = self.0.closed.cancelled() => Err(BackendError::closed()),
            outcome = call => Ok(outcome),
            () = present.cancelled() => Err(unavailable("the connection ended")),
            () = tokio::time::sleep(self.0.request_timeout) => Err(unavailable(format!(
                "the client was not done within {:?}",
                self.0.request_timeout
            ))),
        }
    }

    /// Refuses every further call, ends every task, and closes a client that is ours.
    pub(crate) async fn close(&self) {
        self.refuse();
        if let Err(fault) = self.0.supervisor.stop(Duration::from_secs(1)).await {
            tracing::error!(%fault, "a task of the connection had failed");
        }
        if !self.0.supplied && self.client().connection_state() == State::Connected {
            // What was published is on its way before the connection ends; one that hangs is left behind.
            timeout(self.0.request_timeout, self.client().drain()).await.ok();
        }
    }
}

impl Link {
    /// Ends every stream and task, waiting for none: what remains when nobody has closed.
    pub(crate) fn abandon(&self) {
        self.refuse();
        self.0.supervisor.stopping().cancel();
    }

    /// Every call from now on, and those that wait.
    fn refuse(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.0.closed.cancel();
        self.disturb();
    }
}

fn silent(asked: &Asked) -> Failed {
    let Asked { subject, patience, .. } = asked;
    Failed::Silent(unavailable(format!("no answer on `{subject}` within {patience:?}")))
}
