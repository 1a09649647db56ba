//! Readers that are slower than what they read.

use futures_util::StreamExt as _;
use nats_servers::{Config, Server};
use serde_json::json;
use via_backplane::{Append, Backplane, Entries, Entry, Family, Key, Offset, Resume, Selector, Subscription};

use crate::{
    notes::{PATIENCE, api},
    told::Meter,
};

/// Appends so many of the smallest records, in batches.
async fn fill(backplane: &dyn Backplane, key: &Key, records: usize) {
    const BATCH: usize = 1_000;
    for _ in 0..records / BATCH {
        let entry = Entry { key: key.clone(), record: "0123456789".repeat(4).into() };
        let append = Append::new(Entries::Many(vec![entry; BATCH]));
        backplane.log().append(append).await.expect("appended");
    }
}

/// Reads so many records, or a few more; answers how many.
async fn read(tail: &mut Subscription, records: usize) -> usize {
    let mut seen = 0;
    while seen < records {
        let item = tokio::time::timeout(PATIENCE, tail.next()).await.expect("in time");
        seen += item.expect("never a silent end").expect("the tail goes on").iter().count();
    }
    seen
}

#[tokio::test]
async fn a_reader_that_is_behind_is_sent_nothing_twice() {
    // What is read first, by which the server comes to send more at a time, and what it sends then that is not read.
    const FIRST: usize = 120_000;
    const LATER: usize = 80_000;
    let (meter, _here) = Meter::start();
    let server = Server::start(Config::new()).expect("a server");
    let backplane = vianats::connect(server.url()).await.expect("connected");
    let key = Key::of(&Family::new("posts").expect("a valid name"));
    fill(&backplane, &key, FIRST + LATER).await;
    let selector = Selector::Key(key.clone());
    let mut tail =
        backplane.log().subscribe(&selector, Resume::After(Offset::BEGIN)).await.expect("subscribed");
    let seen = read(&mut tail, FIRST).await;
    let sent = async {
        loop {
            let listed = api(&server.url(), "CONSUMER.LIST.via-events", json!({})).await;
            if listed["consumers"][0]["num_pending"] == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, sent).await.expect("the server sends all of it");
    backplane.ping().await.expect("its answer comes after that");
    read(&mut tail, FIRST + LATER - seen).await;
    assert_eq!(meter.value("via_backplane_reread_total"), None);
    backplane.close().await;
}

#[tokio::test]
async fn what_the_client_drops_is_read_again() {
    const RECORDS: u64 = 4_000;
    let (meter, _here) = Meter::start();
    let server = Server::start(Config::new()).expect("a server");
    // So small that everything beyond it is dropped while nobody reads.
    let options = async_nats::ConnectOptions::new().subscription_capacity(400);
    let client = options.connect(server.url()).await.expect("connected");
    let backplane = vianats::Builder::with_client(client).connect().await.expect("connected");
    let key = Key::of(&Family::new("posts").expect("a valid name"));
    let mut tail = backplane
        .log()
        .subscribe(&Selector::Key(key.clone()), Resume::After(Offset::BEGIN))
        .await
        .expect("subscribed");
    for round in 0..RECORDS / 500 {
        let entry = |n: u64| Entry { key: key.clone(), record: (round * 500 + n).to_string().into() };
        let append = Append::new(Entries::Many((0..500).map(entry).collect()));
        backplane.log().append(append).await.expect("appended");
    }
    let mut next = 0;
    while next < RECORDS {
        let item = tokio::time::timeout(PATIENCE, tail.next()).await.expect("in time");
        let batch = item.expect("never a silent end").expect("the tail goes on");
        for record in batch.iter() {
            assert_eq!(
                String::from_utf8_lossy(record.bytes),
                next.to_string(),
                "in order, none twice, none missing"
            );
            next += 1;
        }
    }
    assert!(meter.value("via_backplane_reread_total") > Some(0.0));
    backplane.close().await;
}

#[tokio::test]
async fn what_the_client_drops_last_is_read_again_though_nothing_follows() {
    const RECORDS: usize = 450;
    let server = Server::start(Config::new()).expect("a server");
    let options = async_nats::ConnectOptions::new().subscription_capacity(400);
    let client = options.connect(server.url()).await.expect("connected");
    let backplane = vianats::Builder::with_client(client).connect().await.expect("connected");
    let key = Key::of(&Family::new("posts").expect("a valid name"));
    let selector = Selector::Key(key.clone());
    let mut tail =
        backplane.log().subscribe(&selector, Resume::After(Offset::BEGIN)).await.expect("subscribed");
    // One by one, so that each says that none comes after it; only the server's silence tells of those that were dropped.
    let writer = vianats::connect(server.url()).await.expect("connected");
    for n in 0..RECORDS {
        let entry = Entry { key: key.clone(), record: n.to_string().into() };
        writer.log().append(Append::new(Entries::One(entry))).await.expect("appended");
    }
    assert_eq!(read(&mut tail, RECORDS).await, RECORDS);
    writer.close().await;
    backplane.close().await;
}
