//! Watching all cells below a path: a consumer that begins with the last message of each.
//!
//! The consumer may be on a server that lags behind the leader, and what was acknowledged before the watch was opened is
//! in the present: so the present is complete when all that the leader held by then has come.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use via_backplane::{BackendError, CellKey, Change, metrics::FOREIGN};

use super::{Tells, change, said};
use crate::{
    api,
    generation::Generation,
    names::CellSubjects,
    ordered::{Delivered, Ordered, Start},
    pod::Pod,
};

/// How long the last message of the present may let itself be waited for before the leader is asked anew: it may be a
/// marker whose time is over.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the leader is asked whether the present is complete, where others keep writing.
const MAX_CHECKS: usize = 16;

/// A watch of all cells below a path.
pub(super) struct Below {
    pod: Pod,
    filter: String,
    consumer: Ordered<CellSubjects>,
    present: Present,
    /// The sequence of the last message that came.
    last: u64,
    /// How many were to follow it then.
    pending: u64,
}

/// How much of the present has been told.
enum Present {
    Nothing {
        up_to: u64,
    },
    /// All that came; more comes, up to what the leader held when it was asked.
    Part {
        up_to: u64,
        checks: usize,
    },
    All,
}

impl Below {
    pub(super) async fn open(pod: &Pod, prefix: &CellKey) -> Result<Self, BackendError> {
        let generation = pod.cell_generation();
        let filter = generation.subjects.cells_below(prefix);
        let up_to = last(pod, &filter).await?;
        let consumer = Self::consumer(pod, filter.clone(), generation).await?;
        let pending = consumer.pending_at_start;
        Ok(Self { pod: pod.clone(), filter, consumer, present: Present::Nothing { up_to }, last: 0, pending })
    }

    async fn consumer(
        pod: &Pod,
        filter: String,
        generation: Arc<Generation<CellSubjects>>,
    ) -> Result<Ordered<CellSubjects>, BackendError> {
        let opened = Ordered::open(pod.link(), pod.bucket(), filter, generation, Start::Latest).await;
        if opened.is_err() {
            // The bucket may be another than the one that was known; the next attempt should know.
            pod.look_at_cells().await?;
        }
        opened
    }

    /// The next message that belongs to the present, or nothing if it is complete.
    async fn rest(&mut self, mut up_to: u64, mut checks: usize) -> Result<Option<Delivered>, BackendError> {
        loop {
            if self.last >= up_to && self.pending == 0 {
                // A cell that was rewritten before its turn came has moved to the end, and the count may not have known.
                up_to = if up_to == 0 { 0 } else { last(&self.pod, &self.filter).await? };
                checks += 1;
                if self.last >= up_to || checks > MAX_CHECKS {
                    return Ok(None);
                }
            }
            match timeout(PATIENCE, self.consumer.next()).await {
                Ok(delivered) => {
                    self.present = Present::Part { up_to, checks };
                    return delivered.map(Some);
                }
                Err(_) => {
                    up_to = last(&self.pod, &self.filter).await?;
                    if self.last >= up_to {
                        // What was still counted has vanished.
                        self.pending = 0;
                    }
                }
            }
        }
    }

    /// Takes in a message, unless somebody else put it there.
    fn take(&mut self, delivered: Delivered) -> Option<Change> {
        self.last = delivered.sequence;
        self.pending = delivered.pending;
        let message = delivered.message;
        let Some(key) = self.consumer.generation().subjects.key(&message.subject) else {
            tracing::error!(
                subject = %message.subject,
                rev = delivered.sequence,
                "a message in the bucket is no cell of via's, and is skipped"
            );
            metrics::counter!(FOREIGN, "of" => "cells").increment(1);
            return None;
        };
        let latest = said(delivered.sequence, message.headers.as_ref(), message.payload);
        Some(change(key, latest))
    }
}

impl Tells for Below {
    async fn next(&mut self) -> Result<Change, BackendError> {
        loop {
            let delivered = match self.present {
                Present::Nothing { up_to } => {
                    self.present = Present::Part { up_to, checks: 0 };
                    return Ok(Change::Begin);
                }
                Present::Part { up_to, checks } => match self.rest(up_to, checks).await? {
                    Some(delivered) => delivered,
                    None => {
                        self.present = Present::All;
                        return Ok(Change::End);
                    }
                },
                Present::All => self.consumer.next().await?,
            };
            if let Some(change) = self.take(delivered) {
                return Ok(change);
            }
        }
    }
}

/// The sequence of the last message that the leader holds below a path.
async fn last(pod: &Pod, filter: &str) -> Result<u64, BackendError> {
    let last = api::last_message(pod.link(), pod.bucket(), filter).await?;
    Ok(last.map_or(0, |held| held.sequence))
}
