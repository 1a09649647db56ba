//! The baseline: the same through async-nats alone, publish to receive.

use std::time::{Duration, SystemTime};

use async_nats::Subject;
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy, push::OrderedConfig};
use async_nats::jetstream::{Context, stream::Stream};
use futures_util::StreamExt as _;
use tokio::time::{MissedTickBehavior, interval};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn now() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970");
    u64::try_from(now.as_nanos()).expect("it is before 2554")
}

/// Publishes so many messages of so many bytes, each with the time it was sent at.
pub(super) async fn publish(
    context: Context,
    subject: Subject,
    count: usize,
    every: Duration,
    bytes: usize,
) -> Result<()> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..count {
        ticks.tick().await;
        let mut payload = now().to_le_bytes().to_vec();
        payload.resize(bytes, 0);
        context.publish(subject.clone(), payload.into()).await?.await?;
    }
    Ok(())
}

/// Receives so many messages; answers how many nanoseconds each was on its way. `ready` is called when it listens.
pub(super) async fn receive(
    stream: Stream,
    inbox: String,
    subject: String,
    count: usize,
    ready: impl FnOnce() + Send,
) -> Result<Vec<u64>> {
    let consumer = stream
        .create_consumer(OrderedConfig {
            deliver_subject: inbox,
            filter_subject: subject,
            deliver_policy: DeliverPolicy::New,
            replay_policy: ReplayPolicy::Instant,
            ..OrderedConfig::default()
        })
        .await?;
    let mut messages = consumer.messages().await?;
    ready();
    let mut took = Vec::with_capacity(count);
    while took.len() < count {
        let message = messages.next().await.ok_or("the consumer ended")??;
        let received = now();
        let sent = message.payload.first_chunk().ok_or("a message without a time")?;
        took.push(received.saturating_sub(u64::from_le_bytes(*sent)));
    }
    Ok(took)
}
