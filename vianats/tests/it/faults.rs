//! Clusters of which a part is silent, cut off or restarted under load.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use nats_servers::{Cluster, Config, Link, Server};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use via_backplane::Backplane as _;

use crate::notes::{Noted, PATIENCE, Pod, api, builder};

/// Appends until told to stop; answers what was acknowledged, and tells of it at once. Nothing is appended twice here.
async fn append_until(pod: &Pod, name: &str, stop: &AtomicBool, told: mpsc::Sender<()>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let text = format!("{name}:{n}");
        n += 1;
        if pod.notes.append(Noted { text: text.clone() }).await.is_ok() {
            acknowledged.push(text);
            told.send(()).ok(); // Nobody counts any more once the faults are over.
        }
    }
    acknowledged
}

/// Two pods of a cluster that append while faults happen; everything acknowledged is looked up afterwards.
async fn under_load(faults: impl FnOnce(&Cluster, &dyn Fn()) + Send + 'static) {
    let cluster = Arc::new(Cluster::start(Config::new(), 3).expect("a cluster"));
    let urls = cluster.urls().join(",");
    let (one, two) = (Pod::on(&urls).await, Pod::on(&urls).await);
    let stop = Arc::new(AtomicBool::new(false));
    let (told, hear) = mpsc::channel();
    // The faults wait for servers, and would keep the pods from running.
    let faults = {
        let (cluster, stop) = (cluster.clone(), stop.clone());
        thread::spawn(move || {
            let more_acks = || {
                while hear.try_recv().is_ok() {}
                for _ in 0..50 {
                    hear.recv_timeout(PATIENCE).expect("appends go on");
                }
            };
            let stops = StopsWhenDropped(&stop);
            faults(&cluster, &more_acks);
            drop(stops);
        })
    };
    let (mut acknowledged, more) = tokio::join!(
        append_until(&one, "one", &stop, told.clone()),
        append_until(&two, "two", &stop, told.clone())
    );
    faults.join().expect("no fault failed");
    acknowledged.extend(more);
    let last = appended(&one, "end").await;
    for pod in [&one, &two] {
        pod.reaches(&last).await;
        assert_each_once(&pod.notes.loaded().await, &acknowledged);
        pod.stop().await;
    }
}

/// Lets a test end that has failed elsewhere.
struct StopsWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopsWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every acknowledged append is there once, and no other one twice.
fn assert_each_once(notes: &[String], acknowledged: &[String]) {
    let mut times = HashMap::new();
    for note in notes {
        *times.entry(note).or_insert(0) += 1;
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?} were appended once");
    let gone: Vec<_> = acknowledged.iter().filter(|text| !times.contains_key(text)).collect();
    assert!(gone.is_empty(), "{gone:?} were acknowledged and are gone");
}

/// The server that holds the connection of this name.
async fn server_of<'a>(cluster: &'a Cluster, name: &str) -> &'a Server {
    for server in cluster.servers() {
        let mut monitor =
            tokio::net::TcpStream::connect(("127.0.0.1", server.monitor_port())).await.expect("a monitor");
        monitor.write_all(b"GET /connz HTTP/1.0\r\n\r\n").await.expect("asked");
        let mut answer = String::new();
        monitor.read_to_string(&mut answer).await.expect("an answer");
        if answer.contains(&format!("\"{name}\"")) {
            return server;
        }
    }
    panic!("no server knows {name}")
}

/// Appends again and again until one is acknowledged.
async fn appended(pod: &Pod, text: &str) -> via_backplane::Position {
    let appended = async {
        loop {
            if let Ok(position) = pod.notes.append(Noted { text: text.to_owned() }).await {
                return position;
            }
        }
    };
    tokio::time::timeout(PATIENCE, appended).await.expect("somebody takes appends")
}

#[tokio::test]
async fn a_pod_leaves_a_server_that_says_nothing_any_more() {
    let cluster = Cluster::start(Config::new(), 3).expect("a cluster");
    let urls = cluster.urls().join(",");
    let pod = Pod::with(builder(&urls).name("moving")).await;
    pod.note("before").await;
    // Its connection stays open, and nothing comes from it.
    let server = server_of(&cluster, "moving").await;
    server.pause().expect("paused");
    let position = appended(&pod, "elsewhere").await;
    pod.reaches(&position).await;
    server.resume().expect("resumed");
    pod.stop().await;
}

#[tokio::test]
async fn a_tail_whose_consumers_server_dies_goes_on_soon() {
    let cluster = Cluster::start(Config::new(), 3).expect("a cluster");
    let (urls, url) = (cluster.urls().join(","), &cluster.urls()[0]);
    let mut pods = vec![Pod::on(&urls).await];
    // Where a leader dies, an election comes first; here everything goes on at once but for the tails.
    let victim = loop {
        pods.push(Pod::on(&urls).await);
        let position = pods[0].note("before").await;
        for pod in &pods {
            pod.reaches(&position).await;
        }
        let consumers = api(url, "CONSUMER.LIST.via-events", json!({})).await;
        let consumers = consumers["consumers"].as_array().expect("consumers").clone();
        let leaders = [cluster.leader(), cluster.stream_leader("via-events")];
        let leaders = leaders.map(|leader| leader.expect("a leader").name());
        let servers = consumers.iter().filter_map(|consumer| consumer["cluster"]["leader"].as_str());
        let mut others = servers.filter(|server| !leaders.contains(server));
        if let Some(name) = others.next() {
            break cluster.servers().iter().find(|server| server.name() == name).expect("one of them");
        }
    };
    victim.kill();
    let began = Instant::now();
    let position = appended(&pods[0], "after").await;
    for pod in &pods {
        pod.reaches(&position).await;
    }
    assert!(began.elapsed() < Duration::from_secs(6), "a tail was silent for {:?}", began.elapsed());
    for pod in &pods {
        pod.stop().await;
    }
}

