//! What is said at start, and what never is.

use nats_servers::{Cluster, Config, Server};
use serde_json::json;
use via_backplane::Backplane;
use vianats::Storage;

use crate::{
    notes::{api, builder},
    told::Log,
};

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
    // What is there is not changed: that is the operator's to decide.
    let (log, _here) = Log::start();
    builder(&urls).prefix("one").replicas(3).connect().await.expect("connected").close().await;
    let warnings = log.warnings().join("\n");
    assert!(warnings.contains("exists with 1 replicas, not with the 3 asked for"), "{warnings}");
    let (log, _here) = Log::start();
    builder(&urls).prefix("usual").connect().await.expect("connected").close().await;
    assert_eq!(log.warnings(), [""; 0], "three replicas are the default where three servers are");
}

#[tokio::test]
async fn a_stream_that_acknowledges_before_it_writes_is_warned_of() {
    let server = Server::start(Config::new()).expect("a server");
    builder(&server.url()).connect().await.expect("connected").close().await;
    let mut bucket = api(&server.url(), "STREAM.INFO.KV_via-cells", json!({})).await["config"].clone();
    bucket["persist_mode"] = json!("async");
    // It cannot be changed, so the bucket is made anew.
    api(&server.url(), "STREAM.DELETE.KV_via-cells", json!({})).await;
    api(&server.url(), "STREAM.CREATE.KV_via-cells", bucket).await;
    let (log, _here) = Log::start();
    builder(&server.url()).connect().await.expect("connected").close().await;
    let warnings = log.warnings().join("\n");
    assert!(warnings.contains("`KV_via-cells`") && warnings.contains("persist_mode"), "{warnings}");
}
