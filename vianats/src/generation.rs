//! One generation of a stream: which one it is, and when it is over.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

/// The metadata that says which creation of a stream this is.
pub(crate) const INCARNATION: &str = "via-incarnation";

/// A stream from its creation, or its restoration, to the next.
#[derive(Debug)]
pub(crate) struct Generation<S> {
    /// The incarnation and the time of creation, in one number: a restore through the API keeps the first and changes the
    /// second.
    pub(crate) number: u128,
    /// The incarnation alone.
    pub(crate) incarnation: u128,
    pub(crate) subjects: S,
    /// How long an append id is remembered, as the stream is configured.
    pub(crate) duplicate_window: std::time::Duration,
    /// The highest sequence an ack has told of.
    pub(crate) highest: AtomicU64,
    /// Ends with the generation.
    pub(crate) over: CancellationToken,
}

/// A stream by its name, and the generation of it that is known.
#[derive(Debug)]
pub(crate) struct Known<S> {
    pub(crate) name: String,
    present: RwLock<Arc<Generation<S>>>,
    questions: AtomicU64,
    answered: AtomicU64,
}

/// The number of a question to the server. What was asked earlier and is told later is no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Question(u64);

impl<S> Known<S> {
    pub(crate) fn new(name: String, present: Generation<S>) -> Self {
        let present = RwLock::new(Arc::new(present));
        Self { name, present, questions: AtomicU64::new(0), answered: AtomicU64::new(0) }
    }

    /// Before the server is asked.
    pub(crate) fn ask(&self) -> Question {
        Question(self.questions.fetch_add(1, Ordering::AcqRel) + 1)
    }

    pub(crate) fn present(&self) -> Arc<Generation<S>> {
        self.present.read().clone()
    }

    /// Takes in what the server says now; answers the generation that is present then.
    pub(crate) fn learn(&self, question: Question, found: Generation<S>) -> Arc<Generation<S>> {
        let mut present = self.present.write();
        let is_news = self.answered.fetch_max(question.0, Ordering::AcqRel) < question.0;
        if present.number == found.number || !is_news {
            return present.clone();
        }
        tracing::error!(
            stream = self.name,
            "the stream was recreated or restored: everything read from it is read anew"
        );
        let over = std::mem::replace(&mut *present, Arc::new(found));
        over.over.cancel();
        present.clone()
    }
}

/// The number of a generation. The incarnation is random, so the two cannot cancel each other out by accident.
pub(crate) fn number(incarnation: u128, created: jiff::Timestamp) -> u128 {
    incarnation ^ created.as_nanosecond().unsigned_abs()
}

/// An incarnation for a stream that is about to be created.
pub(crate) fn fresh() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(incarnation: u128, created: i64) -> Generation<()> {
        let created = jiff::Timestamp::from_second(created).expect("a time");
        Generation {
            number: number(incarnation, created),
            incarnation,
            subjects: (),
            duplicate_window: std::time::Duration::ZERO,
            highest: AtomicU64::new(0),
            over: CancellationToken::new(),
        }
    }

    #[test]
    fn what_was_recreated_or_restored_is_another_generation() {
        let known = Known::new("via-events".into(), generation(7, 1_000));
        let first = known.present();
        let early = known.ask();
        assert!(Arc::ptr_eq(&known.learn(known.ask(), generation(7, 1_000)), &first), "nothing has changed");
        assert!(!first.over.is_cancelled());
        let restored = known.learn(known.ask(), generation(7, 2_000));
        assert!(first.over.is_cancelled() && !restored.over.is_cancelled());
        let recreated = known.learn(known.ask(), generation(8, 2_000));
        assert!(restored.over.is_cancelled());
        known.learn(early, generation(7, 1_000));
        assert!(!recreated.over.is_cancelled(), "an answer that comes late is no news");
        assert!(Arc::ptr_eq(&known.present(), &recreated));
    }
}
