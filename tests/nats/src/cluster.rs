//! Several servers that replicate to each other.

use std::time::Duration;

use crate::config::{Config, Place, Routes};
use crate::monitor;
use crate::ports::free_port;
use crate::server::{Server, Trouble, retried};
use crate::wait::wait_for;

/// How long an election may take; one that finds every server takes a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster of nats-servers with JetStream; killed when dropped.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    /// Starts this many servers, and waits until all have caught up with the one they have elected.
    ///
    /// # Errors
    /// As [`Server::start`], or if no leader is elected within 30 seconds.
    ///
    /// # Panics
    /// If `size` is zero.
    pub fn start(config: Config, size: usize) -> Result<Self, String> {
        assert!(size > 0, "a cluster has a server");
        let cluster = retried(config.port.is_some(), || Self::launch(&config, size))?;
        cluster.leader()?;
        Ok(cluster)
    }

    /// Its servers, always in the same order.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Where clients connect, for each server.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }

    /// The server that leads the cluster's JetStream, and places streams and consumers, once there is one.
    ///
    /// # Errors
    /// If no server names a leader within 30 seconds.
    pub fn leader(&self) -> Result<&Server, String> {
        self.agreed(monitor::meta_leader)
            .ok_or_else(|| format!("the cluster elected no leader within {PATIENCE:?}"))
    }

    /// The server that leads a stream, once there is one.
    ///
    /// # Errors
    /// If no server names a leader within 30 seconds: there is no such stream, or too few servers are up.
    pub fn stream_leader(&self, stream: &str) -> Result<&Server, String> {
        self.agreed(|port| monitor::stream_leader(port, stream))
            .ok_or_else(|| format!("nobody led the stream `{stream}` within {PATIENCE:?}"))
    }

    /// The server that leads a stream after one that has stopped did, once there is one.
    ///
    /// # Errors
    /// As [`Cluster::stream_leader`].
    pub fn next_stream_leader(&self, stream: &str, former: &Server) -> Result<&Server, String> {
        self.agreed_but(Some(former), |port| monitor::stream_leader(port, stream))
            .ok_or_else(|| format!("nobody else led the stream `{stream}` within {PATIENCE:?}"))
    }

    /// Asks every server to stop, and waits until all have.
    pub fn stop(&self) {
        for server in &self.servers {
            server.stop();
        }
    }

    fn launch(config: &Config, size: usize) -> Result<Self, Trouble> {
        let routes: Vec<u16> = std::iter::repeat_with(free_port).take(size).collect();
        let servers = routes.iter().zip(1..).map(|(&port, number)| {
            let place = Place {
                name: format!("n{number}"),
                client: config.port.map_or_else(free_port, |first| first + (number - 1)),
                monitor: free_port(),
                cluster: Some(Routes { port, all: routes.clone() }),
            };
            let dir = config.dir.as_ref().map(|dir| dir.join(&place.name));
            Server::launch(config, place, dir)
        });
        // All of them are started before one is waited for: none is healthy before a majority is up.
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        for server in &servers {
            server.wait_until_ready()?;
        }
        Ok(Self { servers })
    }

    /// The server somebody names and that agrees: one that was cut off may still name the leader it lost.
    fn agreed(&self, leader: impl Fn(u16) -> Option<String>) -> Option<&Server> {
        self.agreed_but(None, leader)
    }

    /// As [`Cluster::agreed`], without asking this one, which would not answer.
    fn agreed_but(&self, but: Option<&Server>, leader: impl Fn(u16) -> Option<String>) -> Option<&Server> {
        wait_for(PATIENCE, || {
            self.servers
                .iter()
                .filter(|server| but.is_none_or(|but| but.name() != server.name()))
                .find(|server| leader(server.monitor_port()).as_deref() == Some(server.name()))
        })
    }
}
