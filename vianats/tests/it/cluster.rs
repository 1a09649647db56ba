//! Prefixes on a cluster that many test processes share.

use bytes::Bytes;

/// A prefix no other case has: cases run in processes of their own, and many in one where there is no nextest.
pub(crate) fn prefix(case: impl std::fmt::Display) -> String {
    format!("t{}-{case}", std::process::id())
}

/// Deletes the streams of test processes that have ended: replicas that nobody uses still take the servers' time.
pub(crate) async fn sweep(urls: &[String]) {
    let client = async_nats::connect(urls).await.expect("the cluster takes connections");
    let names = client.request("$JS.API.STREAM.NAMES", Bytes::new()).await.expect("the cluster answers");
    let names: serde_json::Value = serde_json::from_slice(&names.payload).expect("JSON");
    let names = names["streams"].as_array().cloned().unwrap_or_default();
    for name in names.iter().filter_map(|name| name.as_str()) {
        let owner = name.trim_start_matches("KV_").strip_prefix('t').and_then(|rest| rest.split('-').next());
        let is_over = owner
            .and_then(|owner| owner.parse::<u32>().ok())
            .is_some_and(|owner| !std::path::Path::new(&format!("/proc/{owner}")).exists());
        if is_over {
            // Another test may have been faster.
            client.request(format!("$JS.API.STREAM.DELETE.{name}"), Bytes::new()).await.ok();
        }
    }
}
