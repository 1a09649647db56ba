//! Handling a dead letter again.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::watch;

use super::{
    attempt::Begun,
    dead::{DeadLetters, GIVE_UP_WITHIN, Sink, give_up, raw},
    lease::Lease,
    letters::{Burial, Letter, Place, key_of},
    runner::Runner,
};
use crate::{Changes, Event, Stored, engine::retry::Delays, envelope};

/// Attempts of a letter whose consumer has no `max_attempts`.
const MAX_ATTEMPTS: u32 = 10;

/// The letters of a consumer that its owner handles again, one after the other, beside what it handles anyway.
pub(super) struct Redrives {
    leave: watch::Sender<Leave>,
    under_way: Option<BoxFuture<'static, ()>>,
    /// Letters that were dealt with, and that this pod still shows as wanted, with how often they were.
    settled: BTreeSet<(Place, u32)>,
    letters: Changes,
    /// The letters have changed since they were looked at.
    looks: bool,
    term: u64,
    /// The term of the owner before, if that went without a word.
    died: Option<u64>,
}

/// What an owner lets its attempts do.
#[derive(Debug, Clone, Copy)]
enum Leave {
    /// One may begin until then, by the pod's clock.
    Until(Duration),
    /// The owner's work is over: nothing begins any more.
    Over,
}

impl Redrives {
    pub(super) fn new<E: Event>(runner: &Runner<E>, lease: &Lease) -> Self {
        Self {
            leave: watch::Sender::new(Leave::Until(lease.begins_until())),
            under_way: None,
            settled: BTreeSet::new(),
            letters: runner.letters.state().changes(),
            looks: true,
            term: lease.cell().term,
            died: lease.displaced(),
        }
    }

    /// Attempts may begin until then.
    pub(super) fn may_begin_until(&self, until: Duration) {
        self.leave.send_replace(Leave::Until(until));
    }

    /// Nothing begins any more; what was begun ends.
    pub(super) fn end(&self) {
        self.leave.send_if_modified(|leave| !matches!(std::mem::replace(leave, Leave::Over), Leave::Over));
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// Takes up the next letter that is to be handled again, unless one is under way.
    pub(super) fn begin<E: Event>(&mut self, runner: &Runner<E>) {
        if !self.looks || self.under_way.is_some() {
            return;
        }
        self.looks = false;
        let Some(letters) = runner.letters.state().read() else { return };
        let named = |letter: &Letter| (letter.burial.place, letter.wanted);
        if !self.settled.is_empty() {
            let wanted: BTreeSet<_> = letters.wanted().map(named).collect();
            self.settled.retain(|letter| wanted.contains(letter));
        }
        let next = letters.wanted().find(|letter| !self.settled.contains(&named(letter)));
        let Some(letter) = next.cloned() else { return };
        self.settled.insert(named(&letter));
        let leave = self.leave.subscribe();
        let has_killed = letter.begun.is_some() && letter.begun == self.died;
        self.under_way = Some(if has_killed {
            suspect(runner, letter, leave)
        } else {
            redrive(runner, letter, self.term, leave)
        });
    }

    /// Waits until there may be another one to begin; cancel-safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            biased;
            () = async { self.under_way.as_mut().expect("checked").await }, if self.under_way.is_some() => {
                self.under_way = None;
            }
            true = self.letters.changed() => {}
            // The engine has stopped.
            else => std::future::pending().await,
        }
        self.looks = true;
    }
}

