//! Appending: one record is a publish, several are an atomic batch.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    time::{Instant, timeout, timeout_at},
};
use via_backplane::{
    Append, AppendError, Appended, BackendError, Entries, Epoch, ErrorKind, Head, Offset, Offsets, Selector,
    TooLarge,
};

use crate::{
    ack::{self, NotStored, Stored},
    api::{self, Purge, Refusal},
    delays::Delays,
    generation::Generation,
    group::{Groups, Waiting, Way},
    link::{Failed, unavailable},
    names::LogSubjects,
    pod::Pod,
    publish::{Guards, Recalled},
};

/// What appends may have in flight, in units of [`UNIT`] bytes: 64 MiB.
const IN_FLIGHT: u32 = 1 << 16;
/// The unit in which appends in flight are bounded.
const UNIT: usize = 1 << 10;
/// What the smallest append counts for, which makes 8,192 of them the most.
const SMALLEST: u32 = 8;

/// What bounds appends, and groups those that nothing is expected of.
pub(crate) struct Appender {
    in_flight: Semaphore,
    groups: Groups,
}

impl Appender {
    /// The receiver is for the task that sends groups.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Waiting>) {
        let (groups, waiting) = Groups::new((IN_FLIGHT / SMALLEST) as usize);
        (Self { in_flight: Semaphore::new(IN_FLIGHT as usize), groups }, waiting)
    }

    /// Waits for its turn, and not longer than this.
    async fn turn(&self, entries: &Entries, patience: Duration) -> Result<SemaphorePermit<'_>, AppendError> {
        let bytes: usize = entries.iter().map(|entry| entry.record.len()).sum();
        let units = u32::try_from(bytes / UNIT).unwrap_or(IN_FLIGHT).clamp(SMALLEST, IN_FLIGHT);
        // Whoever waits is served before what this takes, so a large append does not starve.
        if let Ok(permit) = self.in_flight.try_acquire_many(units) {
            return Ok(permit);
        }
        match Box::pin(timeout(patience, self.in_flight.acquire_many(units))).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(AppendError::Backend(unavailable(
                "too many appends are in flight: the servers are slower than what is appended",
            ))),
        }
    }
}

impl Pod {
    pub(crate) async fn append_records(&self, append: Append) -> Result<Appended, AppendError> {
        self.check_size(&append.entries)?;
        let _turn = self.appender().turn(&append.entries, self.link().request_timeout()).await?;
        let is_one = matches!(append.entries, Entries::One(_));
        let counted = (is_one && is_plain(&append)).then(|| self.appender().groups.begin());
        let is_grouped = counted.as_ref().is_some_and(|counted| counted.way == Way::Grouped);
        match append.entries {
            Entries::One(entry) if is_grouped => Box::pin(self.appender().groups.append(entry)).await,
            _ => self.append_alone(&append).await,
        }
    }

    /// Appends by messages of its own. Sizes were checked, and it has its permit.
    pub(crate) async fn append_alone(&self, append: &Append) -> Result<Appended, AppendError> {
        let deadline = Instant::now() + self.link().request_timeout();
        let mut delays = Delays::short();
        loop {
            let generation = self.expected_generation(append).await?;
            match self.attempt(&generation, append, deadline).await {
                Attempt::Done(outcome) => return outcome,
                // Nothing was stored: what is in the way may pass.
                Attempt::Again(error) if Instant::now() >= deadline => {
                    return Err(error);
                }
                Attempt::Again(_) => delays.wait().await,
            }
        }
    }

    /// The generation to append to. An expectation of another one than is known may be of a newer one.
    async fn expected_generation(
        &self,
        append: &Append,
    ) -> Result<Arc<Generation<LogSubjects>>, AppendError> {
        let known = self.log_generation();
        if append.expect.iter().all(|expected| expected.head.epoch.0 == known.number) {
            return Ok(known);
        }
        Box::pin(self.look_at_log()).await.map_err(AppendError::Backend)
    }

    fn check_size(&self, entries: &Entries) -> Result<(), AppendError> {
        let limits = self.limits();
        let over = |what, size, limit| AppendError::TooLarge(TooLarge { what, size, limit });
        if entries.len() > limits.max_batch {
            return Err(over("batch", entries.len(), limits.max_batch));
        }
        match entries.iter().find(|entry| entry.record.len() > limits.max_record) {
            Some(entry) => Err(over("record", entry.record.len(), limits.max_record)),
            None => Ok(()),
        }
    }

