//! Watches over restarts, over a cluster's servers, and ten thousand at once.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::select_all};
use nats_servers::{Config, Server, shared_cluster};
use serde_json::json;
use tokio::time::timeout;
use via_backplane::{
    BackendError, Backplane, CellKey, CellSelector, Change, ErrorKind, Expected, Rev, Topic, Ttl, Watch,
};
use vianats::Nats;

use crate::{
    cluster,
    notes::{PATIENCE, api, builder},
    store::{cas, cell, connect},
};

/// A watch, read change by change.
pub(crate) struct Watching(Watch);

impl Watching {
    pub(crate) async fn on(pod: &Nats, selector: CellSelector) -> Self {
        let opened = timeout(PATIENCE, async {
            loop {
                // A server that has just come back may have no leader for the bucket yet.
                match pod.store().watch(&selector).await {
                    Err(error) if error.kind() == ErrorKind::Unavailable => tokio::task::yield_now().await,
                    opened => return opened.expect("watching"),
                }
            }
        });
        Self(opened.await.expect("in time"))
    }

    pub(crate) async fn next(&mut self) -> Change {
        let item = timeout(PATIENCE, self.0.next()).await.expect("a change is told");
        item.expect("never a silent end").expect("the watch goes on")
    }

    pub(crate) async fn present(&mut self) -> Vec<(CellKey, Rev)> {
        assert_eq!(self.next().await, Change::Begin);
        let mut present = BTreeMap::new();
        loop {
            match self.next().await {
                Change::Put { key, rev, .. } => {
                    assert!(present.insert(key, rev).is_none_or(|before| before < rev), "revisions rise");
                }
                Change::Gone { key, .. } => drop(present.remove(&key)),
                Change::End => return present.into_iter().collect(),
                Change::Begin => panic!("the present begins once"),
            }
        }
    }

    pub(crate) async fn fails(mut self) -> BackendError {
        loop {
            let item = timeout(PATIENCE, self.0.next()).await.expect("the end is told");
            if let Err(error) = item.expect("never a silent end") {
                assert!(self.0.next().await.is_none(), "an error is the last item");
                return error;
            }
        }
    }
}

fn app() -> CellSelector {
    CellSelector::Below(CellKey::new(["app"]).expect("a valid path"))
}

#[tokio::test]
async fn nothing_old_is_told_after_a_restart() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = connect(&server.url()).await;
    let keys = ["a", "b", "c"].map(cell);
    let mut latest: BTreeMap<CellKey, Rev> = BTreeMap::new();
    for round in 0..4 {
        for n in 0..30 {
            let key = &keys[n % 3];
            let expected = latest.get(key).map_or(Expected::Absent, |rev| Expected::At(*rev));
            let rev = cas(&pod, key, expected, format!("{round}:{n}")).await.expect("written");
            latest.insert(key.clone(), rev);
        }
        let expected: Vec<_> = latest.clone().into_iter().collect();
        let mut below = Watching::on(&pod, app()).await;
        assert_eq!(below.present().await, expected);
        let mut one = Watching::on(&pod, CellSelector::One(keys[0].clone())).await;
        assert_eq!(one.present().await, expected[..1]);
        server.kill();
        assert_eq!(below.fails().await.kind(), ErrorKind::Unavailable);
        assert_eq!(one.fails().await.kind(), ErrorKind::Unavailable);
        server.restart().expect("started again");
        let mut below = Watching::on(&pod, app()).await;
        assert_eq!(below.present().await, expected);
        let mut one = Watching::on(&pod, CellSelector::One(keys[0].clone())).await;
        assert_eq!(one.present().await, expected[..1]);
    }
}

