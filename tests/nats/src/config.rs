//! What a server is told at start.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The directory of a server's JetStream, in its own.
pub(crate) const STORE: &str = "store";

/// How a server is to be started; what is not said is nats-server's default.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub(crate) dir: Option<PathBuf>,
    pub(crate) port: Option<u16>,
    /// What runs the server, before its own name.
    pub(crate) runner: Vec<String>,
    sync_always: bool,
    max_payload: Option<usize>,
    jetstream: String,
    extra: String,
}

impl Config {
    /// A free port, a directory of its own, JetStream with a file store.
    #[must_use = "a configuration does nothing until a server is started with it"]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every message is on the disk before it is acknowledged.
    #[must_use = "this returns the changed configuration"]
    pub fn sync_always(mut self) -> Self {
        self.sync_always = true;
        self
    }

    /// The largest message a client may publish, in bytes.
    #[must_use = "this returns the changed configuration"]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = Some(bytes);
        self
    }

    /// Adds settings to the block that configures JetStream.
    #[must_use = "this returns the changed configuration"]
    pub fn jetstream(mut self, settings: impl AsRef<str>) -> Self {
        self.jetstream.push_str(", ");
        self.jetstream.push_str(settings.as_ref());
        self
    }

    /// Adds lines of nats-server's own configuration, for accounts, users, permissions or TLS.
    #[must_use = "this returns the changed configuration"]
    pub fn extra(mut self, lines: impl AsRef<str>) -> Self {
        self.extra.push_str(lines.as_ref());
        self.extra.push('\n');
        self
    }

    /// Keeps configuration, log and store in this directory, which is not removed afterwards.
    ///
    /// A cluster makes one directory in it for each of its servers.
    #[must_use = "this returns the changed configuration"]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Has the server run by another program, which is given its command.
    pub(crate) fn run_by<'a>(mut self, runner: impl IntoIterator<Item = &'a str>) -> Self {
        self.runner = runner.into_iter().map(ToOwned::to_owned).collect();
        self
    }

    /// Listens on this port rather than a free one; a cluster's next servers take the ports after it.
    #[must_use = "this returns the changed configuration"]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The configuration file of one server.
    pub(crate) fn text(&self, dir: &Path, place: &Place) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes all that is written");
        line(format!("server_name: {}", quoted(&place.name)));
        line(format!("listen: \"127.0.0.1:{}\"", place.client));
        line(format!("http: \"127.0.0.1:{}\"", place.monitor));
        line(format!("log_file: {}", quoted(&log_file(dir).to_string_lossy())));
        let store = quoted(&dir.join(STORE).to_string_lossy());
        let sync = if self.sync_always { ", sync_interval: always" } else { "" };
        line(format!("jetstream {{ store_dir: {store}{sync}{} }}", self.jetstream));
        if let Some(bytes) = self.max_payload {
            line(format!("max_payload: {bytes}"));
        }
        if let Some(cluster) = &place.cluster {
            // Clients that came through a proxy must not learn how to go around it.
            line(format!(
                "cluster {{ name: via, listen: \"127.0.0.1:{}\", no_advertise: true, routes: [{}] }}",
                cluster.port,
                cluster
                    .all
                    .iter()
                    .map(|port| format!("\"nats://127.0.0.1:{port}\""))
                    .collect::<Vec<_>>()
                    .join(", "),
            ));
        }
        line(self.extra.clone());
        text
    }
}

/// Where one server listens, and who it is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) client: u16,
    pub(crate) monitor: u16,
    pub(crate) cluster: Option<Routes>,
}

/// Where a server of a cluster listens for the others, and where all of them do.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    pub(crate) port: u16,
    pub(crate) all: Vec<u16>,
}

pub(crate) fn log_file(dir: &Path) -> PathBuf {
    dir.join("log")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
