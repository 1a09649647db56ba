//! A consumer's task on this pod: it contends for the consumer, and works while it holds it.

use std::{sync::Arc, time::Duration};

use super::{
    attempt::{Attempts, Handler},
    cell::{ConsumerCell, Needs},
    dead::DeadLetters,
    lease::{Lease, Lost, Place},
    on_event::ConsumerError,
    operate::keep_from,
    options::Options,
    owner::{Over, Owner},
    spread::Seat,
    standing::{Block, Board, Standing},
};
use crate::{
    BackendError, BoxError, CellSelector, Cursor, ErrorKind, Event, Head, Offset, RecordId, Selector, Watch,
    engine::{
        Core,
        control::{Control, ControlError},
        losses::{as_backend, contended},
        metrics::OfConsumer,
        retry::Delays,
        supervisor::Stop,
    },
};

/// A consumer as this pod runs it.
pub(super) struct Runner<E> {
    pub(super) core: Core,
    pub(super) place: Place,
    pub(super) control: Control,
    pub(super) selector: Selector,
    pub(super) name: Arc<str>,
    pub(super) options: Options,
    pub(super) handler: Handler<E>,
    pub(super) board: Arc<Board>,
    pub(super) metrics: OfConsumer,
    pub(super) letters: DeadLetters,
    pub(super) seat: Arc<Seat>,
}

/// To whom a consumer was left.
#[derive(PartialEq, Eq)]
enum Left {
    ToAnybody,
    /// This pod runs more than others do.
    ToOthers,
}

/// Whether the consumer can go on from what it has committed.
enum Footing {
    Firm,
    Blocked(Block),
}

