//! What an owner does: take records, have them handled, commit (PROTOCOL §5).
//!
//! One task per consumer does all of it, handlers included: it holds the lease, so whatever stops it stops them. Its steps are
//! synchronous; only [`Owner::work`] awaits.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::timeout;

use super::{
    attempt::{Attempts, Begun, Outcome},
    cell::ConsumerCell,
    dead::{GIVE_UP_WITHIN, give_up, raw},
    lease::{Lease, Lost},
    letters::{Burial, Place},
    options::Options,
    redrive::Redrives,
    runner::Runner,
    source::{Replaced, Source, Taken},
    standing::Block,
    window::{SlotId, Window},
};
use crate::{
    Change, Epoch, Event, Head, Offset, Watch,
    engine::{
        control::Moved,
        decode::{Problem, decode},
        glance::Glance,
        retry::Delays,
        supervisor::Stop,
    },
    envelope::{self, Envelope},
};

/// How long attempts that end at once may take together before other tasks of this thread get their turn.
const TURN: Duration = Duration::from_micros(100);
/// How often an owner moves its pin on, and looks how far it is behind. It lets go of its tail where a batch lasts for longer.
const UPKEEP: Duration = Duration::from_secs(5);
/// A consumer that lags and has committed nothing for so long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// Failures of one record after which somebody is told aloud.
const LOUD_AFTER: u32 = 10;
/// How much of a failure is written down, in characters.
const MAX_CAUSE: usize = 256;

/// An owner of a consumer, at work.
pub(super) struct Owner<'a, E> {
    runner: &'a Runner<E>,
    attempts: Attempts<E>,
    /// Away while it is being written.
    lease: Option<Lease>,
    writing: Option<BoxFuture<'static, Written>>,
    begins_until: Duration,
    renews_at: Duration,
    /// When to write, whatever else there is: somebody seems to have changed the cell, or a write came to nothing.
    writes_at: Option<Duration>,
    write_delays: Delays,
    watch: Option<Watch>,
    reading: Reading,
    /// What is left of the last batch.
    taken: Option<Taken>,
    /// A batch has come since the last upkeep.
    has_read: bool,
    window: Window,
    running: FuturesUnordered<BoxFuture<'static, (SlotId, Outcome)>>,
    /// Those that are being given up.
    burying: FuturesUnordered<BoxFuture<'static, (SlotId, Outcome)>>,
    /// Records to be handled one by one: those that an owner which died may have begun.
    suspects: usize,
    /// Everything up to here is committed.
    committed: Offset,
    /// What was written since, and not acknowledged: how many records more, and up to where.
    sent: Vec<(usize, Offset)>,
    /// The cell as it was taken over: it says what owners before this one have attempted.
    before: ConsumerCell,
    /// No record was taken yet.
    is_fresh: bool,
    /// When the first record was handled that is not committed.
    handled_since: Option<Duration>,
    upkeep: BoxFuture<'static, Kept>,
    over: Option<Over>,
    /// Where it was when it got on last, or had nothing to do, and when that was.
    got_on: (Offset, Duration),
    /// When this turn of its loop began.
    turn_began: Duration,
    glance: Glance,
    /// What was handled and is not in the metrics yet.
    handled: u64,
    shown_attempts: u32,
    redrives: Redrives,
}

enum Reading {
    Rests(Box<Source>),
    Waits(BoxFuture<'static, (Source, Result<Taken, Replaced>)>),
    Ended,
}

struct Written {
    lease: Lease,
    records: usize,
    outcome: Result<(), Lost>,
}

/// What an owner has learned of its family.
enum Kept {
    Head(Head),
    /// Its pin is not where it has to be.
    PinLost,
    Unknown,
}

/// Why an owner's work is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Over {
    /// Somebody else holds the consumer, or there is none any more.
    Deposed,
    /// What the cell says is to be looked at again.
    Again,
    Stopped,
    /// Another pod should run it.
    Asked,
    Blocked(Block),
}

