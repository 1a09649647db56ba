//! Connecting: what is created, what is refused, and with which words.

use std::time::{Duration, Instant};

use nats_servers::{Config, Server, free_port, shared_cluster};
use serde_json::json;
use via_backplane::{
    Append, AppendError, BackendError, Backplane, Entries, Entry, ErrorKind, Family, Key, Offset, Selector,
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
    // Bounded by what was asked for, give or take a busy machine.
    assert!(began.elapsed() < Duration::from_secs(20));
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
async fn wrong_credentials_are_denied_at_once_and_never_shown() {
    let config = Config::new().extra("authorization { user: via, password: rightsecret }");
    let server = Server::start(config).expect("a server");
    let error = refused(builder(&server.url()).user_and_password("via", "wrongsecret")).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(!format!("{error:?} {}", chain(&error)).contains("secret"), "{error:?}");
    let connected = builder(&server.url()).user_and_password("via", "rightsecret").connect().await;
    connected.expect("the right ones are accepted").close().await;
}

#[tokio::test]
async fn an_address_may_carry_the_credentials() {
    let config = Config::new().extra("authorization { user: via, password: \"p@ss/word\" }");
    let server = Server::start(config).expect("a server");
    let url = server.url().replace("nats://", "nats://via:p%40ss%2Fword@");
    builder(&url).connect().await.expect("connected").close().await;
}

#[tokio::test]
async fn a_token_is_enough_where_it_is_asked_for() {
    let server = Server::start(Config::new().extra("authorization { token: thetoken }")).expect("a server");
    assert_eq!(refused(builder(&server.url())).await.kind(), ErrorKind::Denied);
    builder(&server.url()).token("thetoken").connect().await.expect("connected").close().await;
}

#[tokio::test]
async fn a_prefix_that_cannot_be_a_subject_is_refused() {
    let error = refused(Builder::new("nats://127.0.0.1:1").prefix("a.b")).await;
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("a.b"), "{error}");
}

#[tokio::test]
async fn a_credentials_file_that_is_missing_is_named() {
    let error = refused(Builder::new("nats://127.0.0.1:1").credentials_file("/nowhere/app.creds")).await;
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("/nowhere/app.creds"), "{error}");
}

#[tokio::test]
async fn streams_that_would_lose_events_are_refused_with_what_to_change() {
    let server = server();
    let wrong = [
        ("max_age", json!(3_600_000_000_000_u64), "max_age"),
        ("max_msgs_per_subject", json!(10), "max_msgs_per_subject"),
        ("retention", json!("workqueue"), "retention"),
        ("duplicate_window", json!(0), ""),
        ("deny_purge", json!(true), "deny_purge"),
        ("allow_atomic", json!(false), "allow_atomic"),
        ("no_ack", json!(true), "no_ack"),
        ("max_msg_size", json!(100), "max_msg_size"),
        ("subject_transform", json!({ "src": ">", "dest": "elsewhere.>" }), "subject_transform"),
    ];
    for (index, (setting, value, named)) in wrong.into_iter().enumerate() {
        let prefix = format!("p{index}");
        let subject = format!("{prefix}.{:032x}.>", 7);
        let mut config = json!({
            "name": format!("{prefix}-events"),
            "subjects": [subject],
            "metadata": { "via-incarnation": format!("{:032x}", 7) },
            "retention": "limits", "discard": "new", "storage": "file", "num_replicas": 1, "allow_atomic": true,
        });
        config[setting] = value;
        api(&server.url(), &format!("STREAM.CREATE.{prefix}-events"), config).await;
        let connected = builder(&server.url()).prefix(&prefix).connect().await;
        if named.is_empty() {
            // The server puts its own default there, which is as good.
            connected.expect("accepted").close().await;
            continue;
        }
        let error = connected.err().unwrap_or_else(|| panic!("{setting} was accepted"));
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error:?}");
        assert!(error.to_string().contains(named) && error.to_string().contains(&prefix), "{error}");
    }
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
async fn limits_that_drop_the_oldest_are_refused_and_limits_that_refuse_are_not() {
    let server = server();
    for (prefix, discard) in [("old", "old"), ("new", "new")] {
        let config = json!({
            "name": format!("{prefix}-events"),
            "subjects": [format!("{prefix}.{:032x}.>", 7)],
            "metadata": { "via-incarnation": format!("{:032x}", 7) },
            "retention": "limits", "discard": discard, "storage": "file", "max_bytes": 1_000_000, "allow_atomic": true,
        });
        api(&server.url(), &format!("STREAM.CREATE.{prefix}-events"), config).await;
    }
    let error = refused(builder(&server.url()).prefix("old")).await;
    assert!(error.to_string().contains("max_bytes") && error.to_string().contains("discard"), "{error}");
    builder(&server.url()).prefix("new").connect().await.expect("accepted").close().await;
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
async fn a_missing_permission_is_named_with_its_subject() {
    let config = Config::new().extra(
        "authorization { users: [\
           { user: admin, password: admin },\
           { user: reader, password: reader, permissions: { publish: { deny: [\"via.*.e.>\"] } } },\
           { user: deaf, password: deaf, permissions: { subscribe: { deny: [\"via.feed.>\"] } } }\
         ] }",
    );
    let server = Server::start(config).expect("a server");
    builder(&server.url())
        .user_and_password("admin", "admin")
        .connect()
        .await
        .expect("connected")
        .close()
        .await;

    let reader =
        builder(&server.url()).user_and_password("reader", "reader").connect().await.expect("connected");
    let key = Key::of(&Family::new("posts").expect("a valid name"));
    let entry = Entry { key: key.clone(), record: "x".into() };
    let began = Instant::now();
    match reader.log().append(Append::new(Entries::One(entry))).await {
        Err(AppendError::Backend(error)) => {
            assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
            let text = error.to_string();
            assert!(text.contains(".e.posts.=") && text.contains("publish"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() < Duration::from_secs(2), "the refusal is told, not waited for");
    let head = reader.log().head(&Selector::Key(key)).await.expect("reading is allowed");
    assert_eq!(head.offset, Offset::BEGIN);
    reader.close().await;

    let deaf = builder(&server.url()).user_and_password("deaf", "deaf").connect().await.expect("connected");
    let topic = via_backplane::Topic::new("news").expect("a valid name");
    let error = deaf.feed().expect("a feed").subscribe(&topic).await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.to_string().contains("via.feed.news"), "{error}");
    deaf.close().await;
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
    one.stop().await;
    two.stop().await;
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
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let server = Server::start(Config::new().max_payload(64 << 10)).expect("a server");
    let backplane = builder(&server.url()).connect().await.expect("connected");
    let limits = backplane.limits();
    assert!(limits.max_record < 64 << 10 && limits.max_message == 64 << 10, "{limits:?}");
    let key = Key::of(&Family::new("posts").expect("a valid name"));
    let entry = Entry { key, record: vec![0; limits.max_record + 1].into() };
    match backplane.log().append(Append::new(Entries::One(entry))).await {
        Err(AppendError::TooLarge(told)) => {
            assert_eq!((told.size, told.limit), (limits.max_record + 1, limits.max_record));
        }
        other => panic!("{other:?}"),
    }
    backplane.close().await;
}
