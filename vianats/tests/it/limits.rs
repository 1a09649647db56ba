//! Servers that take less at a time than usual.

use futures_util::future::join_all;
use nats_servers::{Config, Server};
use via_backplane::{Append, Backplane, Entries, Entry, Family, Key, Offset, ReadRange, Retry, Selector};

use crate::notes::builder;

/// So many callers append one record after the other, and repeat what they are told is safe to; answers the offsets.
async fn append_all(pod: &dyn Backplane, callers: usize, each: usize) -> Vec<Offset> {
    let key = Key::of(&Family::new("posts").expect("a valid name"));
    let caller = async |caller: usize| {
        let mut offsets = Vec::new();
        for n in 0..each {
            let entry = Entry { key: key.clone(), record: format!("{caller}:{n}").into() };
            let appended = loop {
                match pod.log().append(Append::new(Entries::One(entry.clone()))).await {
                    Err(failed) if failed.retry() == Retry::Safe => {}
                    outcome => break outcome.expect("appended"),
                }
            };
            offsets.push(appended.offsets.get(0).expect("one offset"));
        }
        offsets
    };
    join_all((0..callers).map(caller)).await.into_iter().flatten().collect()
}

/// Every append has an offset of its own, and is there once.
async fn assert_all_are_there(pod: &dyn Backplane, mut offsets: Vec<Offset>) {
    offsets.sort_unstable();
    let range = ReadRange { after: Offset::BEGIN, up_to: Offset(u64::MAX), limit: usize::MAX };
    let family = Selector::Family(Family::new("posts").expect("a valid name"));
    let there = pod.log().read(&family, range).await.expect("read");
    assert_eq!(there.iter().map(|record| record.offset).collect::<Vec<_>>(), offsets);
}

#[tokio::test]
async fn appends_go_alone_where_the_server_takes_no_groups() {
    let server =
        Server::start(Config::new().jetstream("limits: { batch: { max_msgs: 8 } }")).expect("a server");
    let pod = builder(&server.url()).connect().await.expect("connected");
    // Enough for both ways to be tried.
    let offsets = append_all(&pod, 200, 100).await;
    assert_all_are_there(&pod, offsets).await;
    pod.close().await;
}

#[tokio::test]
async fn a_server_that_is_asked_too_much_is_asked_again() {
    let server = Server::start(Config::new().jetstream("max_buffered_msgs: 50")).expect("a server");
    let pod = builder(&server.url()).connect().await.expect("connected");
    let offsets = append_all(&pod, 100, 10).await;
    assert!(server.log().contains("excessive stream ingest rate"), "it was never asked too much");
    assert_all_are_there(&pod, offsets).await;
    pod.close().await;
}
