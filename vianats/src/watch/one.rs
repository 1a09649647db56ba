//! Watching one cell: the bucket itself tells of what it has stored, on a subject of the cell's own.
//!
//! The bucket republishes each message once it is committed, with its sequence, and so does it with the markers it makes
//! itself when a cell expires. A watch is a subscription to that, and nothing that a server keeps: ten thousand of them
//! are cheap where as many consumers would not be. What is told may be lost on its way, as any message of core NATS: so
//! the leader is asked when the watch begins, shortly afterwards, and then every few minutes.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use async_nats::{Message, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use via_backplane::{BackendError, CellKey, Change, ErrorKind};

use super::{Tells, change, said};
use crate::{
    api::ApiError,
    cells::Latest,
    generation::Generation,
    link::{Moment, unavailable},
    names::CellSubjects,
    pod::Pod,
};

/// When the leader is asked after the beginning: in a cluster, the other servers learn of a subscription a moment later
/// than the one it was made with, longer on a bad day.
const SETTLING: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];
/// How long something that was told and lost stays unknown: this, and up to as much again.
const LOOK_EVERY: Duration = Duration::from_secs(120);

const SEQUENCE: &str = "Nats-Sequence";

type Look = Pin<Box<dyn Future<Output = Result<Option<Latest>, ApiError>> + Send>>;

/// A watch of one cell.
pub(super) struct One {
    pod: Pod,
    key: CellKey,
    generation: Arc<Generation<CellSubjects>>,
    connection: CancellationToken,
    opened: Moment,
    news: Subscriber,
    opening: Opening,
    /// The sequence of what was told last, of whatever kind.
    told: u64,
    /// Whether that was a value.
    is_there: bool,
    /// The question to the leader that is under way, and what had been told when it was asked.
    look: Option<(Look, u64)>,
    looks: usize,
    next_look: Instant,
}

/// What is still to be told of the present.
enum Opening {
    Begin(Option<Latest>),
    Present(Option<Latest>),
    Told,
}

impl One {
    pub(super) async fn open(pod: &Pod, key: CellKey) -> Result<Self, BackendError> {
        let link = pod.link();
        let connection = link.connected().await?;
        let opened = link.now();
        let generation = pod.cell_generation();
        let subject = generation.subjects.news(&key);
        let news = link.listen(subject.clone()).await?;
        // Asked on the same connection, so the server knows of the subscription before it answers: what is stored later
        // than what the answer holds is told.
        let latest = pod.latest(&generation, &key).await?;
        if let Some(refused) = link.refused(opened, &subject) {
            return Err(refused);
        }
        let told = latest.as_ref().map_or(0, |latest| latest.sequence);
        let latest = latest.filter(|latest| latest.value.is_some());
        Ok(Self {
            pod: pod.clone(),
            key,
            generation,
            connection,
            opened,
            news,
            is_there: latest.is_some(),
            opening: Opening::Begin(latest),
            told,
            look: None,
            looks: 0,
            next_look: Instant::now() + pause(0),
        })
    }

    /// The next part of the present, while there is one.
    fn present(&mut self) -> Option<Change> {
        let (change, opening) = match std::mem::replace(&mut self.opening, Opening::Told) {
            Opening::Begin(latest) => (Change::Begin, Opening::Present(latest)),
            Opening::Present(Some(latest)) => (change(self.key.clone(), latest), Opening::Present(None)),
            Opening::Present(None) => (Change::End, Opening::Told),
            Opening::Told => return None,
        };
        self.opening = opening;
        Some(change)
    }

    /// Takes in what the bucket told, and whatever else of it has arrived: only the latest counts.
    fn hear(&mut self, message: Message) -> Option<Change> {
        let mut latest = news(message);
        while let Some(Some(message)) = self.news.next().now_or_never() {
            let newer = news(message);
            if sequence(&newer) > sequence(&latest) {
                latest = newer;
            }
        }
        self.take(latest?)
    }

    /// What is no news is not told: servers may tell twice, and an answer may be older than what was told meanwhile.
    fn take(&mut self, latest: Latest) -> Option<Change> {
        if latest.sequence <= self.told {
            return None;
        }
        self.told = latest.sequence;
        let was_there = std::mem::replace(&mut self.is_there, latest.value.is_some());
        (was_there || self.is_there).then(|| change(self.key.clone(), latest))
    }

    fn ask(&mut self) {
        let (pod, generation, key) = (self.pod.clone(), self.generation.clone(), self.key.clone());
        let look = async move { pod.latest(&generation, &key).await };
        self.look = Some((look.boxed(), self.told));
    }

    /// Takes in what the leader said.
    fn learn(&mut self, answer: Result<Option<Latest>, ApiError>) -> Result<Option<Change>, BackendError> {
        let asked_at = self.look.take().map_or(0, |(_, told)| told);
        self.looks += 1;
        self.next_look = Instant::now() + pause(self.looks);
        match answer.map_err(BackendError::from) {
            Ok(Some(latest)) => Ok(self.take(latest)),
            // Somebody purged the subject, or the one who answered leads no more. The next watch finds out which.
            Ok(None) if self.is_there && self.told == asked_at => {
                Err(unavailable("the cell went away without a trace: watch it again"))
            }
            Ok(None) => Ok(None),
            // There may be no leader for a while; what it stores once there is one will be told.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::debug!(%error, "a watched cell could not be looked at");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The server may say later than it should that the subscription is refused.
    fn check_refusal(&self) -> Result<(), BackendError> {
        match self.pod.link().refused(self.opened, &self.generation.subjects.news(&self.key)) {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }
}

impl Tells for One {
    async fn next(&mut self) -> Result<Change, BackendError> {
        loop {
            if self.pod.link().closed().is_cancelled() {
                return Err(BackendError::closed());
            }
            if let Some(change) = self.present() {
                return Ok(change);
            }
            let change = tokio::select! {
                biased;
                () = self.pod.link().closed().cancelled() => return Err(BackendError::closed()),
                () = self.generation.over.cancelled() => {
                    return Err(unavailable("the bucket was recreated or restored"));
                }
                () = self.connection.cancelled() => return Err(unavailable("the connection ended")),
                message = self.news.next() => match message {
                    Some(message) => self.hear(message),
                    None => return Err(unavailable("the client ended the subscription")),
                },
                answer = looked(&mut self.look) => self.learn(answer)?,
                () = sleep_until(self.next_look), if self.look.is_none() => {
                    self.check_refusal()?;
                    self.ask();
                    None
                }
            };
            if let Some(change) = change {
                return Ok(change);
            }
        }
    }
}

/// The answer of the question that is under way; never, where there is none.
async fn looked(look: &mut Option<(Look, u64)>) -> Result<Option<Latest>, ApiError> {
    match look {
        Some((look, _)) => look.await,
        None => std::future::pending().await,
    }
}

/// How long to wait after so many looks; jittered, because thousands of watches begin together.
fn pause(looks: usize) -> Duration {
    let least = SETTLING.get(looks).copied().unwrap_or(LOOK_EVERY);
    least.mul_f64(1.0 + rand::random::<f64>())
}

fn sequence(latest: &Option<Latest>) -> u64 {
    latest.as_ref().map_or(0, |latest| latest.sequence)
}

/// What the bucket told; nothing if it was not the bucket.
fn news(message: Message) -> Option<Latest> {
    let headers = message.headers.as_ref()?;
    let sequence = headers.get(SEQUENCE)?.as_str().parse().ok()?;
    Some(said(sequence, Some(headers), message.payload.clone()))
}
