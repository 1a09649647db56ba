//! Streams that are there and would lose what was acknowledged: each setting is refused, and named.

use nats_servers::{Config, Server};
use serde_json::{Value, json};
use via_backplane::{Backplane, ErrorKind};

use crate::notes::{api, builder};

const HOUR: u64 = 3_600_000_000_000;

/// An event stream as an operator may have made it, with these settings besides the right ones.
async fn make(url: &str, prefix: &str, settings: Value) {
    let mut config = json!({
        "name": format!("{prefix}-events"),
        "subjects": [format!("{prefix}.{:032x}.>", 7)],
        "metadata": { "via-incarnation": format!("{:032x}", 7) },
        "retention": "limits", "discard": "new", "storage": "file", "num_replicas": 1, "allow_atomic": true,
    });
    set(&mut config, settings);
    api(url, &format!("STREAM.CREATE.{prefix}-events"), config).await;
}

fn set(config: &mut Value, settings: Value) {
    for (setting, value) in settings.as_object().expect("settings").clone() {
        config[setting] = value;
    }
}

async fn assert_refused(url: &str, prefix: &str, names: &[&str]) {
    let error = match builder(url).prefix(prefix).connect().await {
        Ok(_) => panic!("{names:?} was accepted"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error:?}");
    let text = error.to_string();
    for name in names.iter().chain([&prefix]) {
        assert!(text.contains(name), "`{name}` is not in: {text}");
    }
}

#[tokio::test]
async fn streams_that_would_lose_events_are_refused_with_what_to_change() {
    let server = Server::start(Config::new()).expect("a server");
    let url = server.url();
    api(&url, "STREAM.CREATE.other", json!({ "name": "other", "subjects": ["other.>"] })).await;
    let wrong: [(Value, &[&str]); 15] = [
        (json!({ "max_age": HOUR }), &["max_age", "0"]),
        (json!({ "max_msgs": 10, "discard": "old" }), &["max_msgs", "discard", "new"]),
        (json!({ "max_bytes": 1_000_000, "discard": "old" }), &["max_bytes", "discard", "new"]),
        (json!({ "max_msgs_per_subject": 10 }), &["max_msgs_per_subject", "-1"]),
        (json!({ "retention": "workqueue" }), &["workqueue", "retention", "limits"]),
        (json!({ "retention": "interest" }), &["interest", "retention", "limits"]),
        (json!({ "deny_purge": true }), &["deny_purge", "false"]),
        (json!({ "allow_atomic": false }), &["allow_atomic"]),
        (json!({ "no_ack": true }), &["no_ack", "false"]),
        (json!({ "max_msg_size": 100 }), &["max_msg_size", "-1"]),
        (json!({ "subjects": ["p10.*.e.>"] }), &["p10.*.e.>", "subjects"]),
        (json!({ "subject_transform": { "src": ">", "dest": "elsewhere.>" } }), &["subject_transform"]),
        (json!({ "sources": [{ "name": "other" }] }), &["sources", "remove"]),
        (
            json!({ "mirror": { "name": "other" }, "subjects": null, "allow_atomic": false }),
            &["mirror", "remove"],
        ),
        // All of it at once, so that nobody has to come back for the next one.
        (
            json!({ "max_age": HOUR, "no_ack": true, "max_msgs": 10, "discard": "old" }),
            &["max_age", "no_ack", "max_msgs"],
        ),
    ];
    for (index, (settings, names)) in wrong.into_iter().enumerate() {
        let prefix = format!("p{index}");
        make(&url, &prefix, settings).await;
        assert_refused(&url, &prefix, names).await;
    }
}

#[tokio::test]
async fn a_sealed_stream_is_refused() {
    let server = Server::start(Config::new()).expect("a server");
    builder(&server.url()).connect().await.expect("connected").close().await;
    let mut config = api(&server.url(), "STREAM.INFO.via-events", json!({})).await["config"].clone();
    config["sealed"] = json!(true);
    api(&server.url(), "STREAM.UPDATE.via-events", config).await;
    assert_refused(&server.url(), "via", &["sealed"]).await;
}

#[tokio::test]
async fn streams_that_lose_nothing_are_taken_as_they_are() {
    let server = Server::start(Config::new()).expect("a server");
    let right = [
        // What refuses new messages loses none.
        json!({ "max_bytes": 1_000_000 }),
        json!({ "max_msgs": 10 }),
        // Nothing to drop the oldest for.
        json!({ "discard": "old" }),
        // The server puts its own default there, which is as good.
        json!({ "duplicate_window": 0 }),
        json!({ "compression": "s2", "description": "ours" }),
    ];
    for (index, settings) in right.into_iter().enumerate() {
        let prefix = format!("p{index}");
        make(&server.url(), &prefix, settings.clone()).await;
        let connected = builder(&server.url()).prefix(&prefix).connect().await;
        connected.unwrap_or_else(|error| panic!("{settings}: {error}")).close().await;
    }
}

#[tokio::test]
async fn buckets_that_would_break_a_promise_are_refused_with_what_to_change() {
    let server = Server::start(Config::new()).expect("a server");
    let url = server.url();
    builder(&url).connect().await.expect("connected").close().await;
    let right = api(&url, "STREAM.INFO.KV_via-cells", json!({})).await["config"].clone();
    let wrong: [(Value, &[&str]); 10] = [
        (json!({ "republish": null }), &["republish"]),
        (json!({ "republish": { "src": ">", "dest": "elsewhere.>" } }), &["republish"]),
        (json!({ "max_age": HOUR }), &["max_age", "0"]),
        (json!({ "max_msgs_per_subject": 2 }), &["max_msgs_per_subject", "1"]),
        (json!({ "discard_new_per_subject": true }), &["discard_new_per_subject", "false"]),
        (
            json!({ "allow_msg_ttl": false, "subject_delete_marker_ttl": 0 }),
            &["allow_msg_ttl", "subject_delete_marker_ttl"],
        ),
        (json!({ "subject_delete_marker_ttl": 0 }), &["subject_delete_marker_ttl"]),
        (json!({ "max_bytes": 1_000_000, "discard": "old" }), &["max_bytes", "discard"]),
        (
            json!({ "retention": "workqueue", "allow_msg_ttl": false, "subject_delete_marker_ttl": 0 }),
            &["retention"],
        ),
        (json!({ "no_ack": true }), &["no_ack"]),
    ];
    for (settings, names) in wrong {
        let mut config = right.clone();
        set(&mut config, settings);
        // Not everything may be changed, so the bucket is made anew.
        api(&url, "STREAM.DELETE.KV_via-cells", json!({})).await;
        api(&url, "STREAM.CREATE.KV_via-cells", config).await;
        assert_refused(&url, "via", names).await;
    }
    api(&url, "STREAM.DELETE.KV_via-cells", json!({})).await;
    api(&url, "STREAM.CREATE.KV_via-cells", right).await;
    builder(&url).connect().await.expect("accepted").close().await;
}
