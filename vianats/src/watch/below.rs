//! Watching all cells below a path: a consumer that begins with the last message of each.
//!
//! The consumer may be on a server that lags behind the leader, and what was acknowledged before the watch was opened is
//! in the present: so the present is complete when all that the leader held by then has come.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::timeout;
use via_backplane::{BackendError, CellKey, Change, metrics::FOREIGN};

use super::{Tells, change, said};
use crate::{
    api,
    generation::Generation,
    names::CellSubjects,
    ordered::{Delivered, Ordered, Start},
    pod::Pod,
};

/// How long the present may keep silent before the leader is asked anew: what is waited for may be a marker whose time is
/// over.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the leader is asked whether the present is complete, where others keep writing.
const MAX_CHECKS: usize = 16;

/// A watch of all cells below a path.
pub(super) struct Below {
    pod: Pod,
    filter: String,
    consumer: Ordered<CellSubjects>,
    phase: Phase,
    replay: Replay,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Begin,
    Present,
    Live,
}

impl Below {
    pub(super) async fn open(pod: &Pod, prefix: &CellKey) -> Result<Self, BackendError> {
        let generation = pod.cell_generation();
        let filter = generation.subjects.cells_below(prefix);
        let held = last(pod, &filter).await?;
        let consumer = Self::consumer(pod, filter.clone(), generation).await?;
        let replay = Replay::new(held, consumer.pending_at_start);
        Ok(Self { pod: pod.clone(), filter, consumer, phase: Phase::Begin, replay })
    }

    async fn consumer(
        pod: &Pod,
        filter: String,
        generation: Arc<Generation<CellSubjects>>,
    ) -> Result<Ordered<CellSubjects>, BackendError> {
        let opened = Ordered::open(pod.link(), pod.bucket(), filter, generation, Start::Latest).await;
        if opened.is_err() {
            // The bucket may be another than the one that was known; the next attempt should know.
            pod.look_at_cells().await?;
        }
        opened
    }

    /// The next message of the present; nothing once it is complete.
    async fn rest(&mut self) -> Result<Option<Delivered>, BackendError> {
        let Self { pod, filter, consumer, replay, .. } = self;
        // One wait, however often the leader is asked meanwhile: the consumer times its own silence.
        let mut delivered = pin!(consumer.next());
        loop {
            match replay.next() {
                Step::Complete => return Ok(None),
                Step::Ask => replay.check(last(pod, filter).await?),
                Step::Wait => match timeout(PATIENCE, &mut delivered).await {
                    Ok(delivered) => return delivered.map(Some),
                    Err(_) => replay.is_silent(last(pod, filter).await?),
                },
            }
        }
    }

    /// Takes in a message, unless somebody else put it there.
    fn take(&mut self, delivered: Delivered) -> Option<Change> {
        self.replay.came(delivered.sequence, delivered.pending);
        let message = delivered.message;
        let Some(key) = self.consumer.generation().subjects.key(&message.subject) else {
            tracing::error!(
                subject = %message.subject,
                rev = delivered.sequence,
                "a message in the bucket is no cell of via's, and is skipped"
            );
            metrics::counter!(FOREIGN, "of" => "cells").increment(1);
            return None;
        };
        let latest = said(delivered.sequence, message.headers.as_ref(), message.payload);
        Some(change(key, latest))
    }
}

impl Tells for Below {
    async fn next(&mut self) -> Result<Change, BackendError> {
        loop {
            let delivered = match self.phase {
                Phase::Begin => {
                    self.phase = Phase::Present;
                    return Ok(Change::Begin);
                }
                Phase::Present => match self.rest().await? {
                    Some(delivered) => delivered,
                    None => {
                        self.phase = Phase::Live;
                        return Ok(Change::End);
                    }
                },
                Phase::Live => self.consumer.next().await?,
            };
            if let Some(change) = self.take(delivered) {
                return Ok(change);
            }
        }
    }
}

/// The sequence of the last message that the leader holds below a path.
async fn last(pod: &Pod, filter: &str) -> Result<u64, BackendError> {
    let last = api::last_message(pod.link(), pod.bucket(), filter).await?;
    Ok(last.map_or(0, |held| held.sequence))
}

/// How much of the present has come.
#[derive(Debug)]
struct Replay {
    /// The sequence up to which the leader held messages when it was asked.
    up_to: u64,
    /// The sequence of the last message that came.
    last: u64,
    /// How many were to follow it then.
    pending: u64,
    checks: usize,
    is_complete: bool,
}

/// What a replay needs next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Wait,
    /// What the leader holds by now.
    Ask,
    Complete,
}

impl Replay {
    fn new(held: u64, pending: u64) -> Self {
        // Where nothing was held, there is nothing that could be missing.
        Self { up_to: held, last: 0, pending, checks: 0, is_complete: held == 0 && pending == 0 }
    }

    fn next(&self) -> Step {
        if self.is_complete {
            Step::Complete
        } else if self.last >= self.up_to && self.pending == 0 {
            Step::Ask
        } else {
            Step::Wait
        }
    }

    fn came(&mut self, sequence: u64, pending: u64) {
        self.last = sequence;
        self.pending = pending;
    }

    /// All that was held has come. A cell that was rewritten before its turn came is further on now, and the count of what
    /// follows may not have known of it yet.
    fn check(&mut self, held: u64) {
        self.checks += 1;
        self.up_to = held;
        self.is_complete = self.last >= held || self.checks == MAX_CHECKS;
    }

    /// Nothing has come for a while: what is waited for may have vanished.
    fn is_silent(&mut self, held: u64) {
        self.up_to = held;
        if self.last >= held {
            self.pending = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_present_is_complete_at_once() {
        assert_eq!(Replay::new(0, 0).next(), Step::Complete);
    }

    #[test]
    fn a_present_is_complete_when_all_that_the_leader_held_has_come() {
        // The consumer's server lags: it knows of one message, and the leader holds two.
        let mut replay = Replay::new(7, 1);
        replay.came(5, 0);
        assert_eq!(replay.next(), Step::Wait);
        replay.came(7, 0);
        assert_eq!(replay.next(), Step::Ask);
        replay.check(7);
        assert_eq!(replay.next(), Step::Complete);
    }

    #[test]
    fn what_was_rewritten_before_its_turn_is_waited_for() {
        let mut replay = Replay::new(7, 2);
        replay.came(7, 0);
        replay.check(9);
        assert_eq!(replay.next(), Step::Wait);
        replay.came(9, 0);
        replay.check(9);
        assert_eq!(replay.next(), Step::Complete);
    }

    #[test]
    fn a_marker_that_vanished_is_not_waited_for() {
        let mut replay = Replay::new(7, 2);
        replay.came(5, 1);
        replay.is_silent(7);
        assert_eq!(replay.next(), Step::Wait, "it is there, and on its way");
        replay.is_silent(5);
        assert_eq!(replay.next(), Step::Ask);
        replay.check(5);
        assert_eq!(replay.next(), Step::Complete);
        let mut replay = Replay::new(7, 0);
        replay.is_silent(0);
        replay.check(0);
        assert_eq!(replay.next(), Step::Complete, "it was the only one");
    }

    #[test]
    fn a_present_that_others_keep_changing_ends() {
        let mut replay = Replay::new(1, 0);
        for sequence in 1.. {
            replay.came(sequence, 0);
            if replay.next() == Step::Ask {
                replay.check(sequence + 1);
            }
            if replay.next() == Step::Complete {
                assert_eq!(replay.checks, MAX_CHECKS);
                break;
            }
        }
    }
}
