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

/// Reads so many records, or a few more; answers where the last of them stands.
async fn read(tail: &mut Subscription, records: u64) -> Offset {
    let (mut seen, mut last) = (0, Offset::BEGIN);
    while seen < records {
        let item = tokio::time::timeout(PATIENCE, tail.next()).await.expect("in time");
        let batch = item.expect("never a silent end").expect("the tail goes on");
        for record in batch.iter() {
            (seen, last) = (seen + 1, record.offset);
        }
    }
    last
}

/// Up to where the server has sent what it sends before any of it is read.
async fn sent(url: &str) -> Offset {
    let mut before = Offset::BEGIN;
    loop {
        let listed = api(url, "CONSUMER.LIST.via-events", json!({})).await;
        let consumers = listed["consumers"].as_array().expect("consumers");
        let sent = consumers.iter().filter_map(|consumer| consumer["delivered"]["stream_seq"].as_u64());
        let now = Offset(sent.max().expect("a consumer"));
        if now == before {
            return now;
        }
        before = now;
    }
}

#[tokio::test]
async fn a_reader_that_is_behind_is_sent_nothing_twice() {
    /// More than clients hold unless they are told to.
    const BEHIND: u64 = 65_536 + 1_000;
    const RECORDS: usize = 250_000;
    let (meter, _here) = Meter::start();
    let server = Server::start(Config::new()).expect("a server");
    let backplane = vianats::connect(server.url()).await.expect("connected");
    let key = Key::of(&Family::new("posts").expect("a valid name"));
    fill(&backplane, &key, RECORDS).await;
    let selector = Selector::Key(key.clone());
    let mut tail =
        backplane.log().subscribe(&selector, Resume::After(Offset::BEGIN)).await.expect("subscribed");
    // The more the server has seen read, the more it sends ahead.
    let mut last = Offset::BEGIN;
    let end = loop {
        let sent = sent(&server.url()).await;
        if sent.0 - last.0 > BEHIND {
            break sent;
        }
        last = read(&mut tail, 10_000).await;
    };
    backplane.ping().await.expect("its answer comes after what was sent");
    let before = meter.value("via_backplane_reread_total");
    while last < end {
        last = read(&mut tail, 1).await;
    }
    assert_eq!(meter.value("via_backplane_reread_total"), before, "it was dropped, and read again");
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
    const RECORDS: u64 = 450;
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
    assert_eq!(read(&mut tail, RECORDS).await, Offset(RECORDS));
    writer.close().await;
    backplane.close().await;
}