impl<'a, E: Event> Owner<'a, E> {
    pub(super) fn new(runner: &'a Runner<E>, lease: Lease, watch: Option<Watch>) -> Self {
        let committed = lease.cell().committed();
        let source = Source::new(runner.core.clone(), runner.selector.clone(), committed, runner.seat.name());
        Self {
            attempts: runner.attempts(),
            begins_until: lease.begins_until(),
            renews_at: lease.renews_at(),
            suspects: lease.cell().suspects() as usize,
            committed: committed.offset,
            sent: Vec::new(),
            writing: None,
            writes_at: None,
            write_delays: Delays::new(
                Duration::from_millis(20),
                Duration::from_secs(2),
                runner.core.ambient.seed(),
            ),
            watch,
            reading: Reading::Rests(Box::new(source)),
            taken: None,
            has_read: false,
            window: Window::new(committed.epoch, runner.options.spread()),
            running: FuturesUnordered::new(),
            burying: FuturesUnordered::new(),
            before: lease.cell().clone(),
            is_fresh: true,
            handled_since: None,
            upkeep: upkeep(runner, committed.head(), Duration::ZERO),
            over: None,
            got_on: (committed.offset, runner.place.now()),
            turn_began: runner.place.now(),
            glance: Glance::default(),
            handled: 0,
            shown_attempts: u32::MAX,
            redrives: Redrives::new(runner, &lease),
            lease: Some(lease),
            runner,
        }
    }

