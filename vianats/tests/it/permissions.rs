//! What a user may not do is said, with the subject and the permission.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use nats_servers::{Config, Server};
use via_backplane::{
    Append, AppendError, BackendError, Backplane, CasError, CellKey, CellSelector, Change, Entries, Entry,
    ErrorKind, Expected, Family, Key, Offset, ReadRange, Resume, Selector, Topic, Ttl,
};
use vianats::Nats;

use crate::notes::builder;

/// A server whose users may do everything but what is denied them: `publish: { deny: "a" }`.
fn server(users: &[(&str, &str)]) -> Server {
    let users = [("admin", "")]
        .iter()
        .chain(users)
        .map(|(name, denied)| format!("{{ user: {name}, password: {name}, permissions: {{ {denied} }} }}"));
    let users = users.collect::<Vec<_>>().join(", ");
    Server::start(Config::new().extra(format!("authorization {{ users: [ {users} ] }}"))).expect("a server")
}

async fn connect(server: &Server, user: &str) -> Result<Nats, BackendError> {
    builder(&server.url()).user_and_password(user, user).connect().await
}

async fn connected(server: &Server, user: &str) -> Nats {
    connect(server, user).await.unwrap_or_else(|error| panic!("{user}: {error:?}"))
}

/// Both streams are there, whoever comes next.
async fn prepared(server: &Server) {
    connected(server, "admin").await.close().await;
}

fn posts() -> Key {
    Key::of(&Family::new("posts").expect("a valid name"))
}

fn entry() -> Entries {
    Entries::One(Entry { key: posts(), record: "x".into() })
}

fn assert_denied(error: &BackendError, names: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    let text = error.to_string();
    for name in names {
        assert!(text.contains(name), "`{name}` is not in: {text}");
    }
}

#[tokio::test]
async fn a_missing_permission_is_named_with_its_subject() {
    let server = server(&[
        ("reader", "publish: { deny: [\"via.*.e.>\", \"$KV.>\"] }"),
        ("deaf", "subscribe: { deny: [\"via.feed.>\"] }"),
    ]);
    prepared(&server).await;
    let began = Instant::now();
    let reader = connected(&server, "reader").await;
    let Err(AppendError::Backend(error)) = reader.log().append(Append::new(entry())).await else {
        panic!("it may not append")
    };
    assert_denied(&error, &[".e.posts.=", "publish"]);
    let theme = CellKey::new(["app", "theme"]).expect("a valid path");
    let Err(CasError::Backend(error)) =
        reader.store().cas(&theme, Expected::Absent, "dark".into(), Ttl::Forever).await
    else {
        panic!("it may not write")
    };
    assert_denied(&error, &["$KV.via-cells.", ".app.theme", "publish"]);
    assert!(began.elapsed() < Duration::from_secs(2), "a refusal is told, not waited for");
    let head = reader.log().head(&Selector::Key(posts())).await.expect("reading is allowed");
    assert_eq!(head.offset, Offset::BEGIN);
    reader.close().await;

    let deaf = connected(&server, "deaf").await;
    let topic = Topic::new("news").expect("a valid name");
    let error = deaf.feed().expect("a feed").subscribe(&topic).await.err().expect("refused");
    assert_denied(&error, &["via.feed.news", "subscribe"]);
    deaf.close().await;
}

#[tokio::test]
async fn a_permission_that_is_missing_at_start_is_named_at_once() {
    let server = server(&[
        ("mute", "publish: { deny: [\"$JS.API.>\"] }"),
        ("deaf", "subscribe: { deny: [\"_INBOX.>\"] }"),
        ("guest", "publish: { deny: [\"$JS.API.STREAM.CREATE.>\"] }"),
    ]);
    let began = Instant::now();
    for (user, names) in [
        ("mute", ["$JS.API.STREAM.INFO.via-events", "publish"]),
        // No answer reaches it.
        ("deaf", ["_INBOX.>", "subscribe"]),
        ("guest", ["$JS.API.STREAM.CREATE.via-events", "publish"]),
    ] {
        assert_denied(
            &connect(&server, user).await.err().unwrap_or_else(|| panic!("{user} connected")),
            &names,
        );
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_tail_that_may_not_be_opened_says_why() {
    let server = server(&[("shut", "publish: { deny: [\"$JS.API.CONSUMER.>\"] }")]);
    prepared(&server).await;
    let pod = connected(&server, "shut").await;
    let selector = Selector::Key(posts());
    let tail = pod.log().subscribe(&selector, Resume::After(Offset::BEGIN)).await;
    assert_denied(&tail.err().expect("refused"), &["$JS.API.CONSUMER.CREATE.via-events.", "publish"]);
    pod.close().await;
}

#[tokio::test]
async fn nothing_is_asked_of_a_replica() {
    // Direct gets may be answered by whoever lags.
    let server = server(&[("careful", "publish: { deny: [\"$JS.API.DIRECT.>\"] }")]);
    prepared(&server).await;
    let pod = connected(&server, "careful").await;
    let (selector, theme) = (Selector::Key(posts()), CellKey::new(["app", "theme"]).expect("a valid path"));
    let appended = pod.log().append(Append::new(entry())).await.expect("appended");
    let head = pod.log().head(&selector).await.expect("known");
    assert_eq!(Some(head.offset), appended.offsets.get(0));
    let all = ReadRange { after: Offset::BEGIN, up_to: head.offset, limit: 9 };
    assert_eq!(pod.log().read(&selector, all).await.expect("read").iter().count(), 1);
    pod.compactor().expect("it compacts").floor(&posts()).await.expect("known");
    let rev = pod.store().cas(&theme, Expected::Absent, "dark".into(), Ttl::Forever).await.expect("written");
    assert_eq!(pod.store().load(&theme).await.expect("loaded").map(|held| held.rev), Some(rev));
    let app = CellKey::new(["app"]).expect("a valid path");
    for selector in [CellSelector::One(theme.clone()), CellSelector::Below(app)] {
        let watch = pod.store().watch(&selector).await.expect("watching");
        let told: Vec<_> = watch.take(3).map(|item| item.expect("goes on")).collect().await;
        assert!(
            matches!(&told[..], [Change::Begin, Change::Put { rev: at, .. }, Change::End] if *at == rev),
            "{told:?}"
        );
    }
    pod.close().await;
    assert!(!server.log().contains("Violation"), "{}", server.log());
}