    /// Thousands of these wait at the same time, and what they hold is what the processor's caches have to hold: what is
    /// rarely done is boxed, here and in what is called from here.
    async fn attempt(
        &self,
        generation: &Arc<Generation<LogSubjects>>,
        append: &Append,
        deadline: Instant,
    ) -> Attempt {
        if append.expect.iter().any(|expected| expected.head.epoch.0 != generation.number) {
            let conflict = AppendError::Conflict { head: None };
            return Box::pin(self.unless_repeated(generation, append, conflict)).await;
        }
        let sent_at = generation.highest.load(Ordering::Acquire);
        let told = match &append.entries {
            Entries::One(entry) if append.expect.len() <= 1 => {
                let (expected, id) = (append.expect.first(), append.id.as_ref());
                let published = self.publish(generation, entry, expected, id, deadline);
                published.await.map(|answer| ack::read(&answer))
            }
            entries => {
                let batch = self.publish_batch(generation, entries, &append.expect, append.id.as_ref());
                Box::pin(batch).await.map(|answer| ack::read(&answer))
            }
        };
        let told = match told {
            Ok(told) => told,
            Err(Failed::NotSent(error)) => return Attempt::Done(Err(AppendError::Backend(error))),
            Err(Failed::Unknown(error) | Failed::Silent(error)) => {
                return Attempt::Done(Err(AppendError::MaybeCommitted(error)));
            }
            Err(Failed::NoResponders) => {
                return Box::pin(self.nobody_took(generation, append, deadline)).await;
            }
        };
        let count = append.entries.len();
        match told {
            // Almost always.
            Ok(stored) if is_plain(append) && !stored.duplicate && first_of(stored, count) > sent_at => {
                generation.highest.fetch_max(stored.sequence, Ordering::AcqRel);
                Attempt::Done(Ok(appended(generation, first_of(stored, count), count)))
            }
            told => Box::pin(self.judge(generation, append, sent_at, told)).await,
        }
    }

    /// Nobody listens to the generation's subjects: it is over, or its leader is away. Nothing was stored.
    async fn nobody_took(
        &self,
        generation: &Generation<LogSubjects>,
        append: &Append,
        deadline: Instant,
    ) -> Attempt {
        let no_leader = || unavailable("the event stream has no leader now");
        let looked = timeout_at(deadline, self.look_at_log()).await;
        match looked.unwrap_or_else(|_| Err(no_leader())) {
            Ok(present) if present.number != generation.number && !append.expect.is_empty() => {
                Attempt::Done(Err(AppendError::Conflict { head: None }))
            }
            Ok(_) => Attempt::later(no_leader()),
            Err(error) if error.kind() == ErrorKind::Unavailable => Attempt::later(error),
            Err(error) => Attempt::Done(Err(AppendError::Backend(error))),
        }
    }

    async fn judge(
        &self,
        generation: &Arc<Generation<LogSubjects>>,
        append: &Append,
        sent_at: u64,
        answer: Result<Stored, NotStored>,
    ) -> Attempt {
        match answer {
            Ok(stored) if stored.duplicate => {
                // Only a single publish is told where it was; there it is also the first.
                Attempt::Done(Ok(appended(generation, stored.sequence, append.entries.len())))
            }
            Ok(stored) => Attempt::Done(self.stored(generation, append, sent_at, stored).await),
            Err(NotStored::Garbled(error)) => Attempt::Done(Err(AppendError::MaybeCommitted(error))),
            Err(NotStored::Refused(refusal)) => Box::pin(self.refused(generation, append, refusal)).await,
        }
    }

    /// Sequences rise, so an ack that does not come after those known when it was asked for is of another log.
    async fn stored(
        &self,
        generation: &Arc<Generation<LogSubjects>>,
        append: &Append,
        sent_at: u64,
        stored: Stored,
    ) -> Result<Appended, AppendError> {
        let count = append.entries.len();
        let guards = Guards::count(&append.entries, &append.expect);
        if guards > 0 {
            // They have done their work; what is left of them is only in the way.
            let subject = generation.subjects.guard();
            let purge = api::purge(self.link(), self.stream(), &subject, Purge::Keep { keep: 0 });
            Box::pin(purge).await.ok();
        }
        generation.highest.fetch_max(stored.sequence, Ordering::AcqRel);
        let first = first_of(stored, count + guards);
        if first > sent_at {
            return Ok(appended(generation, first, count));
        }
        let present = Box::pin(self.look_at_log()).await.map_err(AppendError::MaybeCommitted)?;
        if present.number == generation.number {
            // Its servers were given an older copy of it. What it counts from there on is believed again.
            tracing::error!(sequence = first, sent_at, "the event stream has gone back to an older state");
            generation.highest.store(stored.sequence, Ordering::Release);
        }
        Ok(appended(&present, first, count))
    }

    async fn refused(
        &self,
        generation: &Arc<Generation<LogSubjects>>,
        append: &Append,
        refusal: Refusal,
    ) -> Attempt {
        match refusal.err_code {
            ack::WRONG_LAST_SEQUENCE => {
                let head = told_head(generation, append, &refusal);
                self.unless_repeated(generation, append, AppendError::Conflict { head }).await
            }
            ack::UNDECIDED_LAST_SEQUENCE => self.undecided(generation, append).await,
            ack::BATCH_HAS_DUPLICATE => {
                self.unless_repeated(generation, append, AppendError::Duplicate).await
            }
            ack::ID_ON_ITS_WAY => Attempt::Again(on_its_way(refusal)),
            ack::TOO_MANY_BATCHES | ack::BATCH_INCOMPLETE => {
                Attempt::later(unavailable("the append could not be stored now").with_source(refusal))
            }
            // It was on its way into the store, and others may have stored it.
            ack::STORE_FAILED => Attempt::Done(Err(AppendError::MaybeCommitted(refusal.into()))),
            _ if refusal.is_temporary() => Attempt::later(refusal.into()),
            _ => Attempt::Done(Err(AppendError::Backend(refusal.into()))),
        }
    }

