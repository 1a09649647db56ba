//! Connections: accepted one by one, each a supervised task that ends with the app.

use std::{convert::Infallible, io, pin::pin, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use via_backplane::{BoxError, OnStop, Stop, Supervisor};

/// How long a connection may take to send a request's head, and how long it may be idle between two.
const HEAD: Duration = Duration::from_secs(75);
/// What a connection buffers at most, per direction: a browser that reads slowly costs this and skips frames.
const BUFFER: usize = 64 * 1024;
/// How long to wait when the process is out of file descriptors: some will be closed.
const BREATH: Duration = Duration::from_millis(100);

/// Accepts connections for as long as it is polled.
///
/// axum's own loop is not used: it copies the routes for every connection and sniffs for HTTP/2, together more than half
/// of what an idle tab costs, and its tasks are nobody's.
///
/// # Cancel safety
/// Cancel-safe: what was accepted goes on, and ends with the supervisor.
pub(crate) async fn accept(listener: &TcpListener, router: &Router, supervisor: &Supervisor) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let router = router.clone();
                // Boxed: the supervisor's layers would each keep room for a connection's state beside their own.
                supervisor.spawn("connection", OnStop::Drain, |stop| Box::pin(connection(tcp, router, stop)));
            }
            Err(error) if is_the_connections(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(BREATH).await;
            }
        }
    }
}

async fn connection(tcp: TcpStream, router: Router, stop: Stop) -> Result<(), BoxError> {
    // A frame is small and wanted now.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER);
    let mut serving = pin!(http.serve_connection(TokioIo::new(tcp), TowerToHyperService::new(router)));
    let served = tokio::select! {
        biased;
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            // The response under way is finished; a stream's source ends it by itself.
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
    Ok(())
}

/// Whether the connection failed before it was accepted, which says nothing about the next one.
fn is_the_connections(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
