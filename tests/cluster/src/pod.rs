//! One chat.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nats_servers::{Cluster, Process, free_port, wait_for};

use crate::http;

/// How long a pod may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// A chat of its own, at an address that stays the same when it is started again.
#[derive(Debug)]
pub(crate) struct Pod {
    number: usize,
    addr: SocketAddr,
    chat: PathBuf,
    backplane: String,
    log: PathBuf,
    process: Option<Process>,
}

impl Pod {
    pub(crate) fn new(number: usize, chat: &Path, nats: &Cluster, dir: &Path) -> Self {
        Self {
            number,
            addr: (Ipv4Addr::LOCALHOST, free_port()).into(),
            chat: chat.to_owned(),
            backplane: nats.urls().join(","),
            log: dir.join(format!("pod-{number}.log")),
            process: None,
        }
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// What the proxy calls it.
    pub(crate) fn name(&self) -> String {
        format!("pod-{}", self.number)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn start(&mut self) -> Result<(), String> {
        let log =
            append_to(&self.log).map_err(|error| format!("cannot write {}: {error}", self.log.display()))?;
        let mut chat = Command::new(&self.chat);
        chat.env("VIA_ADDR", self.addr.to_string())
            .env("VIA_BACKPLANE", &self.backplane)
            // The log is a file, for editors rather than terminals.
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(log);
        self.process = Some(Process::spawn(&mut chat)?);
        Ok(())
    }

    pub(crate) fn wait_until_ready(&mut self) -> Result<(), String> {
        let ready = wait_for(PATIENCE, || {
            let ended = self.process.as_mut().map_or(Some("was never started".to_owned()), |process| {
                process.ended().map(|status| format!("ended ({status})"))
            });
            match ended {
                Some(how) => Some(Err(how)),
                None => {
                    http::get(self.addr, "/readyz").is_ok_and(|answer| answer.status == 200).then_some(Ok(()))
                }
            }
        });
        ready.unwrap_or_else(|| Err(format!("was not ready after {PATIENCE:?}"))).map_err(|how| {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            format!("{} {how}; its log:\n{log}", self.name())
        })
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) {
        if let Some(process) = &mut self.process {
            process.stop();
        }
    }

    /// The page this pod serves, past the proxy.
    pub(crate) fn page(&self) -> Result<String, String> {
        self.get("/")
    }

    /// How many tabs have their stream here; none where the pod is down.
    pub(crate) fn tabs(&self) -> usize {
        let metrics = self.get("/metrics").unwrap_or_default();
        let streams = metrics.lines().find_map(|line| line.strip_prefix("via_tab_streams{"));
        streams.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }

    fn get(&self, path: &str) -> Result<String, String> {
        let answer =
            http::get(self.addr, path).map_err(|error| format!("{} {path}: {error}", self.name()))?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(format!("{} {path}: status {status}", self.name())),
        }
    }
}

/// A pod that is started again logs where it logged before.
fn append_to(log: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(log)
}
