//! F1 to F3 and S6: feeds.

use bytes::Bytes;
use futures_util::StreamExt;

use super::{
    names::hostile,
    trial::{Pod, Trial, soon},
};
use crate::{Messages, PublishError, TooLarge, Topic};

fn topic(name: &str) -> Topic {
    Topic::new(name).expect("a valid name")
}

async fn listen(pod: &Pod, topic: &Topic) -> Messages {
    soon("a subscription", pod.broadcast().subscribe(topic)).await.expect("listening")
}

async fn publish(pod: &Pod, topic: &Topic, message: impl Into<Bytes>) {
    soon("a publish", pod.broadcast().publish(topic, message.into())).await.expect("published");
}

async fn next(messages: &mut Messages) -> Bytes {
    soon("a message", messages.next()).await.expect("a feed never ends silently").expect("the feed goes on")
}

pub(super) async fn f1_a_message_reaches_every_subscriber_of_every_pod_once(trial: Trial) {
    let other = trial.another_pod().await;
    let news = topic("news");
    let mut listeners =
        vec![listen(&trial.pod, &news).await, listen(&trial.pod, &news).await, listen(&other, &news).await];
    for n in 0..20_usize {
        publish([&trial.pod, &other][n % 2], &news, n.to_string()).await;
        for listener in &mut listeners {
            // If it came twice, the next round would see it again.
            assert_eq!(next(listener).await, n.to_string());
        }
    }
}

pub(super) async fn f1_a_subscriber_that_sleeps_is_woken(trial: Trial) {
    let news = topic("news");
    let mut listener = listen(&trial.pod, &news).await;
    let other = trial.another_pod().await;
    for n in 0..10 {
        let (heard, ()) = tokio::join!(biased; next(&mut listener), async {
            tokio::task::yield_now().await;
            publish(&other, &news, n.to_string()).await;
        });
        assert_eq!(heard, n.to_string());
    }
}

pub(super) async fn f1_topics_with_hostile_names_are_apart(trial: Trial) {
    let names: Vec<_> = hostile().into_iter().chain(["t".repeat(crate::MAX_TOPIC_BYTES)]).collect();
    let mut listeners = Vec::new();
    for name in &names {
        listeners.push(listen(&trial.pod, &topic(name)).await);
    }
    for name in &names {
        publish(&trial.pod, &topic(name), name.clone()).await;
    }
    for (name, listener) in names.iter().zip(&mut listeners) {
        publish(&trial.pod, &topic(name), "end").await;
        assert_eq!(next(listener).await, *name);
        assert_eq!(next(listener).await, "end", "{name:?} heard one message");
    }
}

pub(super) async fn f1_messages_keep_their_bytes(trial: Trial) {
    let news = topic("news");
    let mut listener = listen(&trial.pod, &news).await;
    let every: Vec<u8> = (0..=255).collect();
    for message in [Vec::new(), every.clone(), every.repeat(16)] {
        publish(&trial.pod, &news, message.clone()).await;
        assert_eq!(next(&mut listener).await, message);
    }
}

pub(super) async fn f2_nothing_is_replayed(trial: Trial) {
    let news = topic("news");
    publish(&trial.pod, &news, "before anybody listens").await;
    let mut early = listen(&trial.pod, &news).await;
    publish(&trial.pod, &news, "one").await;
    let mut late = listen(&trial.another_pod().await, &news).await;
    publish(&trial.pod, &news, "two").await;
    assert_eq!(next(&mut early).await, "one");
    assert_eq!(next(&mut early).await, "two");
    assert_eq!(next(&mut late).await, "two");
}

pub(super) async fn f3_a_slow_subscriber_blocks_nobody(trial: Trial) {
    let news = topic("news");
    let mut slow = listen(&trial.pod, &news).await;
    let mut fast = listen(&trial.pod, &news).await;
    // More than any buffer that deserves to be called bounded.
    for n in 0..70_000 {
        publish(&trial.pod, &news, n.to_string()).await;
        assert_eq!(next(&mut fast).await, n.to_string(), "one that keeps up misses nothing");
    }
    let mut last = None;
    let mut heard = 0;
    publish(&trial.pod, &news, "end").await;
    while let Some(message) = {
        use futures_util::FutureExt;
        slow.next().now_or_never().map(|item| item.expect("never ends").expect("goes on"))
    } {
        if message == "end" {
            continue;
        }
        let n: usize = std::str::from_utf8(&message).expect("text").parse().expect("a number");
        assert!(last.is_none_or(|last| last < n), "at most once, and in order: {n} after {last:?}");
        last = Some(n);
        heard += 1;
    }
    assert!(heard < 70_000, "a queue that held everything is not bounded");
    publish(&trial.pod, &news, "again").await;
    loop {
        // What was still on its way comes first.
        if next(&mut slow).await == "again" {
            break;
        }
    }
}

pub(super) async fn s6_a_message_at_the_limit_is_accepted_and_one_over_refused(trial: Trial) {
    let news = topic("news");
    let mut listener = listen(&trial.pod, &news).await;
    let limit = trial.pod.limits().max_message;
    publish(&trial.pod, &news, vec![b'x'; limit]).await;
    let refused = trial.pod.broadcast().publish(&news, vec![b'y'; limit + 1].into()).await;
    let Err(PublishError::TooLarge(TooLarge { what: "message", size, limit: told })) = refused else {
        panic!("refused with the limit, not {refused:?}");
    };
    assert_eq!((size, told), (limit + 1, limit));
    assert_eq!(next(&mut listener).await.len(), limit);
}