#[tokio::test]
async fn every_pod_of_a_cluster_hears_of_a_change_and_of_an_expiry() {
    let shared = shared_cluster().expect("a cluster");
    let prefix = cluster::prefix("watches");
    let key = cell("login");
    let mut pods = Vec::new();
    let mut watches = Vec::new();
    for url in shared.urls() {
        let pod = builder(url).prefix(&prefix).connect().await.expect("connected");
        for selector in [CellSelector::One(key.clone()), app()] {
            let mut watch = Watching::on(&pod, selector).await;
            assert_eq!(watch.present().await, []);
            watches.push(watch);
        }
        pods.push(pod);
    }
    for (n, pod) in pods.iter().enumerate() {
        let value = Bytes::from(n.to_string());
        let written = pod.store().cas(&key, Expected::Absent, value, Ttl::For(Duration::from_secs(2)));
        let rev = written.await.expect("written");
        for watch in &mut watches {
            // The bucket itself ends it; nobody is told to look. The value may be coalesced with its end.
            let mut told = watch.next().await;
            if matches!(told, Change::Put { rev: at, .. } if at == rev) {
                told = watch.next().await;
            }
            assert!(matches!(told, Change::Gone { rev: at, .. } if at > rev), "{told:?}");
        }
    }
}

#[tokio::test]
async fn the_present_holds_what_was_acknowledged_through_another_server() {
    let shared = shared_cluster().expect("a cluster");
    let prefix = cluster::prefix("present");
    let mut pods = Vec::new();
    for url in shared.urls() {
        pods.push(builder(url).prefix(&prefix).connect().await.expect("connected"));
    }
    let mut expected = Vec::new();
    for round in 0..60 {
        let key = cell(&format!("{round:03}"));
        let rev = cas(&pods[round % 3], &key, Expected::Absent, "x").await.expect("written");
        expected.push((key.clone(), rev));
        let other = &pods[(round + 1) % 3];
        assert_eq!(Watching::on(other, app()).await.present().await, expected, "round {round}");
        assert_eq!(Watching::on(other, CellSelector::One(key.clone())).await.present().await, [(key, rev)]);
    }
}

#[tokio::test]
async fn ten_thousand_watches_of_one_cell_cost_little() {
    const WATCHES: usize = 10_000;
    let server = Server::start(Config::new()).expect("a server");
    let pod = connect(&server.url()).await;
    let before = resident();
    let mut watches = Vec::new();
    for n in 0..WATCHES {
        let opened = pod.store().watch(&CellSelector::One(cell(&n.to_string()))).await;
        watches.push(opened.expect("watching"));
    }
    let mut watches = select_all(watches);
    let (mut begun, mut ended) = (0, 0);
    while ended < WATCHES {
        match timeout(PATIENCE, watches.next()).await.expect("told").expect("goes on").expect("goes on") {
            Change::Begin => begun += 1,
            Change::End => ended += 1,
            other => panic!("nothing is there: {other:?}"),
        }
    }
    assert_eq!(begun, WATCHES);
    let each = (resident() - before) / WATCHES;
    assert!(each < 12 << 10, "a watch takes {each} bytes");
    let key = cell("7777");
    let rev = cas(&pod, &key, Expected::Absent, "x").await.expect("written");
    let told = timeout(PATIENCE, watches.next()).await.expect("told").expect("goes on").expect("goes on");
    assert_eq!(told, Change::Put { key, rev, bytes: Some("x".into()) });
}

/// What this process takes of the machine's memory, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib = line.split_whitespace().nth(1).expect("a number");
    kib.parse::<usize>().expect("a number") << 10
}

#[tokio::test]
async fn what_others_put_below_a_watched_path_is_skipped() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = connect(&server.url()).await;
    let info = api(&server.url(), "STREAM.INFO.KV_via-cells", json!({})).await;
    let root = info["config"]["subjects"][0].as_str().expect("a subject").trim_end_matches('>').to_owned();
    let client = async_nats::connect(server.url()).await.expect("connected");
    let mut live = Watching::on(&pod, app()).await;
    assert_eq!(live.present().await, []);
    for foreign in ["app.=zz", "app.=61", "app.a.=2f"] {
        client.request(format!("{root}{foreign}"), "x".into()).await.expect("stored");
    }
    let rev = cas(&pod, &cell("theme"), Expected::Absent, "dark").await.expect("written");
    assert!(matches!(live.next().await, Change::Put { rev: at, .. } if at == rev));
    assert_eq!(Watching::on(&pod, app()).await.present().await, [(cell("theme"), rev)]);
}

