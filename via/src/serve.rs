//! Serving an app until it is told to stop.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use http::StatusCode;
use tokio::net::TcpListener;

use crate::{App, Result, listener, session::Transport};

/// Why an address cannot be listened on: one line each.
#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error("`{0}` is not an address to listen on: write one such as 127.0.0.1:3000")]
    NotAnAddress(String),
    #[error("cannot listen on {0}: the address is in use")]
    InUse(String),
    #[error("cannot listen on {addr}")]
    Refused {
        addr: String,
        #[source]
        source: io::Error,
    },
}

impl App {
    /// Starts the app, serves it on an address such as `127.0.0.1:3000`, and stops it on SIGINT or SIGTERM.
    ///
    /// Port 0 takes a free one. The address is printed once connections are accepted: `listening on http://…`.
    /// A stop ends the streams with a hint to come back, lets requests and actions under way finish, and stops the
    /// engine, within 10 s.
    ///
    /// # Errors
    /// An address that is none, or in use, in one line; and as [`start`](Self::start) and
    /// [`Running::shutdown`](crate::Running::shutdown).
    ///
    /// # Cancel safety
    /// Dropping the future closes the listener; streams and background tasks end with the runtime.
    pub async fn serve(mut self, addr: impl AsRef<str>) -> Result<()> {
        let listener = listen(addr.as_ref()).await?;
        let addr = listener.local_addr()?;
        if is_loopback(addr.ip()) {
            self.transport = Transport::Loopback;
        }
        let running = self.start().await?;
        // Listened for before anybody can know that the app is there: a signal must find it ready to stop.
        let signals = Signals::listen()?;
        announce(addr);

        let router = running.router().fallback(|| async { StatusCode::NOT_FOUND });
        let stopping = running.engine().supervisor().stopping();
        tokio::select! {
            never = listener::accept(&listener, &router, running.engine().supervisor()) => match never {},
            () = signals.received() => {}
            // A background task had to stop the app.
            () = stopping.cancelled() => {}
        }
        // Nobody new comes in while those inside finish.
        drop(listener);
        running.shutdown().await
    }
}

async fn listen(addr: &str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(addr.to_owned()),
        io::ErrorKind::InvalidInput => ListenError::NotAnAddress(addr.to_owned()),
        _ if addr.parse::<SocketAddr>().is_err() => ListenError::NotAnAddress(addr.to_owned()),
        _ => ListenError::Refused { addr: addr.to_owned(), source },
    })
}

/// People and tests wait for this line.
#[expect(
    clippy::print_stdout,
    reason = "the address is what the program has to say, and port 0 has no other way"
)]
fn announce(addr: SocketAddr) {
    println!("listening on http://{addr}");
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// What a person or an orchestrator stops the app with.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn received(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What a person stops the app with.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn received(self) {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "SIGINT cannot be listened for");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_one_clear_line() {
        let holder = listen("127.0.0.1:0").await.expect("a free port");
        let addr = holder.local_addr().expect("bound").to_string();
        let error = crate::Error::from(listen(&addr).await.expect_err("the address is in use"));
        assert_eq!(format!("{error:?}"), format!("cannot listen on {addr}: the address is in use"));
    }

    #[tokio::test]
    async fn a_bad_address_is_one_clear_line() {
        for addr in ["", "3000", "nonsense", "127.0.0.1:99999", "127.0.0.1:"] {
            let error = crate::Error::from(listen(addr).await.expect_err("not an address"));
            let line = format!("{error:?}");
            assert!(
                line.contains("is not an address to listen on") && !line.contains('\n'),
                "{addr}: {line}"
            );
        }
    }

    #[test]
    fn loopback_is_told_in_every_spelling() {
        for ip in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(ip.parse().expect("an address")), "{ip}");
        }
        assert!(!is_loopback("0.0.0.0".parse().expect("an address")));
    }
}
