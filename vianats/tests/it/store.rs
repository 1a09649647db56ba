//! Cells beyond the contract's own cases: lost acks, deaths of leaders, buckets that were replaced.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use nats_servers::{Cluster, Config, Proxy, Server};
use serde_json::json;
use tokio::{task::JoinSet, time::timeout};
use via_backplane::{Backplane, CasError, CellKey, CellSelector, ErrorKind, Expected, Rev, Ttl};
use vianats::Nats;

use crate::{
    notes::{PATIENCE, api, builder},
    watches::Watching,
};

pub(crate) fn cell(name: &str) -> CellKey {
    CellKey::new(["app", name]).expect("a valid path")
}

pub(crate) async fn connect(url: &str) -> Nats {
    builder(url).connect().await.expect("connected")
}

pub(crate) async fn cas(
    pod: &Nats,
    key: &CellKey,
    expected: Expected,
    value: impl Into<Bytes>,
) -> Result<Rev, CasError> {
    pod.store().cas(key, expected, value.into(), Ttl::Forever).await
}

/// What the bucket's stream is configured with.
async fn bucket(url: &str) -> serde_json::Value {
    api(url, "STREAM.INFO.KV_via-cells", json!({})).await["config"].clone()
}

fn is_conflict<T>(outcome: &Result<T, CasError>) -> bool {
    matches!(outcome, Err(CasError::Conflict { .. }))
}

#[tokio::test]
async fn a_write_whose_ack_was_lost_took_place_once() {
    let server = Server::start(Config::new()).expect("a server");
    let proxy = Proxy::start(server.addr()).expect("a proxy");
    let pod = builder(&proxy.url()).request_timeout(Duration::from_millis(300)).connect().await;
    let pod = pod.expect("connected");
    let key = cell("theme");
    let mut expected = Expected::Absent;
    for round in 0..5 {
        proxy.lose_next_ack();
        let unknown = cas(&pod, &key, expected, round.to_string()).await;
        assert!(matches!(unknown, Err(CasError::MaybeCommitted(_))), "{unknown:?}");
        let again = cas(&pod, &key, expected, "twice").await;
        assert!(is_conflict(&again), "{again:?}");
        let held = pod.store().load(&key).await.expect("loaded").expect("written");
        assert_eq!(held.bytes, round.to_string());
        proxy.lose_next_ack();
        let unknown = pod.store().delete(&key, held.rev).await;
        assert!(matches!(unknown, Err(CasError::MaybeCommitted(_))), "{unknown:?}");
        assert_eq!(pod.store().load(&key).await.expect("loaded"), None);
        let rev = cas(&pod, &key, Expected::Absent, "between").await.expect("written over the removal");
        assert!(rev > held.rev);
        expected = Expected::At(rev);
    }
}

#[tokio::test]
async fn no_acknowledged_increment_is_lost_when_the_leader_dies() {
    let cluster = Cluster::start(Config::new(), 3).expect("a cluster");
    let key = cell("count");
    let stop = Arc::new(AtomicBool::new(false));
    let (acknowledged, unknown) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut writers = JoinSet::new();
    let urls = cluster.urls().join(",");
    let observer = connect(&urls).await;
    let first = cas(&observer, &key, Expected::Absent, "0").await.expect("written");
    for _ in 0..4 {
        let pod = connect(&urls).await;
        let (key, stop) = (key.clone(), stop.clone());
        let (acknowledged, unknown) = (acknowledged.clone(), unknown.clone());
        writers.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let Ok(held) = pod.store().load(&key).await else { continue };
                let held = held.expect("never deleted");
                let next =
                    std::str::from_utf8(&held.bytes).expect("text").parse::<u64>().expect("a number") + 1;
                match cas(&pod, &key, Expected::At(held.rev), next.to_string()).await {
                    Ok(_) => acknowledged.fetch_add(1, Ordering::SeqCst),
                    Err(CasError::MaybeCommitted(_)) => unknown.fetch_add(1, Ordering::SeqCst),
                    Err(CasError::Conflict { .. } | CasError::Backend(_)) => continue,
                    Err(other) => panic!("{other:?}"),
                };
            }
        });
    }
    grows(&acknowledged).await;
    let leader = cluster.stream_leader("KV_via-cells").expect("a leader");
    leader.kill();
    grows(&acknowledged).await;
    leader.restart().expect("started again");
    grows(&acknowledged).await;
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = writers.join_next().await {
        ended.expect("no writer failed");
    }
    let held = timeout(PATIENCE, async {
        loop {
            if let Ok(held) = observer.store().load(&key).await {
                return held.expect("never deleted");
            }
        }
    });
    let held = held.await.expect("the cluster answers");
    let count: u64 = std::str::from_utf8(&held.bytes).expect("text").parse().expect("a number");
    let (acknowledged, unknown) = (acknowledged.load(Ordering::SeqCst), unknown.load(Ordering::SeqCst));
    assert!(
        (acknowledged..=acknowledged + unknown).contains(&count),
        "{count}, where {acknowledged} were acknowledged and {unknown} may have been"
    );
    assert!(held.rev > first);
}

