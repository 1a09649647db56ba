//! One pod's connection as a backplane.

use std::{fmt, sync::Arc, time::Duration};

use async_nats::Subscriber;
use futures_util::{StreamExt as _, stream::SelectAll};
use via_backplane::{BackendError, Backplane, Compactor, EventLog, Feed, Limits, OnStop, Reply, Store};

use crate::{
    append::Appender,
    generation::{Generation, Known},
    group,
    link::Link,
    names::{CellSubjects, LogSubjects},
    reach::Presence,
    streams::{self, Cells, Events},
};

/// How often a quiet pod looks whether the streams are still the ones it knows.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What headers may take of a message, beside a record or a value: an append's id, an expectation with its subject, a batch.
const HEADERS: usize = 2_048;

/// Where this backplane's `Limits` come from when the server allows larger atomic batches: its default.
pub(crate) const MAX_BATCH: usize = 1_000;

/// A backplane on NATS JetStream.
///
/// [`connect`](crate::connect) makes one, or a [`Builder`](crate::Builder). Each is one pod's connection.
pub struct Nats(Pod);

/// What every part of the adapter needs. Cloning is a reference count.
#[derive(Clone)]
pub(crate) struct Pod(Arc<Inner>);

struct Inner {
    link: Link,
    prefix: String,
    log: Known<LogSubjects>,
    cells: Known<CellSubjects>,
    appender: Appender,
    presence: Presence,
}

impl Nats {
    pub(crate) fn new(pod: Pod) -> Self {
        Self(pod)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.0.link().abandon();
    }
}

impl Pod {
    pub(crate) fn new(
        link: Link,
        prefix: String,
        log: Known<LogSubjects>,
        cells: Known<CellSubjects>,
        presence: Presence,
    ) -> Self {
        let (appender, waiting) = Appender::new();
        let pod = Self(Arc::new(Inner { link, prefix, log, cells, appender, presence }));
        let groups = group::gather(pod.clone(), waiting);
        pod.link().supervisor().spawn("nats groups", OnStop::Abort, |_| async {
            groups.await;
            Ok(())
        });
        let watched = pod.clone();
        pod.link().supervisor().spawn("nats streams", OnStop::Abort, |_| async move {
            watched.keep_looking().await;
            Ok(())
        });
        pod
    }

    pub(crate) fn link(&self) -> &Link {
        &self.0.link
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// The name of the event stream.
    pub(crate) fn stream(&self) -> &str {
        &self.0.log.name
    }

    /// The name of the bucket's stream.
    pub(crate) fn bucket(&self) -> &str {
        &self.0.cells.name
    }

    pub(crate) fn appender(&self) -> &Appender {
        &self.0.appender
    }

    pub(crate) fn presence(&self) -> &Presence {
        &self.0.presence
    }

    /// The generation of the log that was last known.
    pub(crate) fn log_generation(&self) -> Arc<Generation<LogSubjects>> {
        self.0.log.present()
    }

    /// The generation of the bucket that was last known.
    pub(crate) fn cell_generation(&self) -> Arc<Generation<CellSubjects>> {
        self.0.cells.present()
    }

    /// Asks the server which generation of the log is there.
    pub(crate) async fn look_at_log(&self) -> Result<Arc<Generation<LogSubjects>>, BackendError> {
        let question = self.0.log.ask();
        let found = streams::look::<Events>(self.link(), self.prefix()).await?;
        Ok(self.0.log.learn(question, found))
    }

    /// Asks the server which generation of the bucket is there.
    pub(crate) async fn look_at_cells(&self) -> Result<Arc<Generation<CellSubjects>>, BackendError> {
        let question = self.0.cells.ask();
        let found = streams::look::<Cells>(self.link(), self.prefix()).await?;
        Ok(self.0.cells.learn(question, found))
    }

    /// A stream that was deleted and created again under live readers does not end them: they would wait for ever. The server
    /// tells whoever listens, if they may and if nothing is lost on the way; so it is also asked every few seconds.
    async fn keep_looking(&self) {
        let mut advisories = SelectAll::new();
        for stream in [self.stream(), self.bucket()] {
            let told = self.link().listen(format!("$JS.EVENT.ADVISORY.STREAM.*.{stream}")).await;
            advisories.extend(told);
        }
        loop {
            let jitter = LOOK_EVERY.mul_f64(rand::random::<f64>() / 2.0);
            tokio::time::timeout(LOOK_EVERY + jitter, next_of(&mut advisories)).await.ok();
            for looked in [self.look_at_log().await.map(drop), self.look_at_cells().await.map(drop)] {
                if let Err(error) = looked {
                    tracing::debug!(%error, "the streams could not be looked at");
                }
            }
        }
    }
}

/// Waits for ever where there is nobody to tell.
async fn next_of(advisories: &mut SelectAll<Subscriber>) {
    if advisories.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

impl Backplane for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn log(&self) -> &dyn EventLog {
        &self.0
    }

    fn store(&self) -> &dyn Store {
        &self.0
    }

    fn compactor(&self) -> Option<&dyn Compactor> {
        Some(&self.0)
    }

    fn feed(&self) -> Option<&dyn Feed> {
        Some(&self.0)
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn ping(&self) -> Reply<'_, Result<(), BackendError>> {
        Reply::later(async move {
            self.0.link().connected().await?;
            // A connection to a server that cannot reach its stream's leader is of no use.
            self.0.look_at_log().await.map(drop)
        })
    }

    fn close(&self) -> Reply<'_, ()> {
        Reply::later(self.0.link().close())
    }
}

impl Pod {
    pub(crate) fn limits(&self) -> Limits {
        let max_message = self.link().client().max_payload();
        let max_record = max_message.saturating_sub(HEADERS);
        Limits {
            max_record,
            max_batch: MAX_BATCH,
            max_cell: max_record,
            max_message,
            id_window: self.log_generation().duplicate_window,
        }
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("prefix", &self.0.prefix()).finish_non_exhaustive()
    }
}
