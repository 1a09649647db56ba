//! The baseline: the same messages through async-nats alone.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

use async_nats::jetstream::{Context, message::PublishMessage};
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What is published, and where.
#[derive(Clone)]
pub(super) struct Raw {
    pub(super) context: Context,
    pub(super) subject: Subject,
    pub(super) record: Bytes,
}

impl Raw {
    /// Publishes one after the other for so long; answers how long each took.
    pub(super) async fn one_at_a_time(self, lasts: Duration) -> Result<Vec<Duration>> {
        let until = Instant::now() + lasts;
        let mut took = Vec::new();
        while Instant::now() < until {
            let started = Instant::now();
            let publish = PublishMessage::build().payload(self.record.clone());
            self.context.send_publish(self.subject.clone(), publish).await?.await?;
            took.push(started.elapsed());
        }
        Ok(took)
    }

    /// Publishes with so many unacknowledged at once for so long; answers how many there were.
    pub(super) async fn pipelined(self, window: usize, lasts: Duration) -> Result<usize> {
        let until = Instant::now() + lasts;
        let mut acks = VecDeque::with_capacity(window);
        let mut count = 0;
        while Instant::now() < until {
            if acks.len() == window {
                acks.pop_front().expect("a window is not empty").await?;
            }
            let publish = PublishMessage::build().payload(self.record.clone());
            acks.push_back(self.context.send_publish(self.subject.clone(), publish).await?.into_future());
            count += 1;
        }
        for ack in acks {
            ack.await?;
        }
        Ok(count)
    }

    /// Publishes atomic batches of this size for so long; answers how many messages there were.
    pub(super) async fn batches(self, size: usize, lasts: Duration) -> Result<usize> {
        let until = Instant::now() + lasts;
        let (client, mut batches) = (self.context.client(), 0);
        while Instant::now() < until {
            let batch = client.new_inbox();
            for number in 1..=size {
                let mut headers = HeaderMap::new();
                headers.insert("Nats-Batch-Id", &*batch);
                headers.insert("Nats-Batch-Sequence", number.to_string());
                let (subject, record) = (self.subject.clone(), self.record.clone());
                if number < size {
                    client.publish_with_headers(subject, headers, record).await?;
                    continue;
                }
                headers.insert("Nats-Batch-Commit", "1");
                let ack = client.request_with_headers(subject, headers, record).await?;
                if !String::from_utf8_lossy(&ack.payload).contains(&format!("\"count\":{size}")) {
                    return Err(format!("the batch was not stored: {:?}", ack.payload).into());
                }
            }
            batches += 1;
        }
        Ok(batches * size)
    }
}
