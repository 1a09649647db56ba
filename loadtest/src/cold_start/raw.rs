//! The baseline: the same records through async-nats' ordered push consumer.

use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy, push::OrderedConfig};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt as _;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Receives so many messages that match; answers how many bytes they had.
pub(super) async fn receive(stream: Stream, inbox: String, filter: String, count: usize) -> Result<usize> {
    let consumer = stream
        .create_consumer(OrderedConfig {
            deliver_subject: inbox,
            filter_subject: filter,
            deliver_policy: DeliverPolicy::All,
            replay_policy: ReplayPolicy::Instant,
            ..OrderedConfig::default()
        })
        .await?;
    let mut messages = consumer.messages().await?.take(count);
    let mut bytes = 0;
    while let Some(message) = messages.next().await {
        bytes += message?.payload.len();
    }
    Ok(bytes)
}
