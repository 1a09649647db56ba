//! Connecting: what is created, what is refused, and with which words.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use nats_servers::{Config, Server, free_port, shared_cluster};
use serde_json::json;
use via_backplane::{
    Append, AppendError, BackendError, Backplane, CasError, CellKey, Entries, Entry, ErrorKind, Expected,
    Family, Key, Offset, PublishError, Topic, Ttl,
};
use vianats::{Builder, Storage};

use crate::cluster;
use crate::notes::{Pod, api, builder};

fn server() -> Server {
    Server::start(Config::new()).expect("a server")
}

async fn refused(builder: Builder) -> BackendError {
    match builder.connect().await {
        Ok(_) => panic!("it connected"),
        Err(error) => error,
    }
}

/// An error and its causes, as a log shows them.
fn chain(error: &BackendError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn an_unreachable_server_is_an_error_with_its_address_within_the_timeout() {
    let port = free_port();
    let began = Instant::now();
    let url = format!("nats://someone:secret@127.0.0.1:{port}");
    let error = refused(Builder::new(&url).connect_timeout(Duration::from_millis(400))).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    assert!(!format!("{error:?} {}", chain(&error)).contains("secret"), "{error:?}");
    // Well below the ten seconds it would be unless asked for.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_comes_late_is_waited_for() {
    let early = server();
    early.stop();
    let url = early.url();
    let (pod, restarted) = tokio::join!(Pod::on(&url), async { early.begin_restart() });
    restarted.expect("started again");
    let position = pod.note("there").await;
    pod.reaches(&position).await;
    pod.stop().await;
}

#[tokio::test]
async fn a_prefix_that_cannot_be_a_subject_is_refused() {
    let error = refused(Builder::new("nats://127.0.0.1:1").prefix("a.b")).await;
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("a.b"), "{error}");
}

#[tokio::test]
async fn new_streams_are_as_was_asked_for() {
    let server = server();
    let connecting =
        builder(&server.url()).storage(Storage::Memory).duplicate_window(Duration::from_secs(30));
    let backplane = connecting.replicas(1).connect().await.expect("connected");
    assert_eq!(backplane.limits().id_window, Duration::from_secs(30));
    for stream in ["via-events", "KV_via-cells"] {
        let info = api(&server.url(), &format!("STREAM.INFO.{stream}"), json!({})).await;
        assert_eq!(
            (&info["config"]["storage"], &info["config"]["num_replicas"]),
            (&json!("memory"), &json!(1))
        );
    }
    backplane.close().await;
}

#[tokio::test]
async fn a_stream_that_is_not_vias_is_refused() {
    let server = server();
    let config = json!({ "name": "via-events", "subjects": ["via.>"] });
    api(&server.url(), "STREAM.CREATE.via-events", config).await;
    let error = refused(builder(&server.url())).await;
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("via-events") && error.to_string().contains("prefix"), "{error}");
}

#[tokio::test]
async fn a_server_without_jetstream_is_said_to_have_none() {
    let server = server();
    // An account without JetStream is what a client sees of a server without it.
    let config = Config::new().extra(
        "accounts { PLAIN { users: [{ user: plain, password: plain }] }, SYS { users: [{ user: sys, password: sys }] } }\n\
         system_account: SYS",
    );
    drop(server);
    let server = Server::start(config).expect("a server");
    let connecting = Builder::new(server.url())
        .user_and_password("plain", "plain")
        .connect_timeout(Duration::from_millis(500));
    let error = refused(connecting).await;
    assert!(chain(&error).contains("JetStream"), "{}", chain(&error));
}

#[tokio::test]
async fn pods_that_start_together_share_what_the_first_one_creates() {
    let server = server();
    let url = server.url();
    let (a, b, c) = tokio::join!(Pod::on(&url), Pod::on(&url), Pod::on(&url));
    let position = a.note("hello").await;
    for pod in [&a, &b, &c] {
        pod.reaches(&position).await;
        pod.stop().await;
    }
}

#[tokio::test]
async fn pods_that_start_together_on_a_cluster_share_it_too() {
    let shared = shared_cluster().expect("a cluster");
    let [first, second, third] = shared.urls() else { panic!("three servers") };
    // A stream's name is taken before every server can say anything about it.
    for round in 0..5 {
        let prefix = cluster::prefix(format!("together{round}"));
        let on = |url| Pod::with(builder(url).prefix(&prefix));
        let (a, b, c) = tokio::join!(on(first), on(second), on(third));
        let position = a.note("hello").await;
        for pod in [&a, &b, &c] {
            pod.reaches(&position).await;
            pod.stop().await;
        }
    }
}

