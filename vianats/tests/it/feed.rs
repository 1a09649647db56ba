//! Broadcast between pods on different servers.

use bytes::Bytes;
use futures_util::StreamExt as _;
use nats_servers::{Config, Server, shared_cluster};
use tokio::time::timeout;
use via_backplane::{Backplane, ErrorKind, Messages, Topic};
use vianats::Nats;

use crate::{
    cluster,
    notes::{PATIENCE, builder},
};

async fn listen(pod: &Nats, topic: &Topic) -> Messages {
    pod.feed().expect("a feed").subscribe(topic).await.expect("listening")
}

async fn publish(pod: &Nats, topic: &Topic, message: &'static str) {
    pod.feed().expect("a feed").publish(topic, Bytes::from(message)).await.expect("published");
}

async fn next(messages: &mut Messages) -> Bytes {
    let item = timeout(PATIENCE, messages.next()).await.expect("it arrives");
    item.expect("never a silent end").expect("the feed goes on")
}

fn topic(name: &str) -> Topic {
    Topic::new(name).expect("a valid name")
}

#[tokio::test]
async fn whoever_listens_hears_what_is_published_through_any_server() {
    let shared = shared_cluster().expect("a cluster");
    let prefix = cluster::prefix("feed");
    let mut pods = Vec::new();
    for url in shared.urls() {
        pods.push(builder(url).prefix(&prefix).connect().await.expect("connected"));
    }
    // Servers tell each other what is listened to, and do not wait for it; nothing is published twice here.
    for round in 0..300 {
        let news = topic(&format!("news {round}"));
        let (here, there) = (round % pods.len(), (round + 1 + round % 2) % pods.len());
        let mut messages = listen(&pods[here], &news).await;
        publish(&pods[there], &news, "hello").await;
        assert_eq!(next(&mut messages).await, "hello", "round {round}");
    }
    for pod in pods {
        pod.close().await;
    }
}

#[tokio::test]
async fn prefixes_do_not_hear_each_other() {
    let server = Server::start(Config::new()).expect("a server");
    let one = builder(&server.url()).prefix("one").connect().await.expect("connected");
    let two = builder(&server.url()).prefix("two").connect().await.expect("connected");
    let news = topic("news");
    let mut messages = listen(&one, &news).await;
    publish(&two, &news, "theirs").await;
    // Answered after the server has handled what came before.
    two.ping().await.expect("reachable");
    publish(&one, &news, "mine").await;
    assert_eq!(next(&mut messages).await, "mine");
}

#[tokio::test]
async fn a_feed_says_that_its_server_is_gone_and_is_there_again_afterwards() {
    let server = Server::start(Config::new()).expect("a server");
    let pod = builder(&server.url()).connect().await.expect("connected");
    let news = topic("news");
    for round in ["first", "second"] {
        let mut messages = listen(&pod, &news).await;
        publish(&pod, &news, round).await;
        assert_eq!(next(&mut messages).await, round);
        server.kill();
        let end = timeout(PATIENCE, messages.next()).await.expect("the end is told").expect("never silently");
        assert_eq!(end.expect_err("it is gone").kind(), ErrorKind::Unavailable);
        assert!(messages.next().await.is_none());
        server.restart().expect("started again");
    }
}
