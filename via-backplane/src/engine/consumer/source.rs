//! The records that an owner takes from the log, across disconnections.

use futures_util::StreamExt as _;

use crate::{
    BackendError, Batch, Cursor, ErrorKind, Head, Offset, RecordId, Resume, Selector, Stored, Subscription,
    engine::{
        Core,
        decode::identity,
        tail::{Tail, silent_end},
    },
};

/// A tail of a consumer's records. It comes back by itself where the backplane was away, and misses nothing.
pub(super) struct Source {
    core: Core,
    selector: Selector,
    /// The last record it has given, or what the consumer has committed.
    cursor: Cursor,
    /// Whether the record at `cursor` was compared with the log's since it was opened last.
    is_verified: bool,
    records: Option<Subscription>,
    tail: Tail,
}

/// Records, of which some may have been given before.
pub(super) struct Taken {
    pub(super) batch: Batch,
    above: Offset,
    /// The slot of the batch that comes next.
    next: usize,
}

impl Taken {
    /// The next record that was not given before, with its slot.
    pub(super) fn next(&mut self) -> Option<(usize, Stored<'_>)> {
        let above = self.above;
        let next = self.batch.slots_from(self.next).find(|(_, record)| record.offset > above)?;
        self.next = next.0 + 1;
        Some(next)
    }
}

/// The log is not the one that the consumer has handled (PROTOCOL §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Replaced;

impl Source {
    /// `cursor` may stand on no record, and then it has no id.
    pub(super) fn new(core: Core, selector: Selector, cursor: Cursor, name: &str) -> Self {
        let tail = Tail::new(&core, format!("consumer {name}"));
        Self { core, selector, cursor, is_verified: false, records: None, tail }
    }

    /// Lets go of the tail until records are wanted again: whoever handles those it has given takes so long that an adapter would fill
    /// up with the ones that follow.
    pub(super) fn let_go(&mut self) {
        self.records = None;
    }

    /// Waits for the next records, and comes back with them.
    pub(super) async fn next(mut self) -> (Self, Result<Taken, Replaced>) {
        loop {
            match self.try_next().await {
                Ok(Ok(taken)) => return (self, Ok(taken)),
                Ok(Err(Replaced)) => return (self, Err(Replaced)),
                // Nothing comes any more; whoever waits is stopped soon.
                Err(error) if error.kind() == ErrorKind::Closed => std::future::pending().await,
                Err(error) => {
                    self.records = None;
                    self.tail.ended();
                    self.tail.wait_after(&error).await;
                }
            }
        }
    }

    async fn try_next(&mut self) -> Result<Result<Taken, Replaced>, BackendError> {
        let mut records = match self.records.take() {
            Some(records) => records,
            None => match self.open().await? {
                Ok(records) => records,
                Err(Replaced) => return Ok(Err(Replaced)),
            },
        };
        loop {
            let batch = records.next().await.unwrap_or_else(|| Err(silent_end()))?;
            self.tail.settled();
            let above = self.cursor.offset;
            if !self.is_same_log(&batch) {
                return Ok(Err(Replaced));
            }
            let Some(last) = batch.last().filter(|last| last.offset > above) else { continue };
            self.cursor = Cursor { epoch: batch.epoch(), offset: last.offset, id: identity(&last) };
            self.records = Some(records);
            return Ok(Ok(Taken { batch, above, next: 0 }));
        }
    }

    async fn open(&mut self) -> Result<Result<Subscription, Replaced>, BackendError> {
        let core = self.core.clone();
        let log = core.backplane.log();
        let before = log.head(&self.selector).await?;
        let from = self.resume_from(before);
        let records = log.subscribe(&self.selector, from).await?;
        // A log replaced between the two calls would leave this tail waiting above the new one's end, for ever.
        let after = log.head(&self.selector).await?;
        if [before, after].iter().any(|head| head.epoch != self.cursor.epoch) {
            return Ok(Err(Replaced));
        }
        if self.resume_from(after).exclusive() < from.exclusive() {
            return Err(BackendError::new(
                ErrorKind::Unavailable,
                "the log's head went back while it was opened",
            ));
        }
        self.is_verified = !self.stands_on_a_record();
        self.tail.opened();
        Ok(Ok(records))
    }

    fn stands_on_a_record(&self) -> bool {
        self.cursor.id != RecordId::default() && self.core.ambient.rules().compare_record_ids
    }

    /// At the record it stands on, so that it can be compared. A head behind it may be a lagging answer, or a log put back from an older
    /// copy: the records say which.
    fn resume_from(&self, head: Head) -> Resume {
        let at = self.cursor.offset.min(head.offset);
        match at {
            Offset::BEGIN => Resume::After(Offset::BEGIN),
            at if self.stands_on_a_record() || at < self.cursor.offset => Resume::At(at),
            at => Resume::After(at),
        }
    }

    /// Compares the record that this consumer stands on with the log's. The consumer's pin keeps it in the log, so that one which is
    /// missing is another log's too.
    fn is_same_log(&mut self, batch: &Batch) -> bool {
        if batch.epoch() != self.cursor.epoch {
            return false;
        }
        if self.is_verified {
            return true;
        }
        let Some(first) = batch.iter().find(|record| record.offset >= self.cursor.offset) else {
            return true;
        };
        self.is_verified = true;
        first.offset == self.cursor.offset && identity(&first) == self.cursor.id
    }
}