#[tokio::test]
async fn a_watch_that_may_not_listen_says_what_is_missing() {
    let config = Config::new().extra(
        "authorization { users: [ { user: deaf, password: deaf, permissions: { subscribe: { deny: [\"via.*.c.>\"] } } } ] }",
    );
    let server = Server::start(config).expect("a server");
    let pod = builder(&server.url()).user_and_password("deaf", "deaf").connect().await.expect("connected");
    let refused = pod.store().watch(&CellSelector::One(cell("theme"))).await.err().expect("refused");
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("subscribe") && text.contains(".c.app.theme"), "{text}");
}

#[tokio::test]
async fn a_bucket_that_is_replaced_ends_the_watches_of_quiet_pods_at_once() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = connect(&server.url()).await;
    let key = cell("theme");
    let rev = cas(&pod, &key, Expected::Absent, "old").await.expect("written");
    let mut watches =
        [Watching::on(&pod, CellSelector::One(key.clone())).await, Watching::on(&pod, app()).await];
    for watch in &mut watches {
        assert_eq!(watch.present().await, [(key.clone(), rev)]);
    }
    let began = Instant::now();
    api(&server.url(), "STREAM.DELETE.KV_via-cells", json!({})).await;
    let other = connect(&server.url()).await;
    let new = cas(&other, &key, Expected::Absent, "new").await.expect("written");
    for watch in watches {
        assert_eq!(watch.fails().await.kind(), ErrorKind::Unavailable);
    }
    // The server tells of it; a pod looks by itself after five seconds.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(Watching::on(&pod, app()).await.present().await, [(key, new)]);
}

#[tokio::test]
async fn the_permissions_that_are_shipped_are_enough() {
    // As in deploy/nats/nats.conf.
    let config = Config::new().extra(
        "authorization { users: [ { user: via, password: via, permissions: {\
           publish: { allow: [\"via.>\", \"$KV.via-cells.>\", \"$JS.API.>\", \"$JS.FC.>\", \"$JS.ACK.>\"] },\
           subscribe: { allow: [\"_INBOX.>\", \"via.>\", \"$JS.EVENT.ADVISORY.STREAM.*.via-events\", \
             \"$JS.EVENT.ADVISORY.STREAM.*.KV_via-cells\"] }\
         } } ] }",
    );
    let server = Server::start(config).expect("a server");
    let pod = builder(&server.url()).user_and_password("via", "via").connect().await.expect("connected");
    let key = cell("theme");
    let mut one = Watching::on(&pod, CellSelector::One(key.clone())).await;
    let mut below = Watching::on(&pod, app()).await;
    assert_eq!((one.present().await, below.present().await), (vec![], vec![]));
    let rev = cas(&pod, &key, Expected::Absent, "dark").await.expect("written");
    for watch in [&mut one, &mut below] {
        assert!(matches!(watch.next().await, Change::Put { rev: at, .. } if at == rev));
    }
    let feed = pod.feed().expect("a feed");
    let news = Topic::new("news").expect("a valid name");
    let mut messages = feed.subscribe(&news).await.expect("listening");
    feed.publish(&news, "hello".into()).await.expect("published");
    let heard = timeout(PATIENCE, messages.next()).await.expect("in time").expect("goes on");
    assert_eq!(heard.expect("a message"), "hello");
}

#[tokio::test]
async fn a_cell_purged_by_hand_ends_its_watch() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = connect(&server.url()).await;
    let key = cell("theme");
    let rev = cas(&pod, &key, Expected::Absent, "x").await.expect("written");
    let mut watch = Watching::on(&pod, CellSelector::One(key.clone())).await;
    assert_eq!(watch.present().await, [(key.clone(), rev)]);
    // Nobody tells of it, so it is found when the watch looks, shortly after it began.
    api(&server.url(), "STREAM.PURGE.KV_via-cells", json!({})).await;
    assert_eq!(watch.fails().await.kind(), ErrorKind::Unavailable);
    assert_eq!(Watching::on(&pod, CellSelector::One(key)).await.present().await, []);
}
