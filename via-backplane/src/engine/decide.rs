//! Deciding what to append from the state it will be appended to.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    append::{AppendFailed, AppendOptions},
    events::Events,
    projection::{Halt, View},
    retry::Delays,
};
use crate::{AppendId, BackendError, Event, Fold, Head, Offset, Position, Retry, Selector, TraceContext};

/// Lost races after which a decision gives up.
const MAX_ATTEMPTS: usize = 32;
/// How long to wait until this pod has folded the record that won a race.
const CATCH_UP: Duration = Duration::from_secs(10);

/// What a decision may carry besides its events.
#[derive(Debug, Clone, Default)]
#[must_use = "options do nothing by themselves"]
pub struct DecideOptions {
    trace: Option<TraceContext>,
}

impl DecideOptions {
    /// Continues a trace, as [`AppendOptions::trace`] does.
    pub fn trace(mut self, trace: TraceContext) -> Self {
        self.trace = Some(trace);
        self
    }
}

/// Why a decision appended nothing, or may have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError<R> {
    /// The closure said no; nothing was appended.
    #[error("rejected")]
    Rejected(R),
    /// Others kept appending to the key first; nothing was appended.
    #[error("the key is contended")]
    Contended,
    /// The key is halted on this pod, so its state is not the one to decide on.
    #[error("the key is halted on this pod: {}", .0.reason)]
    Halted(Halt),
    /// This pod's value lacks a record that it cannot decode, so it is not the one to decide on: deploy a binary that decodes the record,
    /// or [accept its loss](super::Engine::accept_loss).
    #[error("this pod cannot decode the key's record at {at}, so its state is not the one to decide on")]
    Incomplete {
        /// The first such record; [`Offset::BEGIN`] if there are more than are told apart.
        at: Offset,
    },
    /// This pod did not fold the record that won a race, or a log that was recreated, in time; nothing was appended.
    #[error("this pod lags behind the key's head")]
    Lagging,
    /// The append failed; see there whether it may have been committed.
    #[error("the decision was not appended")]
    Append(#[source] AppendFailed),
    /// The backplane failed before anything was appended.
    #[error("the key's head could not be read")]
    Backend(#[source] BackendError),
}

impl<R> DecideError<R> {
    /// Whether repeating the decision is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Rejected(_) | Self::Halted(_) | Self::Incomplete { .. } => Retry::Never,
            Self::Contended | Self::Lagging => Retry::Safe,
            Self::Append(error) => error.retry(),
            Self::Backend(error) => error.retry(),
        }
    }
}

impl<E, S> Events<E, S>
where
    E: Event + Fold<S>,
    S: Default,
{
    /// Appends what `decide` makes of the present state, only if nobody appended to the key meanwhile.
    ///
    /// If somebody did, this pod folds up to the conflicting record and `decide` runs again. If the log was recreated
    /// meanwhile, this pod folds the new one first: nothing is decided on the old one's state. Decisions of one key run one
    /// at a time on a pod. Answers where the last event stands, or `None` if `decide` returned no events.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use via_backplane::{Engine, Event, Events, Fold, Recorded};
    /// # #[derive(Serialize, Deserialize, Event)]
    /// # #[event(name = "stock.taken")]
    /// # struct Taken { items: u32 }
    /// # impl Fold<u32> for Taken { fn fold(self, taken: &mut u32, _at: &Recorded) { *taken += self.items; } }
    /// # async fn doc(stock: Events<Taken, u32>) -> Result<(), Box<dyn std::error::Error>> {
    /// let sold = stock.decide(|taken| if *taken < 10 { Ok(vec![Taken { items: 1 }]) } else { Err("sold out") }).await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DecideError`], bounded in attempts and time.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer; a decision under way may still be committed.
    pub async fn decide<R>(
        &self,
        decide: impl FnMut(&S) -> Result<Vec<E>, R>,
    ) -> Result<Option<Position>, DecideError<R>> {
        self.decide_with(DecideOptions::default(), decide).await
    }

    /// As [`decide`](Self::decide), with a trace context.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    ///
    /// # Cancel safety
    /// As [`decide`](Self::decide).
    pub async fn decide_with<R>(
        &self,
        options: DecideOptions,
        mut decide: impl FnMut(&S) -> Result<Vec<E>, R>,
    ) -> Result<Option<Position>, DecideError<R>> {
        let _turn = self.projection.deciding.lock().await;
        let mut delays =
            Delays::new(Duration::from_millis(1), Duration::from_millis(250), self.core.ambient.seed());
        let mut view = self.present().await?;
        for _ in 0..MAX_ATTEMPTS {
            let events = decide(&view).map_err(DecideError::Rejected)?;
            if events.is_empty() {
                return Ok(None);
            }
            // With an id, an unknown outcome is resolved by repeating; the expectation keeps a late first
            // attempt and its repeat from both landing.
            let mut append = AppendOptions::default().id(self.decision_id()).expect_head(view.key_head());
            if let Some(trace) = options.trace {
                append = append.trace(trace);
            }
            match self.append_batch_with(events, append).await {
                Ok(position) => return Ok(Some(position)),
                Err(AppendFailed::Conflict { head, .. }) => {
                    drop(view);
                    delays.wait().await;
                    view = self.caught_up(head).await?;
                }
                Err(error) => return Err(DecideError::Append(error)),
            }
        }
        Err(DecideError::Contended)
    }

    fn decision_id(&self) -> AppendId {
        AppendId::new(format!("decide-{:032x}", self.core.ambient.entropy.bits())).expect("the id is short")
    }

    async fn present<R>(&self) -> Result<View<S>, DecideError<R>> {
        let mut changes = self.changes();
        let present = async {
            loop {
                if let Some(halt) = self.projection.halted() {
                    return Err(DecideError::Halted(halt));
                }
                if let Some(view) = self.read() {
                    // Looked at after the value, which lacks it.
                    let lacks = self.projection.lacks();
                    return lacks.map_or(Ok(view), |at| Err(DecideError::Incomplete { at }));
                }
                changes.changed().await;
            }
        };
        timeout(CATCH_UP, present).await.map_err(|_| DecideError::Lagging)?
    }

    /// The value once it has folded the record that won. A value of another epoch has not, whatever its offset.
    async fn caught_up<R>(&self, head: Option<Head>) -> Result<View<S>, DecideError<R>> {
        let head = match head {
            Some(head) => head,
            None => {
                let selector = Selector::Key(self.key().clone());
                self.core.backplane.log().head(&selector).await.map_err(DecideError::Backend)?
            }
        };
        let mut changes = self.changes();
        let reached = async {
            loop {
                let view = self.present().await?;
                let folded = view.key_head();
                if folded.epoch == head.epoch && folded.offset >= head.offset {
                    return Ok(view);
                }
                drop(view);
                changes.changed().await;
            }
        };
        timeout(CATCH_UP, reached).await.map_err(|_| DecideError::Lagging)?
    }
}
