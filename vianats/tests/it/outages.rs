//! Servers that go away under live pods, and come back.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use nats_servers::{Cluster, Config, Link, Server};
use via_backplane::{Append, AppendError, AppendFailed, Backplane, Entries, Entry, Family, Key, Retry};

use crate::{
    notes::{Noted, PATIENCE, Pod, builder},
    told::Meter,
};

/// The pods here wait three seconds for an answer: once for the connection, once for an append's ack. The rest is for a
/// machine that builds meanwhile.
const LONGEST_APPEND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn reads_go_on_and_appends_say_so_while_the_server_is_away() {
    let (meter, _here) = Meter::start();
    let server = Server::start(Config::new()).expect("a server");
    let pod = Pod::on(&server.url()).await;
    let position = pod.note("before").await;
    pod.reaches(&position).await;
    server.kill();
    assert_eq!(**pod.notes.read().expect("loaded"), ["before"]);
    let began = Instant::now();
    let failed = pod.notes.append(Noted { text: "during".into() }).await.expect_err("nobody is there");
    assert!(matches!(failed.retry(), Retry::Safe | Retry::MayDuplicate), "{failed:?}");
    assert!(began.elapsed() < LONGEST_APPEND, "bounded by the request timeout: {:?}", began.elapsed());
    assert!(pod.engine.backplane().ping().await.is_err());
    meter.says("via_backplane_up", 0.0).await;
    assert_eq!(**pod.notes.read().expect("loaded"), ["before"]);
    server.restart().expect("started again");
    let position = pod.note("after").await;
    pod.reaches(&position).await;
    assert_eq!(pod.notes.read().expect("loaded").last().map(String::as_str), Some("after"));
    meter.says("via_backplane_up", 1.0).await;
    pod.stop().await;
}

#[tokio::test]
async fn a_tail_misses_nothing_over_restarts() {
    let server = Server::start(Config::new()).expect("a server");
    let (writer, reader) = (Pod::on(&server.url()).await, Pod::on(&server.url()).await);
    let mut expected = Vec::new();
    for round in 0..4 {
        for n in 0..25 {
            expected.push(format!("{round}:{n}"));
            let position = writer.note(format!("{round}:{n}")).await;
            if n == 24 {
                reader.reaches(&position).await;
            }
        }
        server.kill();
        server.restart().expect("started again");
    }
    let position = writer.note("end").await;
    expected.push("end".into());
    for pod in [&writer, &reader] {
        pod.reaches(&position).await;
        assert_eq!(**pod.notes.loaded().await, expected);
        pod.stop().await;
    }
}

#[tokio::test]
async fn a_paused_server_is_not_waited_for_beyond_the_timeout() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = Pod::on(&server.url()).await;
    let position = pod.note("before").await;
    pod.reaches(&position).await;
    server.pause().expect("paused");
    let began = Instant::now();
    let failed = pod.notes.append(Noted { text: "during".into() }).await.expect_err("nobody answers");
    // It was sent, so it may be carried out when the server goes on.
    assert!(matches!(failed, AppendFailed::MaybeCommitted { .. }), "{failed:?}");
    assert!(began.elapsed() < LONGEST_APPEND, "{:?}", began.elapsed());
    server.resume().expect("resumed");
    let position = pod.note("after").await;
    pod.reaches(&position).await;
    let notes = pod.notes.loaded().await;
    assert_eq!(
        (notes.first().map(String::as_str), notes.last().map(String::as_str)),
        (Some("before"), Some("after"))
    );
    pod.stop().await;
}

#[tokio::test]
async fn every_acknowledged_append_outlives_the_leaders_death() {
    let cluster = Cluster::start(Config::new(), 3).expect("a cluster");
    let urls = cluster.urls().join(",");
    let (writer, reader) = (Pod::on(&urls).await, Pod::on(&urls).await);
    let mut acknowledged = Vec::new();
    let mut last = None;
    for round in 0..3 {
        for n in 0..40 {
            let text = format!("{round}:{n}");
            if let Ok(position) = writer.notes.append(Noted { text: text.clone() }).await {
                acknowledged.push(text);
                last = Some(position);
            }
        }
        let leader = cluster.stream_leader("via-events").expect("a leader");
        leader.kill();
        for n in 40..60 {
            let text = format!("{round}:{n}");
            if let Ok(position) = writer.notes.append(Noted { text: text.clone() }).await {
                acknowledged.push(text);
                last = Some(position);
            }
        }
        leader.restart().expect("started again");
    }
    assert!(acknowledged.len() > 100, "{} were acknowledged", acknowledged.len());
    let last = last.expect("some were");
    for pod in [&writer, &reader] {
        pod.reaches(&last).await;
        let notes = pod.notes.loaded().await;
        let mut notes = notes.iter();
        for text in &acknowledged {
            // In order; what is between them was committed without an ack.
            assert!(notes.any(|note| note == text), "{text} was acknowledged and is gone");
        }
        pod.stop().await;
    }
}

