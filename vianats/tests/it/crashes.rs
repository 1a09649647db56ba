//! The crash matrix on a real server.

use std::sync::Arc;

use nats_servers::{Config, Server};
use via_backplane::Backplane;

use crate::{
    crash_matrix::{Size, Time, every_row_holds},
    notes::builder,
};

/// Each row has a prefix of its own, which is as good as a fresh server.
async fn on_a_server(size: Size) -> usize {
    let server = Server::start(Config::new()).expect("a server");
    let rows = std::cell::Cell::new(0);
    let fresh = async || {
        rows.set(rows.get() + 1);
        let (url, prefix) = (server.url(), format!("row-{}", rows.get()));
        async move || {
            let connected = builder(&url).prefix(&prefix).connect().await.expect("connected");
            Arc::new(connected) as Arc<dyn Backplane>
        }
    };
    every_row_holds("nats", size, Time::Real, fresh).await
}

#[tokio::test]
async fn a_pod_with_small_snapshots_may_die_at_any_write() {
    let rows = on_a_server(Size::Inline).await;
    assert!(rows >= 2 * 14, "{rows} rows");
}

#[tokio::test]
async fn a_pod_with_large_snapshots_may_die_at_any_write() {
    let rows = on_a_server(Size::Chunked).await;
    assert!(rows >= 2 * 16, "{rows} rows");
}
