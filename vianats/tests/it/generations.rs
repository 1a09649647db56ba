//! Logs that were replaced under live pods: deleted and created again, restored through the API, put back from a copy.

use std::{fs, path::Path};

use bytes::Bytes;
use futures_util::StreamExt as _;
use nats_servers::{Config, Server};
use serde_json::json;
use via_backplane::{
    Append, AppendFailed, AppendOptions, Backplane, CellKey, CellSelector, Entries, Entry, Family, Key,
    Selector, Waited,
};

use crate::notes::{Noted, PATIENCE, Pod, api, builder};

#[tokio::test]
async fn a_stream_deleted_and_recreated_is_folded_anew() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = Pod::on(&server.url()).await;
    for n in 0..10 {
        pod.note(n.to_string()).await;
    }
    let before = pod.note("old").await;
    pod.reaches(&before).await;
    api(&server.url(), "STREAM.DELETE.via-events", json!({})).await;
    // A pod that starts creates what is missing; the ones that live do not.
    let other = Pod::on(&server.url()).await;
    let mut after = other.note("new").await;
    for n in 0..15 {
        after = other.note(n.to_string()).await;
    }
    other.reaches(&after).await;
    pod.reaches(&after).await;
    assert_eq!(*pod.notes.loaded().await, *other.notes.loaded().await);
    assert_eq!(pod.notes.wait_for(&before, PATIENCE).await, Waited::EpochChanged);
    let position = pod.note("both again").await;
    assert_eq!(position.cursor.epoch, after.cursor.epoch);
    other.reaches(&position).await;
    pod.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_deleted_stream_is_not_recreated_by_those_who_live() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = Pod::on(&server.url()).await;
    let position = pod.note("kept").await;
    pod.reaches(&position).await;
    api(&server.url(), "STREAM.DELETE.via-events", json!({})).await;
    let failed = pod.notes.append(Noted { text: "lost?".into() }).await.expect_err("there is no log");
    assert!(format!("{failed:?}").contains("was deleted"), "{failed:?}");
    let answer = api(&server.url(), "STREAM.NAMES", json!({})).await;
    assert!(!answer.to_string().contains("via-events"), "{answer}");
    assert_eq!(**pod.notes.read().expect("loaded"), ["kept"]);
    pod.stop().await;
}

#[tokio::test]
async fn a_decision_of_the_old_log_is_refused_by_the_new_one() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = Pod::on(&server.url()).await;
    let old = pod.note("old").await;
    pod.reaches(&old).await;
    let seen = pod.notes.loaded().await;
    api(&server.url(), "STREAM.DELETE.via-events", json!({})).await;
    let other = Pod::on(&server.url()).await;
    let new = other.note("new").await;
    // The key's head stands where it stood in the old log.
    assert_eq!(new.cursor.offset, old.cursor.offset);
    let options = AppendOptions::default().expect_head(seen.key_head());
    let refused = pod.notes.append_with(Noted { text: "decided on the old".into() }, options).await;
    assert!(matches!(refused, Err(AppendFailed::Conflict { .. })), "{refused:?}");
    let decided = pod
        .notes
        .decide(|notes| Ok::<_, ()>(vec![Noted { text: format!("after {}", notes.join(",")) }]))
        .await;
    other.reaches(&decided.expect("decided").expect("an event")).await;
    assert_eq!(**other.notes.loaded().await, ["new", "after new"]);
    pod.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_stream_restored_through_the_api_is_folded_anew() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = Pod::on(&server.url()).await;
    let mut kept = pod.note("0").await;
    for n in 1..10 {
        kept = pod.note(n.to_string()).await;
    }
    let copy = StreamCopy::take(&server.url()).await;
    for n in 10..20 {
        pod.note(n.to_string()).await;
    }
    let lost = pod.note("lost").await;
    pod.reaches(&lost).await;
    api(&server.url(), "STREAM.DELETE.via-events", json!({})).await;
    copy.restore(&server.url()).await;
    let notes = pod.until(|notes| notes.len() == 10).await;
    assert_eq!(notes.last().map(String::as_str), Some("9"));
    // Offsets are used again, by other records, in another epoch.
    let after = pod.note("after").await;
    assert!(after.cursor.epoch != kept.cursor.epoch, "a restore is a new epoch");
    pod.reaches(&after).await;
    assert_eq!(pod.notes.wait_for(&lost, PATIENCE).await, Waited::EpochChanged);
    let fresh = Pod::on(&server.url()).await;
    fresh.reaches(&after).await;
    assert_eq!(*fresh.notes.loaded().await, *pod.notes.loaded().await);
    pod.stop().await;
    fresh.stop().await;
}

