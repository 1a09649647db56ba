//! What a tail has to know before it crosses a hole (PROTOCOL §2).

use std::{sync::Arc, time::Duration};

use super::{Control, ControlError};
use crate::{
    BackendError, Epoch, ErrorKind, Offset,
    engine::{
        ambient::{Monotonic, Rules},
        owned_cell::OwnedError,
    },
};

/// A tail's knowledge of its family's ceiling, and how old it is.
///
/// A record that is gone was dropped at least a grace period after the ceiling above it was stored. So a read that was *sent*
/// less than half of it ago, and lags by less than the other half, has seen the ceiling that explains the hole.
pub(crate) struct CeilingWatch {
    control: Control,
    monotonic: Arc<dyn Monotonic>,
    rules: Rules,
    fresh_for: Duration,
    last: Option<Read>,
}

#[derive(Debug, Clone, Copy)]
struct Read {
    sent: Duration,
    epoch: Epoch,
    ceiling: Offset,
}

impl CeilingWatch {
    /// `grace` is how long a ceiling is public before anything below it is dropped, the same on every pod.
    pub(crate) fn new(
        control: Control,
        monotonic: Arc<dyn Monotonic>,
        rules: Rules,
        grace: Duration,
    ) -> Self {
        Self { control, monotonic, rules, fresh_for: grace / 2, last: None }
    }

