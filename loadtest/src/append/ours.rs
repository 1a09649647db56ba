//! The adapter: the same messages through `EventLog::append`.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{
    future::{join_all, maybe_done},
    poll,
};
use via_backplane::{Append, AppendError, Backplane as _, Entries, Entry, Key, OnStop, Supervisor};
use vianats::Nats;

use crate::target::Failure;

/// Appends that one task waits for: tokio makes a task give way after 128 steps, and one that waits for many more than
/// that is woken again and again before it is through.
const EACH: usize = 125;

/// What is appended, and where.
#[derive(Clone)]
pub(super) struct Ours {
    pub(super) backplane: Arc<Nats>,
    pub(super) key: Key,
    pub(super) record: Bytes,
}

impl Ours {
    pub(super) async fn append(&self) -> Result<(), AppendError> {
        let entry = Entry { key: self.key.clone(), record: self.record.clone() };
        self.backplane.log().append(Append::new(Entries::One(entry))).await.map(drop)
    }

    /// Appends one after the other for so long; answers how long each took.
    pub(super) async fn one_at_a_time(self, lasts: Duration) -> Result<Vec<Duration>, Box<Failure>> {
        let until = Instant::now() + lasts;
        let mut took = Vec::new();
        while Instant::now() < until {
            let started = Instant::now();
            self.append().await?;
            took.push(started.elapsed());
        }
        Ok(took)
    }

    /// Appends with so many waiting at once for so long; answers how many there were.
    pub(super) async fn concurrent(self, window: usize, lasts: Duration) -> Result<usize, Box<Failure>> {
        let until = Instant::now() + lasts;
        let supervisor = Supervisor::new();
        let callers = (0..window).step_by(EACH).map(|first| {
            let caller = self.clone().caller(EACH.min(window - first), until);
            supervisor.run("caller", OnStop::Abort, caller)
        });
        let mut count = 0;
        for appended in join_all(callers).await {
            count += appended??;
        }
        Ok(count)
    }

    /// One task of an app, with so many appends waiting at once. It waits for the oldest, as the raw loop does.
    async fn caller(self, window: usize, until: Instant) -> Result<usize, Box<Failure>> {
        let (mut waiting, mut count) = (VecDeque::with_capacity(window), 0);
        loop {
            let goes_on = Instant::now() < until;
            if goes_on && waiting.len() < window {
                let mut append = Box::pin(maybe_done(self.append()));
                // Sent by the first poll.
                let _sent = poll!(append.as_mut());
                waiting.push_back(append);
                continue;
            }
            let Some(mut oldest) = waiting.pop_front() else { return Ok(count) };
            oldest.as_mut().await;
            oldest.as_mut().take_output().expect("it was waited for")?;
            count += 1;
        }
    }
}
