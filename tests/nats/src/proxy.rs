//! What stands between clients and a server, and can be broken.

mod acks;
mod connection;
mod frames;
mod link;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

pub use acks::Acks;
pub use link::Link;

use crate::lock::Lock;
use crate::ports::free_port;
use connection::Connections;

/// Forwards connections to one server, until told to break them.
///
/// It follows the NATS protocol in both directions, so it forwards no TLS.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Lock<Option<Acceptor>>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    acks: Acks,
    connections: Connections,
}

#[derive(Debug)]
struct Acceptor {
    is_told_to_stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port for connections to `server`.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(server: SocketAddr) -> Result<Self, String> {
        Self::sharing(server, &Acks::default())
    }

    /// As [`Proxy::start`], losing only what the others that share `acks` have not lost.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn sharing(server: SocketAddr, acks: &Acks) -> Result<Self, String> {
        let addr = (Ipv4Addr::LOCALHOST, free_port()).into();
        let shared = Shared { server, acks: acks.clone(), connections: Connections::default() };
        let proxy = Self { addr, shared: Arc::new(shared), acceptor: Lock::new(None) };
        proxy.restore()?;
        Ok(proxy)
    }

    /// Where clients connect; it stays the same through interruptions.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    /// Cuts every connection, both ways, and refuses new ones. It has done so when this returns.
    pub fn interrupt(&self) {
        if let Some(acceptor) = self.acceptor.lock().take() {
            acceptor.stop(self.addr);
        }
        // Nobody adds a connection any more.
        self.shared.connections.cut();
    }

    /// Takes connections again; nothing happens where it does. It does when this returns.
    ///
    /// # Errors
    /// If somebody else listens on the port by now.
    pub fn restore(&self) -> Result<(), String> {
        let mut acceptor = self.acceptor.lock();
        if acceptor.is_none() {
            let listener = TcpListener::bind(self.addr)
                .map_err(|error| format!("the proxy cannot listen on {}: {error}", self.addr))?;
            *acceptor = Some(Acceptor::start(listener, Arc::clone(&self.shared)));
        }
        Ok(())
    }

    /// Swallows the acknowledgement of the next append or cell write of any client, which the server has done.
    pub fn lose_next_ack(&self) {
        self.shared.acks.lose_next();
    }

    /// What is to be lost, and what was.
    #[must_use]
    pub fn acks(&self) -> &Acks {
        &self.shared.acks
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.interrupt();
    }
}

impl Acceptor {
    fn start(listener: TcpListener, shared: Arc<Shared>) -> Self {
        let is_told_to_stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_told_to_stop);
        let thread = thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                // The connection that wakes this thread to be told so is no client's.
                if told.load(Ordering::SeqCst) {
                    break;
                }
                // A server that is down refuses, and so does its proxy: the client's connection is closed.
                join(client, &shared).ok();
            }
        });
        Self { is_told_to_stop, thread }
    }

    fn stop(self, addr: SocketAddr) {
        self.is_told_to_stop.store(true, Ordering::SeqCst);
        // It waits for a connection, so it gets one; a failure means that it listens no more.
        drop(TcpStream::connect(addr));
        self.thread.join().expect("the proxy's thread does not panic");
    }
}

fn join(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect(shared.server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    shared.connections.open(client, server, &shared.acks)
}