impl<E: Event> Runner<E> {
    /// Runs for as long as the engine does, and hands over when it stops.
    pub(super) async fn run(self, stop: Stop) -> Result<(), BoxError> {
        while !stop.is_cancelled() {
            self.stands(Standing::Contending);
            let contended = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                contended = self.contend() => contended,
            };
            let Some(lease) = contended else {
                tracing::warn!(consumer = %self.name, "the consumer was forgotten; it does not run any more");
                self.stands(Standing::Ended);
                return Ok(());
            };
            if self.hold(lease, &stop).await == Left::ToOthers {
                self.stands(Standing::Contending);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(self.seat.stays_away_for()) => {}
                }
            }
        }
        self.place.give_up().await;
        self.stands(Standing::Ended);
        Ok(())
    }

    /// Waits until this pod holds the consumer; `None` once there is none any more.
    async fn contend(&self) -> Option<Lease> {
        self.take_its_place().await;
        self.place.contend(|cell| self.may_run(cell)).await
    }

    /// What it takes to run the handler.
    pub(super) fn attempts(&self) -> Attempts<E> {
        let (handler, seconds) = (self.handler.clone(), self.metrics.handler_seconds.clone());
        Attempts::new(self.core.clone(), handler, self.options.handler_timeout, seconds)
    }

    /// Whether this pod may run what it finds, and can decode what it begins with.
    fn may_run(&self, cell: &ConsumerCell) -> bool {
        let knows = |needs: &Needs| needs.name == E::NAME && needs.version <= E::VERSION;
        let rules = self.core.ambient.rules();
        let knows_it = cell.needs.as_ref().is_none_or(knows) || !rules.contend_if_known;
        // Loud on every pod that waits for a newer one, because none of them runs it.
        self.metrics.blocked.set(f64::from(u8::from(!knows_it)));
        self.seat.is_stuck(!knows_it);
        cell.is_active() && knows_it
    }

    fn stands(&self, standing: Standing) {
        let is_owner = matches!(standing, Standing::Owning { .. } | Standing::Blocked(_));
        self.seat.owns(is_owner);
        if !is_owner {
            // What this pod knew of it is another one's to tell now.
            self.metrics.lag_events.set(0.0);
            self.metrics.lag_seconds.set(0.0);
            self.metrics.attempts.set(0.0);
        }
        self.metrics.owner.set(f64::from(u8::from(is_owner)));
        let is_blocked = matches!(standing, Standing::Blocked(_));
        self.metrics.blocked.set(f64::from(u8::from(is_blocked)));
        self.seat.is_stuck(is_blocked);
        self.board.show(standing);
    }

    /// Works until the consumer is given up, or lost.
    async fn hold(&self, mut lease: Lease, stop: &Stop) -> Left {
        let mut said = None;
        loop {
            if stop.is_cancelled() || !self.may_run(lease.cell()) {
                self.give_back(lease, None, stop).await;
                return Left::ToAnybody;
            }
            self.board.committed(lease.cell().committed().offset);
            let over = match self.footing(lease.cell()).await {
                Ok(Footing::Firm) => {
                    said = None;
                    self.stands(Standing::Owning { term: lease.cell().term });
                    let (kept, over) = Owner::new(self, lease, self.watch().await).work(stop).await;
                    let Some(kept) = kept else { return Left::ToAnybody };
                    lease = kept;
                    over
                }
                Ok(Footing::Blocked(block)) => Over::Blocked(block),
                Err(error) => {
                    tracing::debug!(consumer = %self.name, %error, "a consumer cannot begin");
                    let Some(kept) = self.keep(lease, self.place.lasts / 20, stop).await else {
                        return Left::ToAnybody;
                    };
                    lease = kept;
                    continue;
                }
            };
            match over {
                Over::Blocked(Block::Newer { name, version }) => {
                    self.say(&Block::Newer { name: name.clone(), version });
                    self.give_back(lease, Some(Needs { name, version }), stop).await;
                    return Left::ToAnybody;
                }
                Over::Blocked(block) => {
                    let is_control = block == Block::ControlLost;
                    if said != Some(block.clone()) {
                        self.say(&block);
                    }
                    said = Some(block.clone());
                    self.stands(Standing::Blocked(block));
                    // Nothing but looking says that a control cell is there again.
                    let kept = if is_control {
                        self.keep(lease, self.place.lasts / 4, stop).await
                    } else {
                        self.stand_still(lease, stop).await
                    };
                    let Some(kept) = kept else { return Left::ToAnybody };
                    lease = kept;
                }
                Over::Again => {
                    // Whoever forgot it has taken the cell away: it is not to be pinned again.
                    let Some(kept) = self.keep(lease, Duration::ZERO, stop).await else {
                        return Left::ToAnybody;
                    };
                    lease = kept;
                }
                Over::Stopped => {}
                Over::Asked => {
                    self.give_back(lease, None, stop).await;
                    return Left::ToOthers;
                }
                Over::Deposed => return Left::ToAnybody,
            }
        }
    }

    fn say(&self, block: &Block) {
        tracing::error!(consumer = %self.name, family = %self.selector.family(), %block, "a consumer goes no further");
    }

    /// Whether the log is the one it has handled, and keeps what it has not.
    async fn footing(&self, cell: &ConsumerCell) -> Result<Footing, BackendError> {
        let committed = cell.committed();
        let head = self.core.backplane.log().head(&self.selector).await?;
        if head.epoch != committed.epoch {
            return Ok(Footing::Blocked(Block::Replaced));
        }
        match keep_from(&self.control, &self.name, cell.instance(), needed(&committed)).await {
            Ok(()) => Ok(Footing::Firm),
            Err(ConsumerError::BelowCeiling { lowest, .. }) => Ok(Footing::Blocked(Block::Gone { lowest })),
            Err(ConsumerError::ControlLost { .. }) => Ok(Footing::Blocked(Block::ControlLost)),
            Err(ConsumerError::Backend(error)) => Err(error),
            Err(error) => {
                let refused = "the family's control cell refuses";
                Err(BackendError::new(ErrorKind::Internal, refused).with_source(error))
            }
        }
    }

    async fn watch(&self) -> Option<Watch> {
        let selector = CellSelector::One(self.place.key.clone());
        self.place.backplane.store().watch(&selector).await.ok()
    }

    /// Keeps the lease until somebody changes the cell.
    async fn stand_still(&self, lease: Lease, stop: &Stop) -> Option<Lease> {
        let rev = lease.cell().committed();
        let mut lease = lease;
        while !stop.is_cancelled() && lease.cell().is_active() && lease.cell().committed() == rev {
            lease = self.keep(lease, self.place.lasts / 20, stop).await?;
        }
        Some(lease)
    }

    /// Waits for so long, and renews the lease if it is time; `None` once it is lost.
    async fn keep(&self, mut lease: Lease, wait: Duration, stop: &Stop) -> Option<Lease> {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Some(lease),
            () = tokio::time::sleep(wait) => {}
        }
        let found = self.place.load().await;
        let is_changed = found.is_ok_and(|found| found.is_none_or(|found| found.rev > lease.rev()));
        if !is_changed && self.place.now() < lease.renews_at() {
            return Some(lease);
        }
        match lease.write(|_| {}).await {
            Err(Lost::Deposed) => None,
            Ok(()) | Err(Lost::Changed | Lost::Unreached(_)) => Some(lease),
        }
    }

    /// Gives the consumer up, in order: the next one takes it at once.
    async fn give_back(&self, mut lease: Lease, needs: Option<Needs>, stop: &Stop) {
        let mut delays =
            Delays::new(Duration::from_millis(20), Duration::from_secs(1), self.core.ambient.seed());
        loop {
            let needs = needs.clone();
            let given = lease.write(|cell| {
                cell.release();
                cell.needs = needs.or(cell.needs.take());
            });
            match given.await {
                Ok(()) | Err(Lost::Deposed) => return,
                Err(Lost::Changed) => {}
                // The engine's grace period bounds this; else whoever is next waits for as long as a lease lasts.
                Err(Lost::Unreached(_)) if self.place.now() < lease.begins_until() || stop.is_cancelled() => {
                    delays.wait().await;
                }
                Err(Lost::Unreached(_)) => return,
            }
        }
    }
}

/// What a consumer that has committed this needs of the log: the record it stands on, or the first one it wants.
pub(super) fn needed(committed: &Cursor) -> Head {
    let stands_on_one = committed.id != RecordId::default();
    let offset = if stands_on_one { committed.offset } else { Offset(committed.offset.0 + 1) };
    Head { epoch: committed.epoch, offset }
}

/// What failed at a control cell, where the same call may be made again whatever came of it.
pub(super) fn control_failed(error: ControlError) -> BackendError {
    match error {
        ControlError::Backend(error) => error,
        ControlError::Cell(error) => as_backend(error),
        ControlError::Contended { .. } => contended(),
        other => {
            BackendError::new(ErrorKind::Internal, "the family's control cell refuses").with_source(other)
        }
    }
}
