//! Everything that runs.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use nats_servers::{Cluster, Config};

use crate::pod::Pod;
use crate::proxy::Proxy;

/// The cluster, the pods and the proxy; all of them end with this process, however it ends.
///
/// The fields are dropped in the order in which things are stopped: whoever uses something goes first.
#[derive(Debug)]
pub(crate) struct Demo {
    pub(crate) proxy: Proxy,
    pub(crate) pods: Vec<Pod>,
    pub(crate) nats: Cluster,
    dir: Dir,
}

impl Demo {
    /// Starts all of it, and waits until the proxy reaches every pod.
    ///
    /// Where something does not start, its log is left among the system's temporary files.
    pub(crate) fn start(chat: &Path) -> Result<Self, String> {
        println!("starting three NATS servers, three pods and a proxy");
        let mut dir = Dir::fresh()?;
        // Until everything is up, nobody else could keep the logs.
        dir.is_kept = true;
        // As deploy/nats has it: what is acknowledged is on the disks of a majority.
        let nats = Cluster::start(Config::new().sync_always().dir(dir.path.join("nats")), 3)?;
        let mut pods: Vec<Pod> = (1..=3).map(|number| Pod::new(number, chat, &nats, &dir.path)).collect();
        // Together: none of them waits for another.
        pods.iter_mut().try_for_each(Pod::start)?;
        pods.iter_mut().try_for_each(Pod::wait_until_ready)?;
        let proxy = Proxy::start(&pods, &dir.path)?;
        proxy.wait_for_all(&pods)?;
        dir.is_kept = false;
        Ok(Self { proxy, pods, nats, dir })
    }

    /// Stops everything in order: no pod loses its backplane while it says goodbye to its tabs.
    pub(crate) fn stop(&mut self) {
        for pod in &mut self.pods {
            pod.stop();
        }
        self.proxy.stop();
        self.nats.stop();
    }

    /// Leaves the logs where they are, and says where.
    pub(crate) fn keep_logs(&mut self) -> &Path {
        self.dir.is_kept = true;
        &self.dir.path
    }
}

impl fmt::Display for Demo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\nopen     {}", self.proxy.url())?;
        for pod in &self.pods {
            writeln!(formatter, "pod {}    {}", pod.number(), pod.url())?;
        }
        for server in self.nats.servers() {
            writeln!(formatter, "server   {} ({})", server.url(), server.name())?;
        }
        Ok(())
    }
}

/// Where everything logs, removed at the end unless something went wrong.
#[derive(Debug)]
struct Dir {
    path: PathBuf,
    is_kept: bool,
}

impl Dir {
    fn fresh() -> Result<Self, String> {
        let path = env::temp_dir().join(format!("via-cluster-{}", std::process::id()));
        // A process that was killed may have had this one's id.
        fs::remove_dir_all(&path).ok();
        fs::create_dir(&path).map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        Ok(Self { path, is_kept: false })
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if !self.is_kept {
            // A failure leaves a directory among the temporary ones, which is where it may be left.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}
