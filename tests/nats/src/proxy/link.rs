//! What stands between clients and several servers.

use std::net::SocketAddr;

use super::{Acks, Proxy};
use crate::server::Server;

/// A proxy for each server, broken and mended together.
#[derive(Debug)]
pub struct Link {
    proxies: Vec<Proxy>,
    acks: Acks,
}

impl Link {
    /// Starts a proxy in front of each of these servers.
    ///
    /// # Errors
    /// If one of them cannot listen.
    pub fn to<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Result<Self, String> {
        Self::to_addrs(servers.into_iter().map(Server::addr))
    }

    /// As [`Link::to`], for servers that somebody else started.
    ///
    /// # Errors
    /// As [`Link::to`].
    pub fn to_addrs(servers: impl IntoIterator<Item = SocketAddr>) -> Result<Self, String> {
        let acks = Acks::default();
        let proxies =
            servers.into_iter().map(|server| Proxy::sharing(server, &acks)).collect::<Result<_, _>>()?;
        Ok(Self { proxies, acks })
    }

    /// One proxy for each server, in their order.
    #[must_use]
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Where clients connect, for each server.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.proxies.iter().map(Proxy::url).collect()
    }

    /// Cuts every connection to every server, and refuses new ones. It has done so when this returns.
    pub fn interrupt(&self) {
        for proxy in &self.proxies {
            proxy.interrupt();
        }
    }

    /// Takes connections again. It does when this returns.
    ///
    /// # Errors
    /// If somebody else listens on one of the ports by now.
    pub fn restore(&self) -> Result<(), String> {
        self.proxies.iter().try_for_each(Proxy::restore)
    }

    /// Swallows the acknowledgement of the next append or cell write, whichever server it comes through.
    pub fn lose_next_ack(&self) {
        self.acks.lose_next();
    }

    /// What is to be lost, and what was.
    #[must_use]
    pub fn acks(&self) -> &Acks {
        &self.acks
    }
}
