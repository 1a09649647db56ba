//! Pods of the app under test, and the listener in front of them, in this process.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt;
use via::{App, Running};
use via_inmem::InMemory;

use crate::room::Room;

/// A pod of the room over this backplane.
pub(crate) async fn start(backplane: &InMemory) -> Running {
    let app = App::new().with_backplane(backplane.clone()).page::<Room>("/").on_loopback();
    app.start().await.expect("a room over a backplane in memory starts")
}

/// Stops a pod; nothing of it runs on.
pub(crate) async fn stop(pod: Running) {
    pod.shutdown().await.expect("no background task failed");
    let supervisor = pod.engine().supervisor();
    assert_eq!(supervisor.tasks(), 0, "{:?}", supervisor.names());
}

/// A router that sends actions to one pod and everything else to another, as a balancer without sticky sessions may.
pub(crate) fn split(shows: &Running, acts: &Running) -> Router {
    let (shows, acts) = (shows.router(), acts.router());
    Router::new().fallback(move |request: Request| {
        let pod = if request.method() == Method::POST { acts.clone() } else { shows.clone() };
        pod.oneshot(request)
    })
}

/// A listener with a router behind it.
pub(crate) struct Front {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Front {
    /// Listens on a free loopback port.
    pub(crate) async fn open(router: Router) -> Self {
        Self::open_at(router, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Listens on an address that was just given up.
    #[expect(
        clippy::disallowed_methods,
        reason = "the listener is the test's, not the app's, and is awaited in `close`"
    )]
    pub(crate) async fn open_at(router: Router, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the loopback port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (stop, stopped) = oneshot::channel();
        // A sender that is gone stops it too: a test that fails leaves nothing behind.
        let serving =
            axum::serve(listener, router).with_graceful_shutdown(async { stopped.await.unwrap_or(()) });
        Self { address, stop, served: tokio::spawn(serving.into_future()) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Stops listening, and waits for the connections; streams must have been ended before.
    pub(crate) async fn close(self) -> SocketAddr {
        self.stop.send(()).expect("it serves until it is told to stop");
        self.served.await.expect("serving does not panic").expect("serving does not fail");
        self.address
    }
}