#[tokio::test]
async fn closing_does_not_wait_for_a_server_that_is_gone() {
    let server = Server::start(Config::new()).expect("a server");
    let backplane = builder(&server.url()).connect().await.expect("connected");
    server.kill();
    tokio::time::timeout(PATIENCE, backplane.close()).await.expect("closed");
}

#[tokio::test]
async fn pods_come_back_when_every_connection_was_cut() {
    let server = Server::start(Config::new()).expect("a server");
    let link = Link::to([&server]).expect("a proxy");
    let url = link.urls().join(",");
    let pods = [Pod::on(&url).await, Pod::on(&url).await, Pod::on(&url).await];
    for round in 0..5 {
        link.interrupt();
        link.restore().expect("the port is still free");
        let position = pods[round % 3].note(round.to_string()).await;
        for pod in &pods {
            pod.reaches(&position).await;
        }
    }
    for pod in &pods {
        assert_eq!(**pod.notes.loaded().await, ["0", "1", "2", "3", "4"]);
        pod.stop().await;
    }
}

#[tokio::test]
async fn what_is_appended_as_soon_as_the_connection_is_back_is_acknowledged() {
    let server = Server::start(Config::new()).expect("a server");
    let link = Link::to([&server]).expect("a proxy");
    // A client that is not ours does not say when it is back.
    let client = async_nats::connect(&link.urls()[..]).await.expect("connected");
    let backplane = vianats::Builder::with_client(client.clone()).connect().await.expect("connected");
    let key = Key::of(&Family::new("posts").expect("a valid name"));
    for round in 0..10 {
        let before = client.statistics().connects.load(Ordering::Acquire);
        link.interrupt();
        link.restore().expect("the port is still free");
        let back = async {
            while client.statistics().connects.load(Ordering::Acquire) == before
                || client.connection_state() != async_nats::connection::State::Connected
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, back).await.expect("the connection comes back");
        let entry = Entry { key: key.clone(), record: round.to_string().into() };
        let appended = backplane.log().append(Append::new(Entries::One(entry))).await;
        appended.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
    }
    backplane.close().await;
}

#[tokio::test]
async fn an_append_whose_connection_was_replaced_is_not_waited_for() {
    let server = Server::start(Config::new()).expect("a server");
    let link = Link::to([&server]).expect("a proxy");
    // It is back before anybody looks, so that only the count of its connections tells.
    let client = async_nats::connect(&link.urls()[..]).await.expect("connected");
    let patient = vianats::Builder::with_client(client).request_timeout(PATIENCE * 2);
    let backplane = patient.connect().await.expect("connected");
    link.lose_next_ack();
    let key = Key::of(&Family::new("posts").expect("a valid name"));
    let append = backplane.log().append(Append::new(Entries::One(Entry { key, record: "x".into() })));
    let replace = async {
        while link.acks().lost() == 0 {
            tokio::task::yield_now().await;
        }
        link.interrupt();
        link.restore().expect("the port is still free");
    };
    let both = async { tokio::join!(append, replace).0 };
    let appended = tokio::time::timeout(PATIENCE, both).await.expect("no answer will come");
    assert!(matches!(appended, Err(AppendError::MaybeCommitted(_))), "{appended:?}");
    backplane.close().await;
}

#[tokio::test]
async fn a_dropped_backplane_leaves_no_connection_behind() {
    let server = Server::start(Config::new()).expect("a server");
    let observer = async_nats::connect(server.url()).await.expect("connected");
    let backplane = builder(&server.url()).name("leaving").connect().await.expect("connected");
    assert!(backplane.ping().await.is_ok());
    drop(backplane);
    // The server sees the connection go; asking it is the fact to wait for.
    let gone = async {
        loop {
            observer.flush().await.expect("still there");
            if !connections(&server).await.contains("leaving") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the connection ends");
}

/// What the server's monitoring says about its connections.
async fn connections(server: &Server) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut monitor =
        tokio::net::TcpStream::connect(("127.0.0.1", server.monitor_port())).await.expect("a monitor");
    monitor.write_all(b"GET /connz HTTP/1.0\r\n\r\n").await.expect("asked");
    let mut answer = String::new();
    monitor.read_to_string(&mut answer).await.expect("an answer");
    answer
}
