//! What others put into the stream.

use nats_servers::{Config, Server};
use serde_json::json;
use via_backplane::Status;

use crate::{
    notes::{PATIENCE, Pod, api},
    told::{Log, Meter},
};

async fn root(url: &str) -> String {
    let info = api(url, "STREAM.INFO.via-events", json!({})).await;
    let incarnation = info["config"]["metadata"]["via-incarnation"].as_str().expect("an incarnation");
    format!("via.{incarnation}")
}

#[tokio::test]
async fn garbage_is_skipped_counted_and_logged_and_never_a_crash() {
    let (log, _here) = Log::start();
    let (meter, _here_too) = Meter::start();
    let server = Server::start(Config::new()).expect("a server");
    let pod = Pod::on(&server.url()).await;
    pod.note("before").await;
    let client = async_nats::connect(server.url()).await.expect("connected");
    let root = root(&server.url()).await;
    let publish = async |subject: String, payload: &'static [u8]| {
        let ack = client.request(subject, payload.into()).await.expect("an ack");
        let ack: serde_json::Value = serde_json::from_slice(&ack.payload).expect("JSON");
        ack["seq"].as_u64().unwrap_or_else(|| panic!("it was stored: {ack}"))
    };
    let mut skipped = Vec::new();
    // Bytes that are no envelope, under a key of this family: skipped by the engine, and pinned.
    skipped.push(publish(format!("{root}.e.notes.="), b"\xff\x00 no envelope").await);
    skipped.push(publish(format!("{root}.e.notes.="), b"").await);
    // Names that no key becomes, within the family's wildcard: skipped by the adapter.
    skipped.push(publish(format!("{root}.e.notes.=zz"), b"x").await);
    skipped.push(publish(format!("{root}.e.notes.=61"), b"x").await);
    // Elsewhere in the stream: nobody's.
    publish(format!("{root}.x"), b"x").await;
    publish(format!("{root}.e.notes"), b"x").await;
    publish(format!("{root}.e.notes.a.b"), b"x").await;
    let after = pod.note("after").await;
    pod.reaches(&after).await;
    assert_eq!(**pod.notes.loaded().await, ["before", "after"]);
    assert_eq!(pod.notes.undecodable().len(), 2, "what may be an event is listed with its offset");
    assert_eq!(pod.notes.status(), Status::Live);
    assert_eq!(meter.value("via_events_undecodable_total{family=\"notes\"}"), Some(2.0));
    assert_eq!(meter.value("via_backplane_foreign_total{of=\"events\"}"), Some(2.0));
    let text = log.text();
    for offset in skipped {
        let is_told = |line: &str| line.contains("ERROR") && line.contains(&format!("offset={offset}"));
        assert!(text.lines().any(is_told), "nothing was said of {offset}");
    }
    // A pod that starts now meets all of it at once.
    let fresh = Pod::on(&server.url()).await;
    fresh.reaches(&after).await;
    assert_eq!(**fresh.notes.loaded().await, ["before", "after"]);
    let family = pod.notes.key().family();
    let page = via_backplane::Page { after: None, limit: 9 };
    let instances =
        tokio::time::timeout(PATIENCE, pod.engine.backplane().log().instances(family, page)).await;
    assert_eq!(instances.expect("in time").expect("listed"), [pod.notes.key().clone()]);
    // Among the floors, what is not understood counts as one: better to look once more than to miss a record.
    let compactor = pod.engine.backplane().compactor().expect("it compacts");
    assert!(!compactor.is_compacted(family).await.expect("the log answers"));
    publish(format!("{root}.f.notes.=zz"), b"no floor").await;
    assert!(compactor.is_compacted(family).await.expect("the log answers"));
    pod.stop().await;
    fresh.stop().await;
}