#[tokio::test]
async fn more_replicas_than_servers_are_refused() {
    let server = server();
    let error = refused(Builder::new(server.url()).replicas(3).connect_timeout(Duration::from_secs(1))).await;
    assert!(chain(&error).contains("replicas"), "{}", chain(&error));
}

#[tokio::test]
async fn a_supplied_client_is_left_open() {
    let server = server();
    let client = async_nats::connect(server.url()).await.expect("connected");
    let backplane =
        Builder::with_client(client.clone()).storage(Storage::Memory).connect().await.expect("connected");
    backplane.ping().await.expect("reachable");
    backplane.close().await;
    assert_eq!(backplane.ping().await.expect_err("closed").kind(), ErrorKind::Closed);
    client.flush().await.expect("the client is the user's");
    assert_eq!(client.connection_state(), async_nats::connection::State::Connected);
}

#[tokio::test]
async fn prefixes_share_nothing() {
    let server = server();
    let one = Pod::with(builder(&server.url()).prefix("one")).await;
    let two = Pod::with(builder(&server.url()).prefix("two")).await;
    let position = one.note("mine").await;
    one.reaches(&position).await;
    let position = two.note("theirs").await;
    two.reaches(&position).await;
    assert_eq!(
        (&**one.notes.loaded().await, &**two.notes.loaded().await),
        (&["mine".to_owned()][..], &["theirs".to_owned()][..])
    );
    for (pod, theme) in [(&one, "dark"), (&two, "light")] {
        let cell = pod.engine.cell::<String>("theme").expect("a valid name");
        assert_eq!(*cell.loaded().await, "", "nobody of this prefix has set it");
        cell.set(theme.to_owned()).await.expect("set");
    }
    let (a, b) = (one.engine.backplane(), two.engine.backplane());
    assert_ne!(a.store().incarnation().await.expect("known"), b.store().incarnation().await.expect("known"));
    // What one prefix drops, the other keeps.
    let key = one.notes.key();
    let last = one.note("the last").await;
    a.compactor().expect("it compacts").compact(key, last.cursor.offset).await.expect("compacted");
    assert_eq!(b.compactor().expect("it compacts").floor(key).await.expect("known"), Offset::BEGIN);
    two.reaches(&position).await;
    assert_eq!(**Pod::with(builder(&server.url()).prefix("two")).await.notes.loaded().await, ["theirs"]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let server = Server::start(Config::new().max_payload(64 << 10)).expect("a server");
    let client = async_nats::connect(server.url()).await.expect("connected");
    let pod = Builder::with_client(client.clone()).connect().await.expect("connected");
    let limits = pod.limits();
    assert!(limits.max_record < 64 << 10 && limits.max_message == 64 << 10, "{limits:?}");
    let key = Key::of(&Family::new("posts").expect("a valid name"));
    let entry = |bytes: usize| Entry { key: key.clone(), record: vec![0; bytes].into() };
    let cell = CellKey::new(["app", "theme"]).expect("a valid path");
    let topic = Topic::new("news").expect("a valid name");
    let sent = || client.statistics().out_messages.load(Ordering::Relaxed);
    let before = sent();
    let over = |limit: usize| vec![0; limit + 1].into();
    let large_record = pod.log().append(Append::new(Entries::One(entry(limits.max_record + 1)))).await;
    let among_others = Entries::Many(vec![entry(1), entry(limits.max_record + 1)]);
    let large_batch = pod.log().append(Append::new(among_others)).await;
    let many = Entries::Many(vec![entry(1); limits.max_batch + 1]);
    let long_batch = pod.log().append(Append::new(many)).await;
    let large_cell = pod.store().cas(&cell, Expected::Absent, over(limits.max_cell), Ttl::Forever).await;
    let large_message = pod.feed().expect("a feed").publish(&topic, over(limits.max_message)).await;
    assert_eq!(sent(), before, "nothing of it was sent");
    for (appended, limit) in
        [(large_record, limits.max_record), (large_batch, limits.max_record), (long_batch, limits.max_batch)]
    {
        let Err(AppendError::TooLarge(told)) = appended else { panic!("{appended:?}") };
        assert_eq!((told.size, told.limit), (limit + 1, limit));
    }
    let Err(CasError::TooLarge(told)) = large_cell else { panic!("{large_cell:?}") };
    assert_eq!((told.size, told.limit), (limits.max_cell + 1, limits.max_cell));
    let Err(PublishError::TooLarge(told)) = large_message else { panic!("{large_message:?}") };
    assert_eq!((told.size, told.limit), (limits.max_message + 1, limits.max_message));
    pod.close().await;
}
