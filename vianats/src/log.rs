//! The event log: tails, reads, heads and lists. Appending is next door.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;
use via_backplane::{
    Append, AppendError, Appended, BackendError, Batch, Epoch, EventLog, Family, Head, Key, Offset,
    OwnedRecord, Page, ReadRange, Reply, Resume, Selector, Subscription, metrics::FOREIGN,
};

use crate::{
    api,
    generation::Generation,
    names::{KnownKeys, LogSubjects},
    ordered::{Delivered, Ordered, Start},
    pod::Pod,
    streams,
};

/// Records of one batch at most.
const MAX_BATCH_RECORDS: usize = 1_024;
/// Bytes after which a batch is handed on.
const MAX_BATCH_BYTES: usize = 1 << 20;

impl EventLog for Pod {
    fn append(&self, append: Append) -> Reply<'_, Result<Appended, AppendError>> {
        Reply::later(self.append_records(append))
    }

    fn subscribe<'a>(
        &'a self,
        selector: &'a Selector,
        from: Resume,
    ) -> Reply<'a, Result<Subscription, BackendError>> {
        Reply::later(async move {
            let start = Start::After(from.exclusive().0);
            let tail = Tail::open(self, self.log_generation(), selector, start).await?;
            let batches = stream::unfold(Some(tail), |tail| async move {
                let mut tail = tail?;
                match tail.batch().await {
                    Ok(batch) => Some((Ok(batch), Some(tail))),
                    Err(error) => Some((Err(error), None)),
                }
            });
            Ok(batches.boxed())
        })
    }

    fn read<'a>(
        &'a self,
        selector: &'a Selector,
        range: ReadRange,
    ) -> Reply<'a, Result<Batch, BackendError>> {
        Reply::later(self.read_records(selector, range))
    }

    fn instances<'a>(&'a self, family: &'a Family, page: Page) -> Reply<'a, Result<Vec<Key>, BackendError>> {
        Reply::later(async move {
            let generation = self.look_at_log().await?;
            let filter = generation.subjects.family(family);
            let subjects = streams::subjects(self.link(), self.stream(), &filter).await?;
            let mut keys: Vec<_> = subjects
                .iter()
                .filter_map(|subject| generation.subjects.key(subject))
                .filter(|key| page.after.as_ref().is_none_or(|after| key > after))
                .collect();
            // Encoding does not keep the order of names.
            if keys.len() > page.limit && page.limit > 0 {
                keys.select_nth_unstable(page.limit - 1);
            }
            keys.truncate(page.limit);
            keys.sort_unstable();
            Ok(keys)
        })
    }

    fn head<'a>(&'a self, selector: &'a Selector) -> Reply<'a, Result<Head, BackendError>> {
        Reply::later(async move {
            let generation = self.look_at_log().await?;
            let offset = self.head_of(&generation, selector).await?;
            Ok(Head { epoch: Epoch(generation.number), offset })
        })
    }
}

impl Pod {
    pub(crate) async fn head_of(
        &self,
        generation: &Generation<LogSubjects>,
        selector: &Selector,
    ) -> Result<Offset, BackendError> {
        let subject = generation.subjects.wanted(selector);
        let last = api::last_message(self.link(), self.stream(), &subject).await?;
        Ok(last.map_or(Offset::BEGIN, |held| Offset(held.sequence)))
    }

    async fn read_records(&self, selector: &Selector, range: ReadRange) -> Result<Batch, BackendError> {
        let generation = self.look_at_log().await?;
        let epoch = Epoch(generation.number);
        // A consumer may read from a replica that lags. What the leader says is the last record has to come, so a read
        // that has seen it, or one past its range, has seen everything.
        let mut end = self.head_of(&generation, selector).await?.min(range.up_to);
        let mut last = range.after;
        let mut records = Vec::new();
        if range.limit == 0 || last >= end {
            return Ok(Batch::of(epoch, records));
        }
        let patience = self.link().request_timeout();
        let mut tail = Tail::open(self, generation.clone(), selector, Start::After(last.0)).await?;
        while records.len() < range.limit && last < end {
            match timeout(patience, tail.consumer.next()).await {
                Ok(delivered) => {
                    let delivered = delivered?;
                    last = Offset(delivered.sequence);
                    if last <= range.up_to {
                        records.extend(tail.record(delivered));
                    }
                }
                // What was last may have been purged since, and would be waited for in vain.
                Err(_) => end = self.head_of(&generation, selector).await?.min(end),
            }
        }
        tail.consumer.close().await;
        Ok(Batch::of(epoch, records))
    }
}

/// A subscription's consumer, and what it has learnt about keys.
struct Tail {
    consumer: Ordered<LogSubjects>,
    keys: KnownKeys,
    epoch: Epoch,
}

impl Tail {
    async fn open(
        pod: &Pod,
        generation: Arc<Generation<LogSubjects>>,
        selector: &Selector,
        start: Start,
    ) -> Result<Self, BackendError> {
        let filter = generation.subjects.wanted(selector);
        let keys = KnownKeys::new(generation.subjects.clone());
        let epoch = Epoch(generation.number);
        let opened = Ordered::open(pod.link(), pod.stream(), filter, generation, start).await;
        if opened.is_err() {
            // The stream may be another than the one that was known; the next attempt should know.
            pod.look_at_log().await?;
        }
        Ok(Self { consumer: opened?, keys, epoch })
    }

    /// Whatever is ready, and at least one record.
    async fn batch(&mut self) -> Result<Batch, BackendError> {
        let mut records = Vec::new();
        while records.is_empty() {
            let delivered = self.consumer.next().await?;
            records.extend(self.record(delivered));
        }
        let mut bytes = records.iter().map(|record| record.bytes.len()).sum::<usize>();
        while records.len() < MAX_BATCH_RECORDS && bytes < MAX_BATCH_BYTES {
            let Some(delivered) = self.consumer.ready().await? else { break };
            if let Some(record) = self.record(delivered) {
                bytes += record.bytes.len();
                records.push(record);
            }
        }
        Ok(Batch::of(self.epoch, records))
    }

    /// The record of a message, unless somebody else put it there.
    fn record(&mut self, delivered: Delivered) -> Option<OwnedRecord> {
        let offset = Offset(delivered.sequence);
        match self.keys.key(&delivered.message.subject) {
            Some(key) => Some(OwnedRecord { offset, key: key.clone(), bytes: delivered.message.payload }),
            None => {
                tracing::error!(
                    subject = %delivered.message.subject,
                    %offset,
                    "a message among the events has no key of via's, and is skipped"
                );
                metrics::counter!(FOREIGN, "of" => "events").increment(1);
                None
            }
        }
    }
}
