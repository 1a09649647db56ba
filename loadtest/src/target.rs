//! What is measured: a server that was named, or one of our own.

use std::{error::Error, future::Future, sync::Arc, time::Duration};

use async_nats::jetstream::{self, stream::Stream};
use nats_servers::{Config, Server};
use serde::Serialize;
use tokio::runtime::Runtime;
use via_backplane::{Backplane as _, OnStop, Supervisor};
use vianats::Nats;

use crate::cpu::Processes;

/// Why a program could not measure, or must not be believed.
pub(crate) type Failure = dyn Error + Send + Sync;

/// How long anything may take before it is called stuck.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, clap::Args)]
pub(crate) struct Wanted {
    /// The server to measure, `nats://host:port`; one is started and stopped if none is named.
    #[arg(long, value_parser = address)]
    backplane: Option<String>,
    /// Print one JSON object and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
    /// Little work, once: shows that it runs, and says nothing about speed.
    #[arg(long)]
    pub(crate) quick: bool,
}

impl Wanted {
    /// Whether a server is to be measured that is there already.
    pub(crate) fn names_a_server(&self) -> bool {
        self.backplane.is_some()
    }
}

fn address(text: &str) -> Result<String, String> {
    if text.starts_with("nats://") || text.starts_with("tls://") {
        Ok(text.to_owned())
    } else {
        Err("expected nats://host:port or tls://host:port".to_owned())
    }
}

/// A server, and streams of our own on it, which are gone afterwards.
pub(crate) struct Target {
    runtime: Runtime,
    url: String,
    prefix: String,
    server: Option<Server>,
}

/// What a report says of the server.
#[derive(Debug, Serialize)]
pub(crate) struct Described {
    version: String,
    /// Whether this program has started it, with nats-server's defaults.
    started_here: bool,
    replicas: usize,
}

impl Target {
    /// # Errors
    /// If no server could be started.
    pub(crate) fn new(wanted: &Wanted, config: Config) -> Result<Self, Box<Failure>> {
        let server = wanted.backplane.is_none().then(|| Server::start(config)).transpose()?;
        let url = wanted.backplane.clone().or_else(|| server.as_ref().map(Server::url));
        Ok(Self {
            runtime: runtime(),
            url: url.expect("it was named or started"),
            prefix: format!("loadtest-{:08x}", rand::random::<u32>()),
            server,
        })
    }

    /// A server and streams that another process has made.
    ///
    /// # Errors
    /// If no server was named.
    pub(crate) fn of_another(wanted: &Wanted, prefix: String) -> Result<Self, Box<Failure>> {
        let url = wanted.backplane.clone().ok_or("no server was named")?;
        Ok(Self { runtime: runtime(), url, prefix, server: None })
    }

    pub(crate) fn block_on<T>(&self, job: impl Future<Output = T>) -> T {
        self.runtime.block_on(job)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whose processor time says what something costs.
    pub(crate) fn processes(&self) -> Processes {
        Processes::new(self.server.as_ref().map(Server::id))
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The adapter, as an app connects it.
    pub(crate) async fn connect(&self) -> Result<Arc<Nats>, Box<Failure>> {
        Ok(Arc::new(vianats::Builder::new(&self.url).prefix(&self.prefix).connect().await?))
    }

    /// async-nats, as its documentation connects it.
    pub(crate) async fn connect_raw(&self) -> Result<jetstream::Context, Box<Failure>> {
        Ok(jetstream::new(async_nats::connect(&self.url).await?))
    }

    /// The stream that the adapter has made.
    pub(crate) async fn stream(&self, raw: &jetstream::Context) -> Result<Stream, Box<Failure>> {
        Ok(raw.get_stream(format!("{}-events", self.prefix)).await?)
    }

    pub(crate) async fn describe(&self, raw: &jetstream::Context) -> Result<Described, Box<Failure>> {
        let version = raw.client().server_info().version;
        let replicas = self.stream(raw).await?.cached_info().config.num_replicas;
        Ok(Described { version, started_here: self.server.is_some(), replicas })
    }

    /// Runs a measurement, and takes its streams away.
    pub(crate) fn run<T>(
        &self,
        measurement: impl Future<Output = Result<T, Box<Failure>>>,
    ) -> Result<T, Box<Failure>> {
        let measured = self.runtime.block_on(measurement);
        self.runtime.block_on(self.clean())?;
        measured
    }

    pub(crate) async fn clean(&self) -> Result<(), Box<Failure>> {
        let raw = self.connect_raw().await?;
        for stream in [format!("{}-events", self.prefix), format!("KV_{}-cells", self.prefix)] {
            // Nothing was made where connecting failed.
            raw.delete_stream(stream).await.ok();
        }
        Ok(())
    }
}

/// The subject of a key without an instance, from what its stream listens to: what the wire format says.
pub(crate) fn subject_of(stream: &Stream, family: &str) -> String {
    let listens = stream.cached_info().config.subjects[0].trim_end_matches('>').to_owned();
    format!("{listens}e.{family}.=")
}

/// What a family's keys are, likewise.
pub(crate) fn filter_of(stream: &Stream, family: &str) -> String {
    subject_of(stream, family).trim_end_matches('=').to_owned() + "*"
}

/// Two threads, as the machine that the budgets were set on has.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime of two threads")
}

/// Runs one side of a comparison as a task, where an app's own would run.
///
/// # Errors
/// Its own, and if it panics or is stuck.
pub(crate) async fn side<T: Send + 'static>(
    job: impl Future<Output = Result<T, Box<Failure>>> + Send + 'static,
) -> Result<T, Box<Failure>> {
    let bounded = async { tokio::time::timeout(PATIENCE, job).await };
    Supervisor::new().run("side", OnStop::Abort, bounded).await??
}

/// Closes a backplane before the server it is connected to is gone.
pub(crate) async fn close(backplane: &Nats) {
    backplane.close().await;
}
