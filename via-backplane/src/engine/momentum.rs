//! Staying awake while records keep coming.

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::yield_now;

use crate::{BackendError, Batch, Subscription};

/// Turns of the scheduler between two looks, some microseconds, so that a look finds several records: looking at each one
/// as it comes would have two threads pass its memory back and forth.
const TURNS: u32 = 16;
/// What a look costs that finds nothing: isolated records buy no looks.
const LOOK: usize = 16;
/// The most momentum there is: how long a burst is waited for to go on, some 100 µs.
const MAX: usize = 256;

/// How many looks a tail takes before it sleeps.
///
/// Being woken for every few records costs the appender more than the append, and tokio runs a woken task on the thread that
/// woke it, after the appender rests, instead of beside it. So a tail that has just had many records looks again a few
/// times before it sleeps. A tail that gets a record now and then sleeps at once.
#[derive(Default)]
pub(super) struct Momentum(usize);

impl Momentum {
    pub(super) fn gain(&mut self, batch: &Batch) {
        self.0 = MAX.min(self.0 + batch.capacity());
    }

    /// The next batch. Cancel-safe: what is found is answered at once.
    pub(super) async fn next(&mut self, records: &mut Subscription) -> Option<Result<Batch, BackendError>> {
        while self.0 >= LOOK {
            self.0 -= LOOK;
            for _ in 0..TURNS {
                yield_now().await;
            }
            if let Some(item) = records.next().now_or_never() {
                return item;
            }
        }
        records.next().await
    }
}
