//! Handling a dead letter again.

use std::time::Duration;

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::watch;

use super::{
    attempt::{Ended, attempt_of},
    dead::{DeadLetters, Sink, give_up, raw},
    delivery::Delivery,
    letters::{Burial, Letter, key_of},
    runner::Runner,
};
use crate::{
    Event, Stored,
    engine::{decode::decode, retry::Delays},
    envelope,
};

/// Attempts of a letter whose consumer has no `max_attempts`.
const MAX_ATTEMPTS: u32 = 10;

/// What an owner lets its attempts do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leave {
    /// Until when one may begin, by the pod's clock.
    pub(super) until: Duration,
    /// The owner's work is over: nothing begins any more.
    pub(super) is_over: bool,
}

/// Handles a letter until it is handled or dead again, or the owner's work is over.
pub(super) fn redrive<E: Event>(
    runner: &Runner<E>,
    letter: Letter,
    term: u64,
    leave: watch::Receiver<Leave>,
) -> BoxFuture<'static, ()> {
    let Burial { record, place, .. } = letter.burial.clone();
    let key = key_of(runner.selector.family(), &letter.burial);
    let make = {
        let (context, record) = (runner.attempts(), record.clone());
        move |attempt| {
            let key = key.clone().map_err(|error| error.to_string())?;
            let stored = Stored { offset: place.offset, key: &key, bytes: &record.0 };
            let decoded = decode::<E>(&stored).map_err(|problem| format!("{problem:?}"))?;
            let trace = envelope::Envelope::decode(&record.0).ok().and_then(|envelope| envelope.trace);
            let delivery = Delivery {
                event: decoded.event,
                key: key.clone(),
                offset: place.offset,
                id: decoded.at.id(),
                time: decoded.at.time(),
                attempt,
                term,
                trace,
            };
            Ok::<_, String>(attempt_of(&context, delivery))
        }
    };
    let most = runner.options.max_attempts.map_or(MAX_ATTEMPTS, std::num::NonZeroU32::get);
    let (letters, sink, core) = (runner.letters.clone(), runner.options.sink.clone(), runner.core.clone());
    let (options, metrics) = (runner.options.clone(), runner.metrics.clone());
    let mut leave = leave;
    async move {
        let now = || core.ambient.monotonic.now();
        for attempt in 1.. {
            if !may_begin(&mut leave, now).await {
                return;
            }
            let outcome = match make(attempt) {
                Ok(Ended::Now(outcome)) => outcome,
                Ok(Ended::Later(attempt)) => attempt.await,
                Err(cause) => Err(cause),
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
                _ = leave.wait_for(|leave| leave.is_over) => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }
    .boxed()
}

/// Buries a letter again that may have been the death of an owner.
pub(super) fn suspect<E: Event>(
    runner: &Runner<E>,
    letter: Letter,
    leave: watch::Receiver<Leave>,
) -> BoxFuture<'static, ()> {
    let (letters, sink, core) = (runner.letters.clone(), runner.options.sink.clone(), runner.core.clone());
    let mut leave = leave;
    async move {
        let cause = "a pod died that may have been handling it again".to_owned();
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
    let may = leave.wait_for(|leave| leave.is_over || now() < leave.until).await;
    may.is_ok_and(|leave| !leave.is_over)
}

/// Writes until it is written, or the owner's work is over.
async fn until_told<E: std::fmt::Debug, Fut: Future<Output = Result<(), E>>>(
    leave: &mut watch::Receiver<Leave>,
    seed: u64,
    tell: impl Fn() -> Fut,
) {
    let mut delays = Delays::new(Duration::from_millis(20), Duration::from_secs(5), seed);
    let telling = async {
        while let Err(error) = tell().await {
            tracing::warn!(?error, "a dead letter could not be written; trying again");
            delays.wait().await;
        }
    };
    tokio::select! {
        biased;
        // Whoever is next finds it as it was, and does it again.
        _ = leave.wait_for(|leave| leave.is_over) => {}
        () = telling => {}
    }
}
