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

use async_nats::{
    Client, HeaderMap, Message, Request, RequestErrorKind, Subject, Subscriber, connection::State,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use via_backplane::{BackendError, ErrorKind, OnStop, Supervisor};

/// How often the client is asked for its state. One that this crate made says so by itself, at once.
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
    up: AtomicBool,
    /// Counts connections: what was asked on one is not answered on the next.
    connections: AtomicU64,
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
#[derive(Debug, Clone, Copy)]
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
}

impl Events {
    /// Takes in an event of the client.
    pub(crate) fn take(&self, event: &async_nats::Event) {
        match event {
            async_nats::Event::ServerError(error) => self.refused(&error.to_string()),
            async_nats::Event::SlowConsumer(_) => tracing::debug!("a subscription was too slow"),
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

    /// What the server refused since `seen`, about this subject.
    fn refusal(&self, seen: u64, subject: &str) -> Option<BackendError> {
        if self.refusals() == seen {
            return None;
        }
        let latest = self.latest_refusals.lock();
        let fresh = usize::try_from(self.refusals() - seen).unwrap_or(usize::MAX).min(latest.len());
        let quoted = format!("\"{subject}\"");
        let text = latest.iter().rev().take(fresh).find(|text| text.contains(&quoted))?;
        let operation =
            if text.to_ascii_lowercase().contains("subscription") { "subscribe" } else { "publish" };
        Some(BackendError::new(
            ErrorKind::Denied,
            format!(
                "no permission to {operation} to `{subject}`: grant this user {operation} permission for it"
            ),
        ))
    }
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
    pub(crate) fn new(
        client: Client,
        supplied: bool,
        request_timeout: Duration,
        events: Arc<Events>,
    ) -> Self {
        let link = Self(Arc::new(Inner {
            supplied,
            supervisor: Supervisor::new(),
            request_timeout,
            closed: CancellationToken::new(),
            up: AtomicBool::new(client.connection_state() == State::Connected),
            connections: AtomicU64::new(connections(&client)),
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
        link
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
        }
    }

    /// Looks now, where the client is not in the state that was seen last. What is sent before the connection it is sent on
    /// has been seen would be taken for unanswered with the one before.
    fn look_if_changed(&self) {
        let inner = &*self.0;
        let up = inner.client.connection_state() == State::Connected;
        let connections = connections(&inner.client);
        if up != inner.up.load(Ordering::Acquire) || connections != inner.connections.load(Ordering::Acquire)
        {
            self.look();
        }
    }

    fn look(&self) {
        let inner = &*self.0;
        let up = inner.client.connection_state() == State::Connected;
        let connections = connections(&inner.client);
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
            // Whoever waits looks whether it concerns them.
            inner.disturbed.notify_waiters();
        }
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
        if self.0.closed.is_cancelled() {
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

    /// As [`connected`](Self::connected), for those who need not know when the connection ends.
    ///
    /// # Errors
    /// The same.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn reachable(&self) -> Result<(), BackendError> {
        match self.is_up() {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                Box::pin(self.connected_again()).await.map(drop)
            }
            decided => decided,
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
    pub(crate) async fn request(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, Failed> {
        self.request_within(self.0.request_timeout, subject, headers, payload).await
    }

    /// As [`request`](Self::request), for less time.
    pub(crate) async fn request_within(
        &self,
        patience: Duration,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, Failed> {
        let inner = &*self.0;
        self.reachable().await.map_err(Failed::NotSent)?;
        let now = self.now();
        let subject = Subject::from(subject);
        let mut request = Request::new().payload(payload).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let answer = inner.client.send_request(subject.clone(), request);
        let disturbance = self.disturbance(now, &subject);
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => Failed::NoResponders,
                RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                    Failed::NotSent(BackendError::new(ErrorKind::Internal, "the client refused a request").with_source(error))
                }
                _ => Failed::Unknown(unavailable("the client could not send a request").with_source(error)),
            }),
            failed = disturbance => Err(failed),
            () = tokio::time::sleep(patience) => {
                Err(Failed::Silent(unavailable(format!("no answer on `{subject}` within {patience:?}"))))
            }
        }
    }

    /// Resolves when a request made on this connection will not be answered.
    async fn disturbance(&self, since: Moment, subject: &str) -> Failed {
        let inner = &*self.0;
        loop {
            let disturbed = inner.disturbed.notified();
            tokio::pin!(disturbed);
            disturbed.as_mut().enable();
            if inner.closed.is_cancelled() {
                return Failed::Unknown(BackendError::closed());
            }
            if let Some(error) = self.refused(since, subject) {
                return Failed::NotSent(error);
            }
            let is_another = inner.connections.load(Ordering::Acquire) != since.connection;
            if is_another || !inner.up.load(Ordering::Acquire) {
                return Failed::Unknown(unavailable("the connection ended before the answer came"));
            }
            disturbed.await;
        }
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
        self.disturbance(since, subject).await.error(subject)
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
        self.0.closed.cancel();
        self.0.disturbed.notify_waiters();
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
        self.0.closed.cancel();
        self.0.disturbed.notify_waiters();
        self.0.supervisor.stopping().cancel();
    }
}

fn connections(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Acquire)
}