/// Waits until a hundred more have been acknowledged.
async fn grows(count: &AtomicU64) {
    let before = count.load(Ordering::SeqCst);
    let grown = async {
        while count.load(Ordering::SeqCst) < before + 100 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, grown).await.expect("writes go on");
}

#[tokio::test]
async fn a_revision_of_a_bucket_that_was_replaced_is_never_accepted() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = connect(&server.url()).await;
    let (key, other_key) = (cell("theme"), cell("other"));
    let old = cas(&pod, &key, Expected::Absent, "old").await.expect("written");
    let incarnation = pod.store().incarnation().await.expect("known");
    let mut one = Watching::on(&pod, CellSelector::One(key.clone())).await;
    let mut below =
        Watching::on(&pod, CellSelector::Below(CellKey::new(["app"]).expect("a valid path"))).await;
    assert_eq!(one.present().await, [(key.clone(), old)]);
    assert_eq!(below.present().await, [(key.clone(), old)]);
    api(&server.url(), "STREAM.DELETE.KV_via-cells", json!({})).await;
    let gone = cas(&pod, &other_key, Expected::Absent, "x").await;
    let Err(CasError::Backend(error)) = gone else { panic!("there is no bucket: {gone:?}") };
    assert!(error.to_string().contains("was deleted"), "{error}");
    let other = connect(&server.url()).await;
    // The first write of the new bucket, as the old one's was.
    let new = cas(&other, &key, Expected::Absent, "new").await.expect("written");
    assert!(new > old, "revisions go on where they never were: {old:?}, {new:?}");
    for outcome in [
        cas(&pod, &key, Expected::At(old), "stale").await.map(drop),
        pod.store().delete(&key, old).await,
        cas(&other, &key, Expected::At(old), "stale").await.map(drop),
    ] {
        assert!(is_conflict(&outcome), "{outcome:?}");
    }
    assert_eq!(one.fails().await.kind(), ErrorKind::Unavailable);
    assert_eq!(below.fails().await.kind(), ErrorKind::Unavailable);
    let present = pod.store().incarnation().await.expect("known");
    assert_ne!(present, incarnation);
    assert_eq!(other.store().incarnation().await.expect("known"), present);
    assert!(is_conflict(&cas(&pod, &key, Expected::At(old), "stale").await));
    cas(&pod, &key, Expected::At(new), "newer").await.expect("the present revision is accepted");
    cas(&pod, &other_key, Expected::Absent, "x").await.expect("written to the new one");
}

#[tokio::test]
async fn a_write_that_expects_nothing_finds_its_way_to_a_new_bucket() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = connect(&server.url()).await;
    api(&server.url(), "STREAM.DELETE.KV_via-cells", json!({})).await;
    let other = connect(&server.url()).await;
    // This pod still knows the old one.
    let rev = cas(&pod, &cell("theme"), Expected::Absent, "dark").await.expect("written");
    assert_eq!(other.store().load(&cell("theme")).await.expect("loaded").map(|held| held.rev), Some(rev));
}

#[tokio::test]
async fn a_deleted_cell_leaves_one_marker_that_ends() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = connect(&server.url()).await;
    let key = cell("theme");
    let rev = cas(&pod, &key, Expected::Absent, "x").await.expect("written");
    pod.store().delete(&key, rev).await.expect("deleted");
    let subjects = bucket(&server.url()).await["subjects"][0].as_str().expect("a subject").to_owned();
    let asked = json!({ "last_by_subj": subjects });
    let marker = api(&server.url(), "STREAM.MSG.GET.KV_via-cells", asked).await;
    let headers = BASE64.decode(marker["message"]["hdrs"].as_str().expect("headers")).expect("base64");
    let headers = String::from_utf8(headers).expect("text");
    // As clients that are not via's say it, and so that the server leaves no other marker when this one ends.
    assert!(headers.contains("KV-Operation: PURGE") && headers.contains("Nats-TTL: 900"), "{headers}");
}

#[tokio::test]
async fn other_clients_values_and_removals_are_read() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = connect(&server.url()).await;
    let key = cell("theme");
    let rev = cas(&pod, &key, Expected::Absent, "ours").await.expect("written");
    let subjects = bucket(&server.url()).await["subjects"][0].as_str().expect("a subject").to_owned();
    let subject = subjects.replace('>', "app.theme");
    let client = async_nats::connect(server.url()).await.expect("connected");
    client.request(subject.clone(), "theirs".into()).await.expect("stored");
    let held = pod.store().load(&key).await.expect("loaded").expect("there");
    assert_eq!(held.bytes, "theirs");
    assert!(is_conflict(&cas(&pod, &key, Expected::At(rev), "stale").await));
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    client.request_with_headers(subject, headers, Bytes::new()).await.expect("stored");
    assert_eq!(pod.store().load(&key).await.expect("loaded"), None);
    cas(&pod, &key, Expected::Absent, "ours again").await.expect("written over their removal");
}
