//! Watching one cell: the bucket itself tells of what it has stored, on a subject of the cell's own.
//!
//! The bucket republishes each message once it is committed, with its sequence, and so does it with the markers it makes
//! itself when a cell expires. A watch is a subscription to that, and nothing that a server keeps: ten thousand of them
//! are cheap where as many consumers would not be. What is told may be lost on its way, as any message of core NATS: so
//! the leader is asked when the watch begins, shortly afterwards, and then every few minutes.
//!
//! A watch takes about 6 KiB of the process (measured with ten thousand, quiet ones), most of it the channel of the client's
//! subscription, whose first block has room for 32 messages. The question to the leader takes memory only while it is
//! under way.

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
    told: Told,
    /// The question to the leader that is under way, and what had been told when it was asked.
    look: Option<(Look, Told)>,
    looks: usize,
    next_look: Instant,
}

/// What was told last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    /// Its sequence, of whatever kind it was.
    sequence: u64,
    /// Whether it was a value.
    is_there: bool,
}

impl Told {
    /// Takes in what a cell is now; whether that is news. Servers may tell twice, and an answer may be older than what was
    /// told meanwhile.
    fn take(&mut self, latest: &Latest) -> bool {
        let is_news = latest.sequence > self.sequence;
        if is_news {
            *self = Self { sequence: latest.sequence, is_there: latest.value.is_some() };
        }
        is_news
    }
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
        let mut told = Told::default();
        let latest = latest.filter(|latest| told.take(latest) && latest.value.is_some());
        Ok(Self {
            pod: pod.clone(),
            key,
            generation,
            connection,
            opened,
            news,
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
        self.tell(latest?)
    }

    fn tell(&mut self, latest: Latest) -> Option<Change> {
        self.told.take(&latest).then(|| change(self.key.clone(), latest))
    }

    fn ask(&mut self) {
        let (pod, generation, key) = (self.pod.clone(), self.generation.clone(), self.key.clone());
        let look = async move { pod.latest(&generation, &key).await };
        self.look = Some((look.boxed(), self.told));
    }

    /// Takes in what the leader said.
    fn learn(&mut self, answer: Result<Option<Latest>, ApiError>) -> Result<Option<Change>, BackendError> {
        let told_then = self.look.take().map(|(_, told)| told);
        self.looks += usize::from(answer.is_ok());
        self.next_look = Instant::now() + pause(self.looks);
        match answer.map_err(BackendError::from) {
            Ok(Some(latest)) => Ok(self.tell(latest)),
            // Somebody purged the subject, or the one who answered leads no more. The next watch finds out which.
            Ok(None) if self.told.is_there && told_then == Some(self.told) => {
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
async fn looked(look: &mut Option<(Look, Told)>) -> Result<Option<Latest>, ApiError> {
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

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;

    use super::*;

    fn latest(sequence: u64, value: Option<&'static str>) -> Latest {
        Latest { sequence, value: value.map(Into::into) }
    }

    fn message(headers: &[(&'static str, &str)]) -> Message {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        Message {
            subject: "via.00ff.c.app.theme".into(),
            reply: None,
            payload: "dark".into(),
            headers: Some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn only_news_is_told() {
        let mut told = Told::default();
        assert!(told.take(&latest(5, Some("a"))) && told.is_there);
        assert!(!told.take(&latest(5, Some("a"))), "twice");
        assert!(!told.take(&latest(4, None)), "an answer that is older");
        assert!(told.take(&latest(6, None)) && !told.is_there);
        assert!(told.take(&latest(9, Some("b"))) && told.is_there);
    }

    #[test]
    fn what_the_bucket_tells_is_read() {
        let value = news(message(&[(SEQUENCE, "7"), ("Nats-Stream", "KV_via-cells")]));
        assert_eq!(value, Some(latest(7, Some("dark"))));
        let expired = news(message(&[(SEQUENCE, "8"), ("Nats-Marker-Reason", "MaxAge")]));
        assert_eq!(expired, Some(latest(8, None)));
        for others in [&[][..], &[(SEQUENCE, "x")], &[("KV-Operation", "DEL")]] {
            assert_eq!(news(message(others)), None, "{others:?}");
        }
    }

    #[test]
    fn looks_become_rare_and_spread() {
        for (looks, least) in [SETTLING[0], SETTLING[1], LOOK_EVERY, LOOK_EVERY].into_iter().enumerate() {
            let pause = pause(looks);
            assert!((least..=least * 2).contains(&pause), "{looks}: {pause:?}");
        }
    }
}