/// Handles a letter until it is handled or dead again, or the owner's work is over.
fn redrive<E: Event>(
    runner: &Runner<E>,
    letter: Letter,
    term: u64,
    leave: watch::Receiver<Leave>,
) -> BoxFuture<'static, ()> {
    let Burial { record, place, .. } = letter.burial.clone();
    let key = key_of(runner.selector.family(), &letter.burial);
    let mut attempts = runner.attempts();
    let mut begin = move |attempt| {
        let key = match &key {
            Ok(key) => key,
            Err(error) => return Begun::Undecodable(error.to_string()),
        };
        let stored = Stored { offset: place.offset, key, bytes: &record.0 };
        attempts.begin(&stored, attempt, term)
    };
    let most = runner.options.max_attempts.map_or(MAX_ATTEMPTS, std::num::NonZeroU32::get);
    let (letters, sink, core) = (runner.letters.clone(), runner.options.sink.clone(), runner.core.clone());
    let (options, metrics) = (runner.options.clone(), runner.metrics.clone());
    let mut leave = leave;
    async move {
        // If it kills this process, whoever is next knows what it was.
        until_told(&mut leave, core.ambient.seed(), || letters.begin(place, term)).await;
        let now = || core.ambient.monotonic.now();
        for attempt in 1.. {
            if !may_begin(&mut leave, now).await {
                return;
            }
            let outcome = match begin(attempt) {
                Begun::Ended(outcome) => outcome,
                Begun::Runs(attempt) => attempt.await,
                Begun::Undecodable(cause) => Err(cause),
                Begun::Newer(problem) => Err(format!("it takes a newer binary: {problem:?}")),
            };
            let Err(cause) = outcome else {
                metrics.handled.increment(1);
                return until_told(&mut leave, core.ambient.seed(), || letters.settle(place)).await;
            };
            metrics.errors.increment(1);
            if attempt >= most {
                return bury_again(&letters, sink.as_ref(), &letter, cause, attempt, &mut leave, &core).await;
            }
            let delay = options.retry_after(attempt, core.ambient.seed());
            tokio::select! {
                biased;
                () = over(&mut leave) => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }
    .boxed()
}

/// Buries a letter again which an owner was handling when it died.
fn suspect<E: Event>(
    runner: &Runner<E>,
    letter: Letter,
    leave: watch::Receiver<Leave>,
) -> BoxFuture<'static, ()> {
    let (letters, sink, core) = (runner.letters.clone(), runner.options.sink.clone(), runner.core.clone());
    let mut leave = leave;
    async move {
        let cause = "a pod died while it was handled again".to_owned();
        bury_again(&letters, sink.as_ref(), &letter, cause, 1, &mut leave, &core).await;
    }
    .boxed()
}

async fn bury_again(
    letters: &DeadLetters,
    sink: Option<&Sink>,
    letter: &Letter,
    cause: String,
    attempts: u32,
    leave: &mut watch::Receiver<Leave>,
    core: &crate::engine::Core,
) {
    let last_failed = envelope::micros(core.ambient.clock.now());
    let record = raw(&letter.burial.record.0);
    let burial =
        Burial { record, cause, attempts, last_failed, wanted: letter.wanted, ..letter.burial.clone() };
    until_told(leave, core.ambient.seed(), || give_up(letters, sink, burial.clone())).await;
}

/// Waits until an attempt may begin; `false` if none will.
async fn may_begin(leave: &mut watch::Receiver<Leave>, now: impl Fn() -> Duration) -> bool {
    let decided = leave.wait_for(|leave| match leave {
        Leave::Until(until) => now() < *until,
        Leave::Over => true,
    });
    decided.await.is_ok_and(|leave| matches!(*leave, Leave::Until(_)))
}

/// Waits until the owner's work is over.
async fn over(leave: &mut watch::Receiver<Leave>) {
    leave.wait_for(|leave| matches!(leave, Leave::Over)).await.ok(); // Else the owner is gone, which is the same.
}

/// Writes until it is written; once more at most when the owner's work is over: whoever is next finds it as it was, and does it
/// again.
async fn until_told<E: std::fmt::Debug, Fut: Future<Output = Result<(), E>>>(
    leave: &mut watch::Receiver<Leave>,
    seed: u64,
    tell: impl Fn() -> Fut,
) {
    let mut delays = Delays::new(Duration::from_millis(20), Duration::from_secs(5), seed);
    loop {
        match tokio::time::timeout(GIVE_UP_WITHIN, tell()).await {
            Ok(Ok(())) => return,
            told => tracing::warn!(?told, "a dead letter could not be written; trying again"),
        }
        tokio::select! {
            biased;
            () = over(leave) => return,
            () = delays.wait() => {}
        }
    }
}