    /// Below which offset of this epoch a hole that the tail has *already met* may hide dropped records; at or above it, a hole is
    /// nothing.
    ///
    /// Answers what it read last where that is fresh enough, else it reads. Where the control cell is missing, damaged or of another
    /// epoch although the family was compacted, everything below the present head is suspect.
    ///
    /// # Errors
    /// What the backplane said: the tail must not cross the hole now. A log in another epoch is `Unavailable`, so that the
    /// tail is opened again and meets it.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn fresh(&mut self, epoch: Epoch) -> Result<Offset, BackendError> {
        let now = self.monotonic.now();
        let known = self.last.filter(|last| last.epoch == epoch);
        if !self.rules.read_ceiling {
            return Ok(known.map_or(Offset::BEGIN, |last| last.ceiling));
        }
        if let Some(last) = known
            && now.saturating_sub(last.sent) < self.fresh_for
        {
            return Ok(last.ceiling);
        }
        let ceiling = self.read(epoch).await.map_err(|error| self.backend(error))?;
        self.last = Some(Read { sent: now, epoch, ceiling });
        Ok(ceiling)
    }

    async fn read(&self, epoch: Epoch) -> Result<Offset, ControlError> {
        match self.control.ceiling().await {
            Ok(Some(ceiling)) if ceiling.epoch == epoch => return Ok(ceiling.offset),
            Ok(_) => {}
            Err(ControlError::Cell(error @ (OwnedError::Garbled { .. } | OwnedError::Newer { .. }))) => {
                tracing::error!(family = %self.control.family(), %error, "the ceiling cannot be read: every hole is suspect");
            }
            Err(error) => return Err(error),
        }
        self.control.unannounced(epoch).await
    }

    fn backend(&self, error: ControlError) -> BackendError {
        match error {
            ControlError::Backend(error) | ControlError::Cell(OwnedError::Backend(error)) => error,
            ControlError::EpochChanged { .. } => BackendError::new(
                ErrorKind::Unavailable,
                "the log was recreated or restored while its tail was open",
            ),
            // A read answers nothing else.
            other => {
                BackendError::new(ErrorKind::Internal, "the ceiling could not be read").with_source(other)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{
        Family, Head, Key,
        engine::{
            bench::Bench,
            map_store::{Counting, Fault, MapStore},
        },
    };

    const GRACE: Duration = Duration::from_secs(60);

    /// A clock that a test moves by hand.
    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Hand {
        fn pass(&self, seconds: f64) {
            self.0.fetch_add((seconds * 1_000.0) as u64, Ordering::Relaxed);
        }
    }

    impl Monotonic for Hand {
        fn now(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    struct Stage {
        bench: Arc<Bench>,
        /// Another pod's, which raises.
        control: Control,
        clock: Arc<Hand>,
        watch: CeilingWatch,
    }

    fn family() -> Family {
        Family::new("rooms").expect("a valid name")
    }

    fn head(epoch: u128, offset: u64) -> Head {
        Head { epoch: Epoch(epoch), offset: Offset(offset) }
    }

    fn stage(rules: Rules, script: impl FnOnce(MapStore) -> MapStore) -> Stage {
        let other = Bench::new(MapStore::new());
        let bench = Arc::new(other.another(script));
        let clock = Arc::new(Hand::default());
        let control = |bench, seed| Control::new(bench, Arc::new(Counting::from(seed)), family());
        let watch = CeilingWatch::new(control(bench.clone(), 1), clock.clone(), rules, GRACE);
        Stage { bench, control: control(Arc::new(other), 2), clock, watch }
    }

    #[tokio::test]
    async fn a_read_is_believed_for_half_the_grace_period_after_it_was_sent() {
        let Stage { bench, control, clock, mut watch } = stage(Rules::ALL, |store| store);
        control.raise(head(1, 10)).await.expect("raised");
        assert_eq!(watch.fresh(Epoch(1)).await.expect("read"), Offset(10));
        control.raise(head(1, 50)).await.expect("raised");
        clock.pass(29.999);
        assert_eq!(watch.fresh(Epoch(1)).await.expect("known"), Offset(10));
        assert_eq!(bench.store.calls(), 1, "what is fresh is not read again");
        clock.pass(0.001);
        assert_eq!(watch.fresh(Epoch(1)).await.expect("read"), Offset(50));
        assert_eq!(bench.store.calls(), 2);
        // It counts from the question, however long the answer takes.
        clock.pass(30.0);
        let Stage { bench, control, clock, mut watch } =
            stage(Rules::ALL, |store| store.script(0, Fault::Pause));
        control.raise(head(1, 10)).await.expect("raised");
        let (answer, ()) = tokio::join!(watch.fresh(Epoch(1)), async {
            bench.store.paused().await;
            clock.pass(29.0);
            bench.store.resume();
        });
        assert_eq!(answer.expect("read"), Offset(10));
        control.raise(head(1, 50)).await.expect("raised");
        clock.pass(1.0);
        assert_eq!(watch.fresh(Epoch(1)).await.expect("read"), Offset(50));
    }

    #[tokio::test]
    async fn what_was_read_before_a_suspension_is_read_again() {
        let Stage { control, clock, mut watch, .. } = stage(Rules::ALL, |store| store);
        control.raise(head(1, 10)).await.expect("raised");
        watch.fresh(Epoch(1)).await.expect("read");
        clock.pass(8.0 * 3_600.0);
        control.raise(head(1, 90)).await.expect("raised");
        assert_eq!(watch.fresh(Epoch(1)).await.expect("read"), Offset(90));
    }

    #[tokio::test]
    async fn a_family_that_was_never_compacted_has_nothing_to_suspect() {
        let Stage { bench, clock, mut watch, .. } = stage(Rules::ALL, |store| store);
        assert_eq!(watch.fresh(Epoch(1)).await.expect("read"), Offset::BEGIN);
        clock.pass(1.0);
        watch.fresh(Epoch(1)).await.expect("known");
        assert_eq!(bench.store.calls(), 1);
    }

    #[tokio::test]
    async fn without_a_cell_everything_below_the_head_of_a_compacted_family_is_suspect() {
        let Stage { bench, mut watch, .. } = stage(Rules::ALL, |store| store);
        bench.log.set_floor(&Key::of(&family()), 3);
        assert_eq!(watch.fresh(Epoch(1)).await.expect("read"), Offset(100));
    }

    #[tokio::test]
    async fn a_damaged_cell_is_as_none() {
        let Stage { bench, clock, mut watch, control } = stage(Rules::ALL, |store| store);
        control.raise(head(1, 10)).await.expect("raised");
        bench.store.overwrite(&control.key, &b"damaged"[..]);
        assert_eq!(watch.fresh(Epoch(1)).await.expect("read"), Offset::BEGIN, "nothing is gone");
        bench.log.set_floor(&Key::of(&family()), 3);
        clock.pass(30.0);
        assert_eq!(watch.fresh(Epoch(1)).await.expect("read"), Offset(100));
    }

    #[tokio::test]
    async fn a_ceiling_of_another_epoch_explains_nothing_and_hides_nothing() {
        let Stage { bench, clock, mut watch, control } = stage(Rules::ALL, |store| store);
        control.raise(head(1, 90)).await.expect("raised");
        assert_eq!(watch.fresh(Epoch(1)).await.expect("read"), Offset(90));
        bench.log.recreate(2, 40);
        assert_eq!(watch.fresh(Epoch(2)).await.expect("read"), Offset::BEGIN, "a new log has lost nothing");
        // One that was restored has the floors it had, which nobody announced in its epoch.
        bench.log.set_floor(&Key::of(&family()), 3);
        clock.pass(30.0);
        assert_eq!(watch.fresh(Epoch(2)).await.expect("read"), Offset(40));
        control.raise(head(2, 0)).await.expect("taken over");
        clock.pass(30.0);
        assert_eq!(watch.fresh(Epoch(2)).await.expect("read"), Offset(40), "and says so from then on");
        let gone = watch.fresh(Epoch(1)).await.expect_err("the tail has to meet the new log first");
        assert_eq!(gone.kind(), ErrorKind::Unavailable, "{gone:?}");
    }

    #[tokio::test]
    async fn without_an_answer_no_hole_is_crossed() {
        let Stage { bench, mut watch, control, .. } = stage(Rules::ALL, |store| store.script(0, Fault::Fail));
        control.raise(head(1, 90)).await.expect("raised");
        let error = watch.fresh(Epoch(1)).await.expect_err("unreachable");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert_eq!(watch.fresh(Epoch(1)).await.expect("read"), Offset(90), "a failure is not remembered");
        bench.log.close();
    }

    #[tokio::test]
    async fn a_tail_that_does_not_read_believes_what_it_read_last() {
        let rules = Rules { read_ceiling: false, ..Rules::ALL };
        let Stage { bench, mut watch, control, .. } = stage(rules, |store| store);
        control.raise(head(1, 90)).await.expect("raised");
        assert_eq!(watch.fresh(Epoch(1)).await.expect("not read"), Offset::BEGIN);
        assert_eq!(bench.store.calls(), 0);
    }
}
