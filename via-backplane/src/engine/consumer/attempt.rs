//! One run of a handler, and how it ends.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use metrics::Histogram;

use super::{delivery::Delivery, runner::Handler};
use crate::{
    Event,
    engine::{Core, supervisor},
    error::described,
};

/// Of handlers that end without waiting, one in this many is timed: two clock reads would cost more than such a one.
const TIMED_ONE_IN: u32 = 64;

/// How it ended: well, or why not.
pub(super) type Outcome = Result<(), String>;

/// What it takes to run a handler.
#[derive(Clone)]
pub(super) struct Attempts<E> {
    pub(super) core: Core,
    pub(super) handler: Handler<E>,
    pub(super) at_most: Duration,
    pub(super) seconds: Histogram,
}

/// A run of a handler.
pub(super) enum Ended {
    Now(Outcome),
    Later(BoxFuture<'static, Outcome>),
}

/// One run of the handler: a panic and a timeout are failures like any other.
///
/// It is polled here once, so that one that ends without waiting needs neither a timer nor a place in a queue; one that waits is polled
/// once more than it must be.
pub(super) fn attempt_of<E: Event>(attempts: &Attempts<E>, delivery: Delivery<E>) -> Ended {
    let at_most = attempts.at_most;
    let is_timed = attempts.core.times_this_one(TIMED_ONE_IN);
    let started = is_timed.then(|| (attempts.seconds.clone(), tokio::time::Instant::now()));
    let time = |started: Option<(Histogram, tokio::time::Instant)>| {
        if let Some((seconds, started)) = started {
            seconds.record(started.elapsed().as_secs_f64());
        }
    };
    let handler = &attempts.handler;
    // Calling it runs the user's code as well.
    let begun = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut handling = handler(delivery);
        match (&mut handling).now_or_never() {
            Some(outcome) => Ok(outcome),
            None => Err(handling),
        }
    }));
    match begun {
        Ok(Ok(outcome)) => {
            time(started);
            Ended::Now(outcome.map_err(|error| described(&*error)))
        }
        Ok(Err(handling)) => Ended::Later(
            async move {
                let handled = tokio::time::timeout(at_most, AssertUnwindSafe(handling).catch_unwind()).await;
                time(started);
                match handled {
                    Ok(Ok(outcome)) => outcome.map_err(|error| described(&*error)),
                    Ok(Err(panic)) => Err(panicked(&*panic)),
                    Err(_) => Err(format!("the handler did not end within {at_most:?}")),
                }
            }
            .boxed(),
        ),
        Err(panic) => Ended::Now(Err(panicked(&*panic))),
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    format!("the handler panicked: {}", supervisor::message(panic))
}
