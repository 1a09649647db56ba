//! Tails: read on, then sleep until there is more.

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use futures_util::Stream;
use via_backplane::{BackendError, Batch, Epoch, Offset, Records, Selector};

use super::{
    chunk::Chunk,
    family::Log,
    reader::{Reader, replaced},
};
use crate::pod::Membership;

/// A subscription: a place in the log, and nothing per record, so that a slow reader costs nobody anything.
pub(crate) struct Tail {
    log: Arc<Log>,
    pod: Membership,
    reader: Reader,
    generation: u64,
    /// Held weakly: a tail that sleeps must not keep alive what compaction drops.
    at_hand: Option<(Epoch, Weak<Chunk>)>,
    ended: bool,
}

impl Tail {
    pub(crate) fn new(log: Arc<Log>, pod: Membership, selector: Selector, after: Offset) -> Self {
        let generation = log.generation();
        let reader = Reader::new(selector, after, log.holes);
        Self { log, pod, reader, generation, at_hand: None, ended: false }
    }

    fn broken(&self) -> Result<(), BackendError> {
        self.pod.open()?;
        if self.log.generation() == self.generation { Ok(()) } else { Err(replaced()) }
    }

    /// What has been published since in the chunk at hand, without a lock.
    ///
    /// As long as nothing of the chunk was dropped, its records are all there, and there is no hole to tell of.
    fn next_at_hand(&mut self) -> Option<Batch> {
        let (epoch, chunk) = self.at_hand.as_ref()?;
        let chunk = chunk.upgrade()?;
        let start = usize::try_from(self.reader.after + 1 - chunk.first()).ok()?;
        let end = chunk.published();
        if start >= end || chunk.is_thinned() {
            return None;
        }
        self.reader.after = chunk.first() + end as u64 - 1;
        let records: Arc<dyn Records> = chunk;
        Some(Batch::new(*epoch, records, start..end))
    }

    /// The next batch, or `None` after going to sleep.
    fn next_or_sleep(&mut self) -> Result<Option<Batch>, BackendError> {
        let mut state = self.log.state.lock();
        // Looked at again under the lock, so that no batch of a replaced log follows its replacement.
        self.broken()?;
        let Some(mut portion) = self.reader.next(&state, u64::MAX, usize::MAX) else {
            state.sleeping.add(self.reader.selector(), self.pod.signal());
            return Ok(None);
        };
        let epoch = state.epoch;
        drop(state);
        let chunk = portion.chunk.take().filter(|_| matches!(self.reader.selector(), Selector::Family(_)));
        self.at_hand = chunk.map(|chunk| (epoch, Arc::downgrade(&chunk)));
        Ok(Some(portion.into_batch(epoch)))
    }
}

impl Stream for Tail {
    type Item = Result<Batch, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.broken().is_ok()
            && let Some(batch) = self.next_at_hand()
        {
            return Poll::Ready(Some(Ok(batch)));
        }
        self.pod.signal().register(cx.waker());
        match self.next_or_sleep() {
            Ok(Some(batch)) => Poll::Ready(Some(Ok(batch))),
            Ok(None) => Poll::Pending,
            Err(error) => {
                self.ended = true;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let mut state = self.log.state.lock();
        state.sleeping.remove(self.reader.selector(), self.pod.signal());
    }
}