    /// Works until something ends it; answers the lease, unless it was lost.
    pub(super) async fn work(mut self, stop: &Stop) -> (Option<Lease>, Over) {
        loop {
            self.turn_began = self.glance.read(&*self.runner.core.ambient.monotonic);
            let has_more = self.begin_attempts();
            match self.over {
                None => self.redrives.begin(self.runner),
                Some(_) => self.redrives.end(),
            }
            self.show();
            self.write_what_is_due();
            if let Some(ended) = self.ended() {
                return ended;
            }
            // A log that always has more must not keep other tasks of this thread from running.
            tokio::task::coop::consume_budget().await;
            let next = self.next_deadline();
            let now = self.now();
            tokio::select! {
                biased;
                () = stop.cancelled(), if self.over.is_none() => self.over = Some(Over::Stopped),
                () = self.runner.seat.asked(), if self.over.is_none() => self.over = Some(Over::Asked),
                written = async { self.writing.as_mut().expect("checked").await }, if self.writing.is_some() => {
                    self.writing = None;
                    self.written(written);
                }
                Some((id, outcome)) = self.running.next(), if !self.running.is_empty() => self.attempted(id, outcome),
                Some((id, outcome)) = self.burying.next(), if !self.burying.is_empty() => self.buried(id, outcome),
                () = self.redrives.next() => {}
                taken = self.reading.next(), if self.taken.is_none() && self.over.is_none() => match taken {
                    Ok(taken) => (self.taken, self.has_read) = (Some(taken), true),
                    Err(Replaced) => self.over = Some(Over::Blocked(Block::Replaced)),
                },
                change = async { self.watch.as_mut().expect("checked").next().await }, if self.watch.is_some() => {
                    self.heard(change);
                }
                kept = &mut self.upkeep => self.keep(kept),
                () = tokio::task::yield_now(), if has_more => {}
                () = tokio::time::sleep(next.saturating_sub(now)), if !has_more => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.runner.place.now()
    }

    fn options(&self) -> &'a Options {
        &self.runner.options
    }

    /// Begins what can be begun, until something else has its turn; answers whether there may be more.
    fn begin_attempts(&mut self) -> bool {
        let mut now = self.turn_began;
        loop {
            let Some(concurrency) = self.may_begin(now) else { return false };
            let has_begun = if self.window.is_clear() {
                self.begin_first()
            } else {
                self.take();
                let next = self.window.start_next(now, concurrency);
                next.map(|id| self.begin(id)).is_some()
            };
            if !has_begun {
                return false;
            }
            let commits =
                self.lease.is_some() && self.window.handled_first() >= self.options().commit_records;
            now = self.glance.look(&*self.runner.core.ambient.monotonic);
            if commits || now >= self.turn_began + TURN {
                return true;
            }
        }
    }

    /// How many attempts may run at a time, if one may begin now.
    fn may_begin(&self, now: Duration) -> Option<usize> {
        // It may be a little later than a glance tells.
        let is_late = now + Glance::BEHIND >= self.begins_until;
        let is_late = is_late && self.runner.core.ambient.rules().begin_within_lease;
        if self.over.is_some() || is_late {
            return None;
        }
        if self.suspects == 0 {
            return Some(self.options().concurrency);
        }
        // One by one, each committed before the next: if one of them kills this process, it is the first.
        (self.writing.is_none() && self.window.handled_first() == 0).then_some(1)
    }

    /// Begins with the next record of the log, where everything before it is handled: if its handler ends at once and well, the window
    /// only counts it. Answers whether there was one.
    fn begin_first(&mut self) -> bool {
        if !self.window.has_room() {
            return false;
        }
        let options = self.options();
        let Some(taken) = &mut self.taken else { return false };
        let Some((at, record)) = taken.next() else {
            self.taken = None;
            return false;
        };
        let offset = record.offset;
        let attempts = self.before.attempts(offset, self.is_fresh);
        self.is_fresh = false;
        let begun = (!options.is_exhausted(attempts))
            .then(|| self.attempts.begin(&record, attempts.saturating_add(1), self.before.term));
        if let Some(Begun::Ended(Ok(()))) = begun {
            self.window.push_handled(&taken.batch, at, offset);
            self.handled += 1;
            self.handled_since.get_or_insert(self.turn_began);
            return true;
        }
        let id = self.window.push_begun(&taken.batch, at, offset, attempts);
        match begun {
            Some(begun) => self.begun(id, begun),
            None => self.give_up(id),
        }
        true
    }

    /// Moves what there is room for from the batch into the window.
    fn take(&mut self) {
        while self.window.has_room()
            && let Some(taken) = &mut self.taken
        {
            let Some((at, offset)) = taken.next().map(|(at, record)| (at, record.offset)) else {
                self.taken = None;
                return;
            };
            let attempts = self.before.attempts(offset, self.is_fresh);
            self.is_fresh = false;
            self.window.push(&taken.batch, at, offset, attempts);
        }
    }

    fn begin(&mut self, id: SlotId) {
        let slot = self.window.slot(id);
        if slot.is_given_up || self.options().is_exhausted(slot.attempts) {
            return self.give_up(id);
        }
        let begun = self.attempts.begin(&slot.record(), slot.attempts.saturating_add(1), self.before.term);
        self.begun(id, begun);
    }

    fn begun(&mut self, id: SlotId, begun: Begun) {
        match begun {
            Begun::Ended(outcome) => self.attempted(id, outcome),
            Begun::Runs(attempt) => self.running.push(async move { (id, attempt.await) }.boxed()),
            Begun::Newer(_) => self.window.blocks(id),
            Begun::Undecodable(cause) => {
                self.runner.metrics.undecodable.increment(1);
                self.window.failed(id, cause, self.runner.core.ambient.clock.now());
                self.give_up(id);
            }
        }
    }

    fn attempted(&mut self, id: SlotId, outcome: Outcome) {
        match outcome {
            Ok(()) => {
                self.handled += 1;
                self.handled(id);
            }
            Err(cause) => {
                let cause: String = cause.chars().take(MAX_CAUSE).collect();
                let attempts = self.window.slot(id).attempts.saturating_add(1);
                self.tell(id, attempts, &cause);
                self.window.failed(id, cause, self.runner.core.ambient.clock.now());
                if self.options().is_exhausted(attempts) {
                    return self.give_up(id);
                }
                self.window.rests(id, self.now() + self.delay(attempts));
            }
        }
    }

    fn buried(&mut self, id: SlotId, outcome: Outcome) {
        match outcome {
            Ok(()) => {
                let slot = self.window.slot(id);
                let (consumer, attempts, cause) = (&self.runner.name, slot.attempts, slot.cause());
                let (key, offset) = (slot.record().key, slot.record().offset);
                tracing::error!(%consumer, %key, %offset, attempts, cause, "an event was given up; it is among the dead letters");
                self.runner.metrics.dead_lettered.increment(1);
                self.handled(id);
            }
            Err(error) => {
                tracing::error!(consumer = %self.runner.name, error, "an event could not be given up; trying again");
                self.window.rests(id, self.now() + self.delay(LOUD_AFTER));
            }
        }
    }

    fn handled(&mut self, id: SlotId) {
        self.window.handled(id);
        self.handled_since.get_or_insert(self.turn_began);
    }

    fn show(&mut self) {
        let attempts = self.window.first_open().map_or(0, |slot| slot.attempts);
        if std::mem::replace(&mut self.shown_attempts, attempts) != attempts {
            self.runner.metrics.attempts.set(f64::from(attempts));
        }
        if self.handled > 0 {
            self.runner.metrics.handled.increment(std::mem::take(&mut self.handled));
        }
    }

    fn delay(&self, failures: u32) -> Duration {
        self.options().retry_after(failures, self.runner.core.ambient.seed())
    }

    /// Has an event written to the dead letters. What it is about counts as handled once that is done, and not before.
    fn give_up(&mut self, id: SlotId) {
        self.window.gives_up(id);
        let slot = self.window.slot(id);
        let record = slot.record();
        let now = self.runner.core.ambient.clock.now();
        let cause = match slot.cause() {
            "" => self.before.error().unwrap_or("a pod died while it was handled"),
            cause => cause,
        };
        let rules = self.runner.core.ambient.rules();
        let epoch =
            if rules.know_letters_by_place { self.window.epoch() } else { Epoch(self.runner.core.id) };
        let burial = Burial {
            place: Place::new(epoch, record.offset),
            instance: record.key.instance_name().map(str::to_owned),
            record: raw(record.bytes),
            attempts: slot.attempts,
            cause: cause.to_owned(),
            first_failed: envelope::micros(slot.first_failed().unwrap_or(now)),
            last_failed: envelope::micros(now),
            wanted: 0,
        };
        let (letters, sink) = (self.runner.letters.clone(), self.options().sink.clone());
        self.burying.push(async move { (id, give_up(&letters, sink.as_ref(), burial).await) }.boxed());
    }

    fn tell(&self, id: SlotId, attempts: u32, cause: &str) {
        self.runner.metrics.errors.increment(1);
        let (consumer, record) = (&self.runner.name, self.window.slot(id).record());
        let (key, offset) = (record.key, record.offset);
        if attempts == LOUD_AFTER {
            tracing::warn!(%consumer, %key, %offset, attempts, cause, "a handler keeps failing; it is tried until it does not");
        } else {
            tracing::debug!(%consumer, %key, %offset, attempts, cause, "a handler failed");
        }
    }

    /// Writes what was handled, or renews the lease, if it is time for either.
    fn write_what_is_due(&mut self) {
        let now = self.now();
        if self.lease.is_none() || !self.is_write_due(now) {
            return;
        }
        let lease = self.lease.take().expect("checked");
        let (records, to) = match self.window.committable() {
            Some((records, to)) => (records, Some(to)),
            None => (0, None),
        };
        if let Some(to) = to
            && self.sent.last().is_none_or(|(before, _)| *before < records)
        {
            self.sent.push((records, to.offset));
        }
        let suspects = self.suspects.saturating_sub(records);
        let spread = (suspects == 0).then_some(self.runner.place.spread);
        let last = self.window.last();
        let attempted: Vec<_> = self.window.attempted().collect();
        let cause = self.window.first_open().map_or_else(String::new, |slot| slot.cause().to_owned());
        self.writes_at = None;
        self.handled_since = None;
        let write = async move {
            let mut lease = lease;
            let edit = |cell: &mut ConsumerCell| {
                if let Some(to) = to {
                    cell.commit(to);
                }
                if let Some(last) = last {
                    cell.note_attempts(attempted, last, &cause);
                }
                if let Some(spread) = spread {
                    cell.spread = spread;
                }
            };
            let outcome = lease.write(edit).await;
            Written { lease, records, outcome }
        };
        self.writing = Some(write.boxed());
    }

    fn is_write_due(&self, now: Duration) -> bool {
        if let Some(at) = self.writes_at {
            return at <= now;
        }
        let handled = self.window.handled_first();
        let is_full = !self.window.has_room()
            && self.running.is_empty()
            && self.burying.is_empty()
            && !self.window.can_start(now, self.options().concurrency);
        let is_old = self.handled_since.is_some_and(|since| since + self.options().commit_time <= now);
        let commits = handled >= self.options().commit_records
            || (handled > 0 && (is_full || is_old || self.suspects > 0 || self.over.is_some()));
        commits || self.renews_at <= now
    }

    fn written(&mut self, written: Written) {
        let Written { lease, records, outcome } = written;
        match outcome {
            Ok(()) => {
                self.window.committed(records);
                self.sent.clear();
                self.suspects = self.suspects.saturating_sub(records);
                self.write_delays.reset();
                self.runner.metrics.commits.increment(u64::from(records > 0));
            }
            Err(Lost::Deposed) => {
                self.over = Some(Over::Deposed);
                return;
            }
            Err(Lost::Changed) => self.adopt(&lease),
            Err(Lost::Unreached(error)) => {
                tracing::debug!(consumer = %self.runner.name, %error, "a commit was not acknowledged");
                self.writes_at = Some(self.now() + self.write_delays.next());
                self.handled_since = (self.window.handled_first() > 0).then(|| self.now());
            }
        }
        self.committed = lease.cell().committed().offset;
        self.runner.board.committed(self.committed);
        (self.begins_until, self.renews_at) = (lease.begins_until(), lease.renews_at());
        if self.over.is_none() && !lease.cell().is_active() {
            self.over = Some(Over::Again);
        }
        if self.over.is_none() {
            self.redrives.may_begin_until(lease.begins_until());
        }
        self.lease = Some(lease);
    }

    /// Somebody has changed the cell, or a write landed whose answer was lost: either says how far everything is committed.
    fn adopt(&mut self, lease: &Lease) {
        let committed = lease.cell().committed().head();
        let here = std::iter::once((0, self.committed)).chain(self.sent.iter().copied());
        let known =
            here.filter(|_| committed.epoch == self.window.epoch()).find(|(_, to)| *to == committed.offset);
        if let Some((known, _)) = known {
            self.window.committed(known);
            self.sent.clear();
            self.writes_at = Some(self.now());
        } else {
            // It was told to go on elsewhere.
            self.over = Some(Over::Again);
            self.window.abandon();
        }
    }

    /// The cell was written. What this owner has not written itself it finds out by writing.
    fn heard(&mut self, change: Option<Result<Change, crate::BackendError>>) {
        match change {
            Some(Ok(Change::Put { rev, .. })) => {
                if self.lease.as_ref().is_some_and(|lease| rev > lease.rev()) {
                    self.writes_at = Some(self.now());
                }
            }
            Some(Ok(Change::Begin | Change::End)) => {}
            Some(Ok(_)) => self.writes_at = Some(self.now()),
            // Renewing finds out as well, a third of a lease later.
            Some(Err(_)) | None => self.watch = None,
        }
    }

    fn keep(&mut self, kept: Kept) {
        match kept {
            Kept::Head(head) => {
                let behind = head.offset.0.saturating_sub(self.committed.0);
                self.runner.metrics.lag_events.set(behind as f64);
                self.show_age();
                let now = self.now();
                if behind == 0 || self.got_on.0 != self.committed {
                    self.got_on = (self.committed, now);
                }
                self.runner.seat.is_stuck(now - self.got_on.1 >= STUCK_AFTER);
            }
            Kept::PinLost if self.over.is_none() => self.over = Some(Over::Again),
            Kept::PinLost | Kept::Unknown => {}
        }
        if !std::mem::take(&mut self.has_read) {
            self.reading.let_go();
        }
        let committed = Head { epoch: self.window.epoch(), offset: self.committed };
        self.upkeep = upkeep(self.runner, committed, UPKEEP);
    }

    /// How old the first event is that was not handled.
    fn show_age(&self) {
        let first = self.window.first_open().and_then(|slot| Envelope::decode(slot.record().bytes).ok());
        let appended = first.map(|envelope| envelope::system_time(envelope.time));
        let now = self.runner.core.ambient.clock.now();
        let age = appended.and_then(|appended| now.duration_since(appended).ok()).unwrap_or_default();
        self.runner.metrics.lag_seconds.set(age.as_secs_f64());
    }

    /// Whether everything that was begun has ended, once this owner's work is over.
    fn ended(&mut self) -> Option<(Option<Lease>, Over)> {
        if self.over == Some(Over::Deposed) {
            return Some((None, Over::Deposed));
        }
        if self.over.is_none()
            && self.running.is_empty()
            && self.burying.is_empty()
            && let Some(slot) = self.window.blocked()
        {
            self.over = Some(Over::Blocked(newer::<E>(slot)));
        }
        let is_done = self.running.is_empty()
            && self.redrives.is_idle()
            && self.writing.is_none()
            && self.window.handled_first() == 0;
        if self.over.is_none() || !is_done {
            return None;
        }
        Some((self.lease.take(), self.over.clone()?))
    }

    /// When something is due that nobody tells of. Nothing is, that could not be done now: whoever waits for it would not rest.
    fn next_deadline(&self) -> Duration {
        let now = self.now();
        let has_room = self.may_begin(now).is_some_and(|concurrency| self.window.running() < concurrency);
        let retry = self.window.next_retry().filter(|_| has_room);
        let writes = match self.writes_at {
            _ if self.writing.is_some() => None,
            Some(at) => Some(at),
            None => {
                let commit = self.handled_since.filter(|_| self.window.handled_first() > 0);
                let commit = commit.map_or(Duration::MAX, |since| since + self.options().commit_time);
                Some(commit.min(self.renews_at))
            }
        };
        [retry, writes].into_iter().flatten().min().unwrap_or(Duration::MAX)
    }
}

impl Reading {
    /// Whoever waits for records keeps waiting.
    fn let_go(&mut self) {
        if let Self::Rests(source) = self {
            source.let_go();
        }
    }

