//! What is said at start, and what never is.

use std::{io::Write, sync::Arc, time::Duration};

use nats_servers::{Cluster, Config, Server};
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;
use via_backplane::Backplane;
use vianats::{Builder, Storage};

use crate::notes::builder;

/// What was logged while it lives, on this thread, which runs the whole test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }

    fn warnings(&self) -> Vec<String> {
        self.text().lines().filter(|line| line.contains(" WARN ")).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_server_that_acknowledges_before_it_syncs_is_warned_of() {
    let server = Server::start(Config::new()).expect("a server");
    let monitoring = format!("http://127.0.0.1:{}", server.monitor_port());
    let (log, _here) = Log::start();
    builder(&server.url()).monitoring(monitoring).connect().await.expect("connected").close().await;
    let warnings = log.warnings();
    assert!(warnings.iter().any(|line| line.contains("sync_interval: always")), "{warnings:?}");
}

#[tokio::test]
async fn a_durable_server_is_not_warned_of() {
    let server = Server::start(Config::new().sync_always()).expect("a server");
    let monitoring = format!("http://127.0.0.1:{}", server.monitor_port());
    let (log, _here) = Log::start();
    builder(&server.url()).monitoring(monitoring).connect().await.expect("connected").close().await;
    assert_eq!(log.warnings(), [""; 0]);
}

#[tokio::test]
async fn a_monitoring_address_that_does_not_answer_is_said_and_harms_nothing() {
    let server = Server::start(Config::new()).expect("a server");
    let (log, _here) = Log::start();
    let connecting = builder(&server.url()).monitoring("https://127.0.0.1:1");
    connecting.connect().await.expect("connected").close().await;
    assert!(log.warnings().iter().any(|line| line.contains("monitoring")), "{:?}", log.warnings());
}

#[tokio::test]
async fn memory_and_small_messages_are_warned_of() {
    let server = Server::start(Config::new().max_payload(256 << 10)).expect("a server");
    let (log, _here) = Log::start();
    builder(&server.url()).storage(Storage::Memory).connect().await.expect("connected").close().await;
    let warnings = log.warnings().join("\n");
    assert!(warnings.contains("`via-events` is kept in memory"), "{warnings}");
    assert!(warnings.contains("`KV_via-cells` is kept in memory"), "{warnings}");
    assert!(warnings.contains("max_payload"), "{warnings}");
}

#[tokio::test]
async fn fewer_replicas_than_the_cluster_could_hold_are_warned_of() {
    let cluster = Cluster::start(Config::new(), 3).expect("a cluster");
    let urls = cluster.urls().join(",");
    let (log, _here) = Log::start();
    builder(&urls).prefix("one").replicas(1).connect().await.expect("connected").close().await;
    assert!(log.warnings().iter().any(|line| line.contains("num_replicas")), "{:?}", log.warnings());
    let (log, _here) = Log::start();
    builder(&urls).prefix("usual").connect().await.expect("connected").close().await;
    assert_eq!(log.warnings(), [""; 0], "three replicas are the default where three servers are");
}

#[tokio::test]
async fn credentials_are_in_no_log_and_no_error() {
    let config = Config::new().extra("authorization { user: via, password: thesecret }");
    let server = Server::start(config).expect("a server");
    let (log, _here) = Log::start();
    let with_password = server.url().replace("nats://", "nats://via:thesecret@");
    let connected = builder(&with_password).connect().await.expect("connected");
    connected.ping().await.expect("reachable");
    server.kill();
    connected.ping().await.expect_err("gone");
    connected.close().await;
    let gone = Builder::new(&with_password).connect_timeout(Duration::from_millis(300)).connect().await;
    let error = gone.expect_err("gone");
    assert!(!format!("{error:?}").contains("thesecret"), "{error:?}");
    assert!(!log.text().contains("thesecret"), "{}", log.text());
}
