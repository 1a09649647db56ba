//! HAProxy, with the configuration that is deployed.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nats_servers::{Process, free_port, wait_for};

use crate::http;
use crate::pod::Pod;

/// The variable that names another HAProxy.
const VARIABLE: &str = "VIA_HAPROXY";

/// How long the proxy may take to reach every pod.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Proxy {
    addr: SocketAddr,
    process: Process,
}

impl Proxy {
    pub(crate) fn start(pods: &[Pod], dir: &Path) -> Result<Self, String> {
        let addr: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
        let log = dir.join("haproxy.log");
        let log = File::create(&log).and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) = log.map_err(|error| format!("the proxy has nowhere to log to: {error}"))?;
        let mut haproxy = Command::new(executable());
        haproxy.arg("-f").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/haproxy.cfg"));
        haproxy.env("VIA_LISTEN", addr.to_string()).stdout(stdout).stderr(stderr);
        for pod in pods {
            haproxy.env(format!("VIA_POD_{}", pod.number()), pod.addr().to_string());
        }
        Ok(Self { addr, process: Process::spawn(&mut haproxy)? })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    /// Waits until each of these pods has answered through the proxy.
    pub(crate) fn wait_for_all(&self, pods: &[Pod]) -> Result<(), String> {
        let mut missing: BTreeSet<String> = pods.iter().map(Pod::name).collect();
        let reached = wait_for(PATIENCE, || {
            if let Ok(answer) = http::get(self.addr, "/livez") {
                missing.remove(answer.header("via-pod").unwrap_or_default());
            }
            missing.is_empty().then_some(())
        });
        reached.ok_or_else(|| format!("the proxy did not reach {missing:?} within {PATIENCE:?}"))
    }

    /// The pods that answer so many requests in a row, in their order.
    pub(crate) fn answering(&self, requests: usize) -> Result<Vec<String>, String> {
        (0..requests)
            .map(|_| {
                let answer = http::get(self.addr, "/livez").map_err(|error| format!("the proxy: {error}"))?;
                answer.header("via-pod").map(str::to_owned).ok_or_else(|| "no pod answered".to_owned())
            })
            .collect()
    }

    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }
}

/// Debian keeps it where only administrators look for programs.
fn executable() -> PathBuf {
    if let Some(given) = std::env::var_os(VARIABLE) {
        return given.into();
    }
    let administrators = PathBuf::from("/usr/sbin/haproxy");
    if administrators.is_file() { administrators } else { "haproxy".into() }
}