#[tokio::test]
async fn a_leader_that_is_stopped_for_longer_than_an_election_loses_nothing() {
    under_load(|cluster, more_acks| {
        for _ in 0..2 {
            let stopped = cluster.stream_leader("via-events").expect("a leader");
            stopped.pause().expect("paused");
            // It still takes itself for the leader when it goes on.
            cluster.next_stream_leader("via-events", stopped).expect("another leader");
            stopped.resume().expect("resumed");
            more_acks();
        }
    })
    .await;
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_nothing() {
    under_load(|cluster, more_acks| {
        for server in cluster.servers() {
            more_acks();
            server.stop();
            server.restart().expect("started again");
        }
        more_acks();
    })
    .await;
}

#[tokio::test]
async fn a_server_that_hangs_keeps_nobody_on_the_others_from_listening() {
    let cluster = Cluster::start(Config::new(), 3).expect("a cluster");
    let urls = cluster.urls();
    let on_each = [builder(&urls[0]).connect().await, builder(&urls[1]).connect().await];
    let [listener, other] = on_each.map(|connected| connected.expect("connected"));
    cluster.servers()[1].pause().expect("paused");
    let topic = via_backplane::Topic::new("news").expect("a valid name");
    let feed = listener.feed().expect("a feed");
    let mut messages = feed.subscribe(&topic).await.expect("listening");
    feed.publish(&topic, "hello".into()).await.expect("published");
    let message = tokio::time::timeout(PATIENCE, messages.next()).await.expect("in time").expect("an item");
    assert_eq!(message.expect("a message"), "hello");
    cluster.servers()[1].resume().expect("resumed");
    listener.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_pod_that_is_cut_off_catches_up_on_what_the_others_did() {
    let cluster = Cluster::start(Config::new(), 3).expect("a cluster");
    let link = Link::to(cluster.servers()).expect("proxies");
    let cut_off = Pod::on(&link.urls().join(",")).await;
    let other = Pod::on(&cluster.urls().join(",")).await;
    let position = other.note("before").await;
    cut_off.reaches(&position).await;
    for round in 0..3 {
        link.interrupt();
        let failed = cut_off.notes.append(Noted { text: "alone".into() }).await;
        failed.expect_err("there is nobody");
        let mut last = None;
        for n in 0..50 {
            last = Some(other.note(format!("{round}:{n}")).await);
        }
        assert!(cut_off.notes.loaded().await.len() < other.notes.loaded().await.len());
        link.restore().expect("the ports are still free");
        cut_off.reaches(&last.expect("some")).await;
        assert_eq!(*cut_off.notes.loaded().await, *other.notes.loaded().await);
    }
    cut_off.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn pods_that_lose_acks_append_once_what_they_repeat_by_id() {
    let server = Server::start(Config::new()).expect("a server");
    let link = Link::to([&server]).expect("a proxy");
    let pods = [
        Pod::with(builder(&link.urls()[0]).request_timeout(Duration::from_millis(300))).await,
        Pod::with(builder(&link.urls()[0]).request_timeout(Duration::from_millis(300))).await,
    ];
    let appends = async |pod: &Pod, name: &str| {
        for n in 0..40 {
            if rand::random_ratio(1, 4) {
                link.lose_next_ack();
            }
            let id = via_backplane::AppendId::new(format!("{name} {n}")).expect("a valid id");
            loop {
                let options = via_backplane::AppendOptions::default().id(id.clone());
                match pod.notes.append_with(Noted { text: format!("{name}:{n}") }, options).await {
                    Ok(_) => break,
                    Err(failed) => assert!(failed.retry() != via_backplane::Retry::Never, "{failed:?}"),
                }
            }
        }
    };
    tokio::join!(appends(&pods[0], "one"), appends(&pods[1], "two"));
    assert!(link.acks().lost() > 0);
    let last = pods[0].note("end").await;
    for pod in &pods {
        pod.reaches(&last).await;
        let notes = pod.notes.loaded().await;
        assert_eq!(notes.len(), 81, "{notes:?}");
        let of = |name: &str| notes.iter().filter(|note| note.starts_with(name)).cloned().collect::<Vec<_>>();
        for name in ["one", "two"] {
            assert_eq!(
                of(name),
                (0..40).map(|n| format!("{name}:{n}")).collect::<Vec<_>>(),
                "in order, once"
            );
        }
        pod.stop().await;
    }
}