    /// The next records; cancel-safe.
    async fn next(&mut self) -> Result<Taken, Replaced> {
        if matches!(self, Self::Rests(_))
            && let Self::Rests(source) = std::mem::replace(self, Self::Ended)
        {
            *self = Self::Waits(source.next().boxed());
        }
        let Self::Waits(next) = self else { return std::future::pending().await };
        let (source, taken) = next.await;
        *self = if taken.is_ok() { Self::Rests(Box::new(source)) } else { Self::Ended };
        taken
    }
}

/// What it takes to decode a record that this pod cannot.
fn newer<E: Event>(slot: &super::window::Slot) -> Block {
    match decode::<E>(&slot.record()) {
        Err(Problem::Newer { name, version }) => Block::Newer { name, version },
        Err(Problem::Unknown { name }) => Block::Newer { name, version: 0 },
        _ => unreachable!("what blocks is of a newer binary"),
    }
}

/// Moves the pin on to what is committed, and asks how far the log is; drops dead letters that are too old.
fn upkeep<E>(runner: &Runner<E>, committed: Head, after: Duration) -> BoxFuture<'static, Kept> {
    let (control, name) = (runner.control.clone(), runner.name.clone());
    let (core, selector) = (runner.core.clone(), runner.selector.clone());
    let expiry = runner.options.letters_last.map(|last| (last, runner.letters.clone()));
    let expired = runner.metrics.expired.clone();
    async move {
        tokio::time::sleep(after).await;
        if let Some((last, letters)) = expiry
            && let Some(before) = core.ambient.clock.now().checked_sub(last)
        {
            match timeout(GIVE_UP_WITHIN, letters.expire(before)).await {
                Ok(Ok(0)) => {}
                Ok(Ok(letters)) => {
                    tracing::warn!(consumer = %name, letters, "dead letters were dropped: they are older than they may be");
                    expired.increment(letters as u64);
                }
                failed => tracing::debug!(consumer = %name, ?failed, "dead letters that are too old are still there"),
            }
        }
        match control.advance(&name, committed).await {
            Ok(Moved::Pinned(_)) => {}
            Ok(_) => return Kept::PinLost,
            Err(_) => return Kept::Unknown,
        }
        core.backplane.log().head(&selector).await.map_or(Kept::Unknown, Kept::Head)
    }
    .boxed()
}
