//! Reads and lists where the server does what an adapter does not expect of it.

use std::time::Duration;

use nats_servers::{Config, Server};
use serde_json::json;
use via_backplane::{
    Append, Backplane, Entries, Entry, Expectation, Family, Head, Key, Offset, Page, ReadRange, Resume,
    Selector,
};

use crate::notes::{api, builder};

fn family(name: &str) -> Family {
    Family::new(name).expect("a valid name")
}

async fn append(pod: &dyn Backplane, key: &Key, text: String) -> Offset {
    let entry = Entry { key: key.clone(), record: text.into() };
    let appended = pod.log().append(Append::new(Entries::One(entry))).await.expect("appended");
    appended.offsets.get(0).expect("one offset")
}

#[tokio::test]
async fn more_instances_than_one_answer_of_the_server_lists_are_listed() {
    // One answer holds 100,000.
    const INSTANCES: usize = 100_050;
    let server = Server::start(Config::new()).expect("a server");
    let pod = builder(&server.url()).connect().await.expect("connected");
    let rooms = family("rooms");
    let info = api(&server.url(), "STREAM.INFO.via-events", json!({})).await;
    let incarnation = info["config"]["metadata"]["via-incarnation"].as_str().expect("an incarnation");
    let client = async_nats::connect(server.url()).await.expect("connected");
    for n in 0..INSTANCES - 1 {
        client.publish(format!("via.{incarnation}.e.rooms.{n:06}"), "x".into()).await.expect("sent");
    }
    let last = Key::instance(&rooms, format!("{:06}", INSTANCES - 1)).expect("a valid name");
    // The server takes what one connection sends in its order.
    let ack = client.request(format!("via.{incarnation}.e.rooms.{:06}", INSTANCES - 1), "x".into()).await;
    ack.expect("an ack");
    let mut seen = 0;
    let mut after = None;
    loop {
        let page = Page { after: after.take(), limit: 40_000 };
        let keys = pod.log().instances(&rooms, page).await.expect("listed");
        for key in &keys {
            assert_eq!(
                key.instance_name(),
                Some(&*format!("{seen:06}")),
                "in order, none twice, none missing"
            );
            seen += 1;
        }
        match keys.last() {
            Some(key) => after = Some(key.clone()),
            None => break,
        }
    }
    assert_eq!((seen, after), (INSTANCES, None));
    assert!(pod.log().head(&Selector::Key(last)).await.expect("known").offset > Offset::BEGIN);
    pod.close().await;
}

#[tokio::test]
async fn a_read_whose_last_record_is_purged_meanwhile_ends() {
    let server = Server::start(Config::new()).expect("a server");
    let patient = Duration::from_millis(300);
    let pod = builder(&server.url()).request_timeout(patient).connect().await.expect("connected");
    let key = Key::of(&family("posts"));
    let selector = Selector::Key(key.clone());
    let info = api(&server.url(), "STREAM.INFO.via-events", json!({})).await;
    let incarnation = info["config"]["metadata"]["via-incarnation"].as_str().expect("an incarnation");
    let filter = json!({ "filter": format!("via.{incarnation}.e.posts.=") }).to_string();
    let operator = async_nats::connect(server.url()).await.expect("connected");
    for round in 0..200 {
        let last = append(&pod, &key, round.to_string()).await;
        let range = ReadRange { after: Offset(last.0 - 1), up_to: last, limit: 10 };
        let purge = async {
            // Somewhere between the first and the last of the questions a read asks.
            for _ in 0..round % 20 {
                operator.flush().await.expect("there");
            }
            operator.request("$JS.API.STREAM.PURGE.via-events", filter.clone().into()).await.expect("purged");
        };
        let read = tokio::time::timeout(patient * 20, pod.log().read(&selector, range));
        let (read, ()) = tokio::join!(read, purge);
        let read = read.unwrap_or_else(|_| panic!("round {round}: the read does not end"));
        assert!(read.expect("read").iter().count() <= 1);
    }
    pod.close().await;
}

#[tokio::test]
async fn messages_that_only_carried_an_expectation_leave_nothing_behind() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = builder(&server.url()).connect().await.expect("connected");
    let rooms = family("rooms");
    let room = |n: usize| Key::instance(&rooms, n.to_string()).expect("a valid name");
    let epoch = pod.log().head(&Selector::Family(rooms.clone())).await.expect("known").epoch;
    // Four keys are expected to have no record, and there is one message to say so on.
    let expect =
        (0..4).map(|n| Expectation { key: room(n), head: Head { epoch, offset: Offset::BEGIN } }).collect();
    let entries = Entries::One(Entry { key: room(9), record: "x".into() });
    pod.log().append(Append { entries, expect, id: None }).await.expect("appended");
    let info = api(&server.url(), "STREAM.INFO.via-events", json!({ "subjects_filter": ">" })).await;
    let subjects = info["state"]["subjects"].as_object().expect("subjects");
    assert!(subjects.keys().all(|subject| subject.ends_with(".e.rooms.9")), "{subjects:?}");
    pod.close().await;
}

#[tokio::test]
async fn the_longest_names_fit_the_servers_lines() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = builder(&server.url()).prefix("p".repeat(32)).connect().await.expect("connected");
    // Each byte takes three in a subject.
    let long = family(&".".repeat(via_backplane::MAX_FAMILY_BYTES));
    let key = Key::instance(&long, " ".repeat(via_backplane::MAX_INSTANCE_BYTES)).expect("a valid name");
    let selector = Selector::Key(key.clone());
    let mut tail = pod.log().subscribe(&selector, Resume::After(Offset::BEGIN)).await.expect("subscribed");
    let first = append(&pod, &key, "first".into()).await;
    let batch = futures_util::StreamExt::next(&mut tail).await.expect("an item").expect("a batch");
    assert_eq!(batch.iter().map(|record| record.offset).collect::<Vec<_>>(), [first]);
    let cell =
        via_backplane::CellKey::new(["*".repeat(via_backplane::MAX_CELL_KEY_BYTES)]).expect("a valid path");
    let mut watch =
        pod.store().watch(&via_backplane::CellSelector::One(cell.clone())).await.expect("watched");
    let rev = pod
        .store()
        .cas(&cell, via_backplane::Expected::Absent, "x".into(), via_backplane::Ttl::Forever)
        .await
        .expect("written");
    loop {
        let change = futures_util::StreamExt::next(&mut watch).await.expect("an item").expect("a change");
        if matches!(&change, via_backplane::Change::Put { rev: told, .. } if *told == rev) {
            break;
        }
    }
    pod.close().await;
}
