//! Compactions that get stuck half way: the floor is recorded first, and tells of what may be gone.

use nats_servers::{Config, Server};
use via_backplane::{Append, Backplane, Entries, Entry, ErrorKind, Family, Key, Offset, ReadRange, Selector};
use vianats::Nats;

use crate::notes::builder;

fn posts() -> Key {
    Key::of(&Family::new("posts").expect("a valid name"))
}

async fn connect(server: &Server, user: &str) -> Nats {
    builder(&server.url()).user_and_password(user, user).connect().await.expect("connected")
}

/// A server with a user who may not do one thing that a compaction does.
fn server(denied: &str) -> Server {
    let users = format!(
        "authorization {{ users: [ {{ user: admin, password: admin }},\
         {{ user: hindered, password: hindered, permissions: {{ publish: {{ deny: [\"{denied}\"] }} }} }} ] }}"
    );
    Server::start(Config::new().extra(users)).expect("a server")
}

/// Appends five records; answers their offsets.
async fn five(pod: &Nats) -> Vec<Offset> {
    let mut offsets = Vec::new();
    for n in 0..5 {
        let entry = Entry { key: posts(), record: n.to_string().into() };
        let appended = pod.log().append(Append::new(Entries::One(entry))).await.expect("appended");
        offsets.extend(appended.offsets.get(0));
    }
    offsets
}

async fn left(pod: &Nats) -> Vec<Offset> {
    let all = ReadRange { after: Offset::BEGIN, up_to: Offset(u64::MAX), limit: 9 };
    let read = pod.log().read(&Selector::Key(posts()), all).await.expect("read");
    read.iter().map(|record| record.offset).collect()
}

#[tokio::test]
async fn where_no_floor_can_be_recorded_nothing_is_dropped() {
    let server = server("via.*.f.>");
    let (admin, hindered) = (connect(&server, "admin").await, connect(&server, "hindered").await);
    let offsets = five(&admin).await;
    let compactor = hindered.compactor().expect("it compacts");
    let error = compactor.compact(&posts(), offsets[3]).await.expect_err("no floor");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.to_string().contains(".f.posts.="), "{error}");
    assert_eq!(left(&admin).await, offsets);
    assert_eq!(compactor.floor(&posts()).await.expect("known"), Offset::BEGIN);
}

#[tokio::test]
async fn what_could_not_be_dropped_is_below_a_floor_and_dropped_by_the_next_one() {
    let server = server("$JS.API.STREAM.PURGE.>");
    let (admin, hindered) = (connect(&server, "admin").await, connect(&server, "hindered").await);
    let offsets = five(&admin).await;
    let compactor = hindered.compactor().expect("it compacts");
    let error = compactor.compact(&posts(), offsets[3]).await.expect_err("nothing may be dropped");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert_eq!(left(&admin).await, offsets);
    let compactor = admin.compactor().expect("it compacts");
    assert_eq!(compactor.floor(&posts()).await.expect("known"), offsets[3], "it was recorded first");
    // Whoever comes next need not ask for more to finish it.
    assert_eq!(compactor.compact(&posts(), offsets[3]).await.expect("compacted"), offsets[3]);
    assert_eq!(left(&admin).await, offsets[3..]);
}
