//! One cluster for many tests.

use std::env;
use std::net::SocketAddr;
use std::sync::OnceLock;

use crate::cluster::Cluster;
use crate::config::Config;

/// The variable that names a running cluster's servers, separated by commas.
pub const CLUSTER_VARIABLE: &str = "VIA_NATS_CLUSTER";

/// A cluster others use too: whoever uses it takes a prefix of its own, and breaks nothing.
#[derive(Clone, Debug)]
pub struct Shared {
    urls: Vec<String>,
}

impl Shared {
    /// Where clients connect, for each server.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Where clients connect, for a [`Link`](crate::Link).
    ///
    /// # Errors
    /// If the variable names something else than `nats://` and a numeric address with a port.
    pub fn addrs(&self) -> Result<Vec<SocketAddr>, String> {
        let addr = |url: &String| {
            let addr = url.strip_prefix("nats://").unwrap_or(url);
            addr.parse().map_err(|error| format!("{CLUSTER_VARIABLE} names `{url}`: {error}"))
        };
        self.urls.iter().map(addr).collect()
    }
}

/// The cluster `VIA_NATS_CLUSTER` names, or one of three servers that this process starts once and for all.
///
/// `cargo xtask test` starts one for all tests, each of which is a process of its own; it is much of what a short test
/// takes. One that this process has started ends with it.
///
/// # Errors
/// As [`Cluster::start`]; and again for everybody who asks, since nothing would be different.
pub fn shared_cluster() -> Result<Shared, String> {
    static OURS: OnceLock<Result<Cluster, String>> = OnceLock::new();

    if let Ok(given) = env::var(CLUSTER_VARIABLE) {
        return Ok(Shared { urls: given.split(',').map(|url| url.trim().to_owned()).collect() });
    }
    let ours = OURS.get_or_init(|| Cluster::start(Config::new(), 3));
    ours.as_ref().map(|cluster| Shared { urls: cluster.urls() }).map_err(Clone::clone)
}
