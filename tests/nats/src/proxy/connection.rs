//! The connections that pass through a proxy.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::acks::{Acks, is_write};
use super::frames::{Fate, copy, delivered_to, request};
use crate::lock::Lock;

/// Every open connection of a proxy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections {
    next: Arc<AtomicU64>,
    open: Arc<Lock<HashMap<u64, Arc<Connection>>>>,
}

/// One client and the server, joined.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    acks: Acks,
    /// The subjects whose next message is swallowed.
    swallowed: Lock<Vec<Vec<u8>>>,
    /// Whether there are any, so that bulk traffic takes no lock.
    is_swallowing: AtomicBool,
}

impl Connections {
    /// Forwards both ways until either end closes.
    pub(crate) fn open(&self, client: TcpStream, server: TcpStream, acks: &Acks) -> io::Result<()> {
        let (from_client, to_client) = (client.try_clone()?, client.try_clone()?);
        let (from_server, to_server) = (server.try_clone()?, server.try_clone()?);
        let connection = Arc::new(Connection {
            client,
            server,
            acks: acks.clone(),
            swallowed: Lock::default(),
            is_swallowing: AtomicBool::new(false),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(number, Arc::clone(&connection));

        let upstream = Arc::clone(&connection);
        thread::spawn(move || upstream.to_server(from_client, to_server));
        let open = Arc::clone(&self.open);
        thread::spawn(move || {
            connection.to_client(from_server, to_client);
            open.lock().remove(&number);
        });
        Ok(())
    }

    /// Closes all of them, both ways at once.
    pub(crate) fn cut(&self) {
        for (_, connection) in self.open.lock().drain() {
            connection.close();
        }
    }
}

impl Connection {
    fn to_server(&self, mut client: TcpStream, mut server: TcpStream) {
        // Either end may go at any time; that is what a proxy is for.
        copy(&mut client, &mut server, |line, message| self.judge_sent(line, message)).ok();
        // What the client sent last still arrives.
        server.shutdown(Shutdown::Write).ok();
    }

    fn to_client(&self, mut server: TcpStream, mut client: TcpStream) {
        copy(&mut server, &mut client, |line, _| self.judge_received(line)).ok();
        self.close();
    }

    fn judge_sent(&self, line: &[u8], message: &[u8]) -> Fate {
        if !self.acks.are_wanted() {
            return Fate::Pass;
        }
        let Some(request) = request(line) else { return Fate::Pass };
        let Some(headers) = message.get(..request.headers) else { return Fate::Wait };
        if is_write(&request, headers) && self.acks.claim() {
            // Before the request goes out, or its answer may be back first.
            self.swallowed.lock().push(request.reply.to_owned());
            self.is_swallowing.store(true, Ordering::SeqCst);
        }
        Fate::Pass
    }

    fn judge_received(&self, line: &[u8]) -> Fate {
        if !self.is_swallowing.load(Ordering::SeqCst) {
            return Fate::Pass;
        }
        let Some(subject) = delivered_to(line) else { return Fate::Pass };
        let mut swallowed = self.swallowed.lock();
        let Some(place) = swallowed.iter().position(|reply| reply == subject) else { return Fate::Pass };
        swallowed.swap_remove(place);
        self.is_swallowing.store(!swallowed.is_empty(), Ordering::SeqCst);
        self.acks.count();
        Fate::Drop
    }

    fn close(&self) {
        // Each fails where its end has closed already.
        self.client.shutdown(Shutdown::Both).ok();
        self.server.shutdown(Shutdown::Both).ok();
    }
}