    /// Another write to the subject is on its way. Once the head is another, the expectation has failed.
    async fn undecided(&self, generation: &Arc<Generation<LogSubjects>>, append: &Append) -> Attempt {
        for expected in &append.expect {
            match self.head_of(generation, &Selector::Key(expected.key.clone())).await {
                Ok(head) if head != expected.head.offset => {
                    let head = (append.expect.len() == 1).then_some(head_in(generation, head));
                    return self.unless_repeated(generation, append, AppendError::Conflict { head }).await;
                }
                Ok(_) => {}
                Err(error) => return Attempt::Done(Err(AppendError::Backend(error))),
            }
        }
        Attempt::later(unavailable("another append to the key is on its way"))
    }

    /// A repeat beats a failed expectation, which a server without replicas judges first.
    async fn unless_repeated(
        &self,
        generation: &Arc<Generation<LogSubjects>>,
        append: &Append,
        error: AppendError,
    ) -> Attempt {
        let Some(id) = &append.id else { return Attempt::Done(Err(error)) };
        let key = &append.entries[0].key;
        match self.recall(generation, key, id).await {
            Ok(Recalled::At(first)) => Attempt::Done(Ok(appended(generation, first, append.entries.len()))),
            Ok(Recalled::Never) => Attempt::Done(Err(error)),
            Ok(Recalled::OnItsWay(refusal)) => Attempt::Again(on_its_way(refusal)),
            Err(error) => Attempt::Done(Err(error)),
        }
    }
}

enum Attempt {
    Done(Result<Appended, AppendError>),
    /// This attempt stored nothing, and another may be luckier; the error is for when there is no time for one.
    Again(AppendError),
}

impl Attempt {
    fn later(error: BackendError) -> Self {
        Self::Again(AppendError::Backend(error))
    }
}

/// Somebody appends under the same id right now, or a leader that is gone once began to.
fn on_its_way(refusal: Refusal) -> AppendError {
    AppendError::MaybeCommitted(unavailable("an append of the same id is on its way").with_source(refusal))
}

/// Nothing is expected, and it will not be repeated.
fn is_plain(append: &Append) -> bool {
    append.expect.is_empty() && append.id.is_none()
}

/// Where so many messages begin, of which the last one is where an ack says.
fn first_of(stored: Stored, messages: usize) -> u64 {
    (stored.sequence + 1).saturating_sub(messages as u64)
}

fn appended(generation: &Generation<LogSubjects>, first: u64, count: usize) -> Appended {
    Appended { epoch: Epoch(generation.number), offsets: Offsets::Run { first: Offset(first), count } }
}

/// The server says which sequence was last; with several expectations it does not say whose.
fn told_head(generation: &Generation<LogSubjects>, append: &Append, refusal: &Refusal) -> Option<Head> {
    let told = refusal.description.rsplit(' ').next()?.parse().ok()?;
    (append.expect.len() == 1).then_some(head_in(generation, Offset(told)))
}

fn head_in(generation: &Generation<LogSubjects>, offset: Offset) -> Head {
    Head { epoch: Epoch(generation.number), offset }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::join_all};
    use via_backplane::{Entry, Family, Key};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(12);

    fn entries(count: usize, bytes: usize) -> Entries {
        let key = Key::of(&Family::new("posts").expect("a valid name"));
        Entries::Many(vec![Entry { key, record: vec![0; bytes].into() }; count])
    }

    #[tokio::test(start_paused = true)]
    async fn appends_in_flight_are_bounded_by_number_and_by_size() {
        // What is small by itself adds up.
        for (count, bytes, most) in [(1, 0, 8_192), (1, 8 << 10, 8_192), (1, 1 << 20, 64), (1_024, 1_000, 65)]
        {
            let (appender, _waiting) = Appender::new();
            let entries = entries(count, bytes);
            let turn = || appender.turn(&entries, PATIENCE);
            let turns = join_all((0..most).map(|_| turn())).now_or_never().expect("there is room for these");
            let waiting = turn().await.expect_err("there is room for no more");
            assert_eq!(waiting.retry(), via_backplane::Retry::Safe, "{waiting:?}");
            let mut turns = turns.into_iter();
            let leaving = async { drop(turns.next()) };
            let (next, ()) = tokio::join!(turn(), leaving);
            assert!(next.is_ok(), "there is room again");
        }
    }
}