#[tokio::test]
async fn a_pod_that_hears_no_advisories_notices_too() {
    let config = Config::new().extra(
        "authorization { users: [\
           { user: deaf, password: deaf, permissions: { subscribe: { deny: [\"$JS.EVENT.>\"] } } },\
           { user: admin, password: admin }\
         ] }\nno_auth_user: admin",
    );
    let server = Server::start(config).expect("a server");
    let admin = server.url();
    let deaf = builder(&server.url()).user_and_password("deaf", "deaf").connect().await.expect("connected");
    let key = Key::of(&Family::new("posts").expect("a valid name"));
    let entry = || Entry { key: key.clone(), record: "x".into() };
    for _ in 0..10 {
        deaf.log().append(Append::new(Entries::One(entry()))).await.expect("appended");
    }
    let before = deaf.log().head(&Selector::Key(key.clone())).await.expect("known");
    let (posts, theme) = (Selector::Key(key.clone()), CellKey::new(["app", "theme"]).expect("a valid path"));
    // Nothing that a server keeps, so nothing that ends with the bucket.
    let mut watch = deaf.store().watch(&CellSelector::One(theme)).await.expect("watched");
    let copy = StreamCopy::take(&admin).await;
    deaf.log().append(Append::new(Entries::One(entry()))).await.expect("appended");
    api(&admin, "STREAM.DELETE.via-events", json!({})).await;
    copy.restore(&admin).await;
    // The subject is as before, and so is the sequence the server says; whose it is, the pod has to ask.
    let appended = deaf.log().append(Append::new(Entries::One(entry()))).await.expect("appended");
    assert_ne!(appended.epoch, before.epoch, "a restored log is another epoch");
    assert_eq!(deaf.log().head(&posts).await.expect("known").epoch, appended.epoch);
    api(&admin, "STREAM.DELETE.KV_via-cells", json!({})).await;
    let other = builder(&admin).connect().await.expect("connected");
    let ended = async { while let Some(Ok(_)) = watch.next().await {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("a watch of what is gone ends");
    deaf.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_store_directory_put_back_from_a_copy_is_noticed_by_its_records() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = Pod::on(&server.url()).await;
    for n in 0..10 {
        pod.note(n.to_string()).await;
    }
    let before = pod.note("kept").await;
    pod.reaches(&before).await;
    server.stop();
    let copy = server.dir().join("copy");
    copy_dir(&server.store_dir(), &copy);
    server.restart().expect("started again");
    let mut lost = pod.note("lost").await;
    for n in 0..5 {
        lost = pod.note(format!("lost too {n}")).await;
    }
    pod.reaches(&lost).await;
    server.kill();
    fs::remove_dir_all(server.store_dir()).expect("removed");
    copy_dir(&copy, &server.store_dir());
    server.restart().expect("started again");
    // Name, incarnation and time of creation are as before, and new records take the offsets of those that are gone.
    let other = Pod::on(&server.url()).await;
    let mut after = other.note("other").await;
    for n in 0..10 {
        after = other.note(format!("other {n}")).await;
    }
    assert_eq!(after.cursor.epoch, before.cursor.epoch);
    assert!(after.cursor.offset > lost.cursor.offset);
    other.reaches(&after).await;
    let notes = pod.until(|notes| notes.last().is_some_and(|note| note == "other 9")).await;
    assert_eq!(*notes, *other.notes.loaded().await);
    assert!(!notes.iter().any(|note| note.starts_with("lost")), "{notes:?}");
    pod.stop().await;
    other.stop().await;
}

/// A family's only compacted key, and whether its log says so.
async fn is_compacted(pod: &Pod) -> bool {
    let compactor = pod.engine.backplane().compactor().expect("it compacts");
    compactor.is_compacted(pod.notes.key().family()).await.expect("the log answers")
}

#[tokio::test]
async fn whether_a_family_was_compacted_is_said_by_its_log() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = Pod::on(&server.url()).await;
    let mut last = pod.note("0").await;
    for n in 1..10 {
        last = pod.note(n.to_string()).await;
    }
    pod.reaches(&last).await;
    let before = StreamCopy::take(&server.url()).await;
    let compactor = pod.engine.backplane().compactor().expect("it compacts");
    compactor.compact(pod.notes.key(), last.cursor.offset).await.expect("compacted");
    assert!(is_compacted(&pod).await);
    server.stop();
    server.restart().expect("started again");
    pod.note("after the restart").await;
    assert!(is_compacted(&pod).await, "a floor survives the servers");
    let after = StreamCopy::take(&server.url()).await;
    for (copy, expected) in [(before, false), (after, true)] {
        api(&server.url(), "STREAM.DELETE.via-events", json!({})).await;
        copy.restore(&server.url()).await;
        assert_eq!(is_compacted(&pod).await, expected, "a floor comes and goes with its log");
    }
    api(&server.url(), "STREAM.DELETE.via-events", json!({})).await;
    let other = Pod::on(&server.url()).await;
    other.note("new").await;
    assert!(!is_compacted(&other).await && !is_compacted(&pod).await, "this log was never compacted");
    pod.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn the_bucket_has_an_incarnation_of_its_own() {
    let server = Server::start(Config::new()).expect("a server");
    let backplane = builder(&server.url()).connect().await.expect("connected");
    let before = backplane.store().incarnation().await.expect("known");
    api(&server.url(), "STREAM.DELETE.KV_via-cells", json!({})).await;
    let other = builder(&server.url()).connect().await.expect("connected");
    assert_ne!(backplane.store().incarnation().await.expect("known"), before);
    assert_eq!(
        backplane.store().incarnation().await.expect("known"),
        other.store().incarnation().await.expect("known")
    );
    backplane.close().await;
    other.close().await;
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("read") {
        let entry = entry.expect("read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// What an operator's backup holds: the stream's configuration and state, and its messages as the server packs them.
struct StreamCopy {
    request: serde_json::Value,
    chunks: Vec<Bytes>,
}

impl StreamCopy {
    async fn take(url: &str) -> Self {
        let client = async_nats::connect(url).await.expect("connected");
        let inbox = client.new_inbox();
        let mut packed = client.subscribe(inbox.clone()).await.expect("listening");
        let asked = json!({ "deliver_subject": inbox, "no_consumers": true });
        let answer = api(url, "STREAM.SNAPSHOT.via-events", asked).await;
        let mut chunks = Vec::new();
        loop {
            let chunk = packed.next().await.expect("a chunk");
            if chunk.payload.is_empty() {
                break;
            }
            if let Some(reply) = chunk.reply {
                client.publish(reply, Bytes::new()).await.expect("acknowledged");
            }
            chunks.push(chunk.payload);
        }
        Self { request: json!({ "config": answer["config"], "state": answer["state"] }), chunks }
    }

    async fn restore(self, url: &str) {
        let client = async_nats::connect(url).await.expect("connected");
        let answer = api(url, "STREAM.RESTORE.via-events", self.request).await;
        let deliver = answer["deliver_subject"].as_str().expect("where to send").to_owned();
        for chunk in self.chunks {
            client.request(deliver.clone(), chunk).await.expect("taken");
        }
        let restored = client.request(deliver, Bytes::new()).await.expect("restored");
        let restored: serde_json::Value = serde_json::from_slice(&restored.payload).expect("JSON");
        assert!(restored.get("error").is_none_or(serde_json::Value::is_null), "{restored}");
    }
}
