//! One run of a handler, and how it ends.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use metrics::Histogram;
use tokio_util::sync::ReusableBoxFuture;

use super::delivery::Delivery;
use crate::{
    BoxError, Event, Stored,
    engine::{
        Core,
        decode::{Problem, Undecodable, open},
        supervisor,
    },
    envelope,
    error::described,
};

/// Of handlers that end without waiting, one in this many is timed: two clock reads would cost more than such a one.
const TIMED_ONE_IN: u32 = 64;

/// What handles an event: a run of it is begun in the place it is given, and polled once.
pub(super) type Handler<E> = Arc<dyn Fn(Delivery<E>, &mut Spare) -> Poll<Handled> + Send + Sync>;

/// What a handler answers.
pub(super) type Handled = Result<(), BoxError>;

/// How a run ended: well, or why not.
pub(super) type Outcome = Result<(), String>;

/// The memory that runs of a handler have one after the other, for as long as they end without waiting.
#[derive(Default)]
pub(super) struct Spare(Option<ReusableBoxFuture<'static, Handled>>);

/// What it takes to run a handler.
pub(super) struct Attempts<E> {
    core: Core,
    handler: Handler<E>,
    at_most: Duration,
    seconds: Histogram,
    spare: Spare,
}

/// What became of an attempt so far.
pub(super) enum Begun {
    Ended(Outcome),
    Runs(BoxFuture<'static, Outcome>),
    /// The record's bytes are not what they should be, and never will be.
    Undecodable(String),
    /// It takes a newer binary.
    Newer(Problem),
}

impl Spare {
    /// Begins a run, and polls it once.
    pub(super) fn begin(&mut self, run: impl Future<Output = Handled> + Send + 'static) -> Poll<Handled> {
        let run = match &mut self.0 {
            Some(last) => {
                last.set(run);
                last
            }
            None => self.0.insert(ReusableBoxFuture::new(run)),
        };
        run.poll(&mut Context::from_waker(Waker::noop()))
    }
}

impl<E: Event> Attempts<E> {
    pub(super) fn new(core: Core, handler: Handler<E>, at_most: Duration, seconds: Histogram) -> Self {
        Self { core, handler, at_most, seconds, spare: Spare::default() }
    }

    /// One run of the handler: a panic and a timeout are failures like any other.
    ///
    /// It is polled here once, so that one that ends without waiting needs neither a timer nor a place in a queue, nor memory of its
    /// own; one that waits is polled once more than it must be.
    pub(super) fn begin(&mut self, record: &Stored<'_>, attempt: u32, term: u64) -> Begun {
        let started = self
            .core
            .times_this_one(TIMED_ONE_IN)
            .then(|| (self.seconds.clone(), tokio::time::Instant::now()));
        let (mut is_decoded, mut begun) = (false, None);
        // Decoding runs the user's code as well, and so does calling the handler.
        let unwound = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let delivery = open(record, |event, envelope| Delivery {
                event,
                key: record.key.clone(),
                offset: record.offset,
                id: envelope.id,
                time: envelope::system_time(envelope.time),
                attempt,
                term,
                trace: envelope.trace,
            });
            is_decoded = true;
            begun = Some(delivery.map(|delivery| (self.handler)(delivery, &mut self.spare)));
        }));
        match (unwound, begun) {
            (Ok(()), Some(Ok(Poll::Ready(handled)))) => {
                time(started);
                Begun::Ended(handled.map_err(|error| described(&*error)))
            }
            (Ok(()), Some(Ok(Poll::Pending))) => {
                let run = self.spare.0.take().expect("it was just begun there");
                Begun::Runs(finish(run, self.at_most, started).boxed())
            }
            (Ok(()), Some(Err(Problem::Undecodable(error)))) => Begun::Undecodable(described(&error)),
            (Ok(()), Some(Err(newer))) => Begun::Newer(newer),
            (Ok(()), None) => unreachable!("it comes to its end, or unwinds"),
            (Err(panic), _) if is_decoded => Begun::Ended(Err(panicked(&*panic))),
            (Err(panic), _) => Begun::Undecodable(described(&Undecodable::panicked(&*panic))),
        }
    }
}

type Started = Option<(Histogram, tokio::time::Instant)>;

fn time(started: Started) {
    if let Some((seconds, started)) = started {
        seconds.record(started.elapsed().as_secs_f64());
    }
}

async fn finish(run: ReusableBoxFuture<'static, Handled>, at_most: Duration, started: Started) -> Outcome {
    let handled = tokio::time::timeout(at_most, AssertUnwindSafe(run).catch_unwind()).await;
    time(started);
    match handled {
        Ok(Ok(outcome)) => outcome.map_err(|error| described(&*error)),
        Ok(Err(panic)) => Err(panicked(&*panic)),
        Err(_) => Err(format!("the handler did not end within {at_most:?}")),
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    format!("the handler panicked: {}", supervisor::message(panic))
}
