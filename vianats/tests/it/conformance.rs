//! The whole suite, on one server and on a cluster of three with three replicas; nothing is skipped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nats_servers::{Config, Link, Server, shared_cluster};
use parking_lot::Mutex;
use via_backplane::{
    Backplane, Reply,
    conformance::{Clock, Harness},
};

use crate::cluster;

/// Long enough for a busy machine, short enough that a lost ack is not waited for in vain.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Servers behind proxies, which is how they can go away.
struct Nats {
    link: Link,
    prefix: String,
    pods: Mutex<Vec<Arc<dyn Backplane>>>,
    /// A server of this case's own; the cluster is shared.
    _server: Option<Server>,
}

impl Nats {
    async fn one_server() -> Self {
        let server = Server::start(Config::new()).expect("a server");
        let link = Link::to([&server]).expect("a proxy");
        Self::behind(link, "via".to_owned(), Some(server))
    }

    async fn three_servers() -> Self {
        static CASES: AtomicUsize = AtomicUsize::new(0);
        let shared = shared_cluster().expect("a cluster");
        cluster::sweep(shared.urls()).await;
        let link = Link::to_addrs(shared.addrs().expect("addresses")).expect("proxies");
        let case = CASES.fetch_add(1, Ordering::Relaxed);
        Self::behind(link, cluster::prefix(case), None)
    }

    fn behind(link: Link, prefix: String, server: Option<Server>) -> Self {
        Self { link, prefix, pods: Mutex::default(), _server: server }
    }
}

impl Harness for Nats {
    fn connect(&self) -> Reply<'_, Arc<dyn Backplane>> {
        Reply::later(async move {
            let connecting = vianats::Builder::new(self.link.urls().join(","))
                .prefix(&self.prefix)
                .request_timeout(REQUEST_TIMEOUT)
                .connect_timeout(Duration::from_secs(30))
                .connect();
            let pod: Arc<dyn Backplane> = Arc::new(connecting.await.expect("connected"));
            self.pods.lock().push(pod.clone());
            pod
        })
    }

    fn interrupt(&self) -> Reply<'_, ()> {
        self.link.interrupt();
        Reply::ready(())
    }

    fn restore(&self) -> Reply<'_, ()> {
        self.link.restore().expect("the ports are still free");
        Reply::ready(())
    }

    fn lose_next_ack(&self) -> Reply<'_, ()> {
        self.link.lose_next_ack();
        Reply::ready(())
    }
}

via_backplane::conformance! {
    adapter: nats,
    fresh: Nats::one_server,
    clock: Clock::Real,
    skip: {}
}

via_backplane::conformance! {
    adapter: nats_cluster,
    fresh: Nats::three_servers,
    clock: Clock::Real,
    skip: {}
}
