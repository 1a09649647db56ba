//! Event-sourced state shared by everyone.

use std::{any::type_name, fmt};

use via_backplane::{
    AppendFailed, AppendOptions, DeadLetter, DecideError, DecideOptions, Event, Events, Fold, FoldState,
    Position, View as Snapshot,
};

use crate::{
    Cx, Read, Result, View,
    error::{Refusals, Refused},
    read::Text,
    state::{Field, SavedField, Slot},
};

/// State shared by everyone on every pod, changed by appending events.
///
/// Every event is kept; the value is what folding them in order gives. Choose it where several people change one
/// thing at once, or where what happened matters; choose [`StateApp`](crate::StateApp) where only the latest value does.
pub struct StateAppEvents<E, S> {
    events: Events<E, S>,
}

impl<E, S> StateAppEvents<E, S>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    /// The value now, and the view's promise to run again when it changes.
    #[must_use]
    pub fn read(&self, cx: &View) -> Read<S> {
        cx.track(self.events.changes());
        if let Some(snapshot) = self.events.read() {
            return Read::loaded(snapshot);
        }
        let events = self.events.clone();
        cx.miss(async move { drop(events.loaded().await) });
        Read::cold()
    }

    /// The value as text for `html!`.
    #[must_use]
    pub fn text(&self, cx: &View) -> Text<S>
    where
        S: fmt::Display,
    {
        Text(self.read(cx))
    }

    /// The value in an action, loading it first where needed.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn loaded(&self, _cx: &Cx) -> Snapshot<S> {
        self.events.loaded().await
    }

    /// Appends one event and answers where it stands.
    ///
    /// # Errors
    /// If the backplane could not append, or may have and cannot say so.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the append.
    pub async fn append(&self, cx: &Cx, event: E) -> Result<Position, AppendFailed> {
        self.events.append_with(event, AppendOptions::default().trace(cx.trace())).await
    }

    /// Appends what `decide` makes of the present value, only if nobody appended meanwhile; else it runs again.
    ///
    /// Answers where the last event stands, or `None` if there was none to append.
    ///
    /// # Errors
    /// What the closure refused with; or others kept winning, this pod is halted or lags, or the backplane failed.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer; a decision under way may still be committed.
    pub async fn decide(
        &self,
        cx: &Cx,
        mut decide: impl FnMut(&S) -> Result<Vec<E>> + Send,
    ) -> Result<Option<Position>> {
        let mut refusals = Refusals::default();
        let options = DecideOptions::default().trace(cx.trace());
        let decided = self
            .events
            .decide_with(options, |state| decide(state).map_err(|error| refusals.keep(error)))
            .await;
        decided.map_err(|error| {
            let refused = matches!(error, DecideError::Rejected(Refused));
            refusals.restore(error, refused)
        })
    }

    /// The events that an effect of this state has given up, and the view's promise to run again when that changes.
    ///
    /// Nothing, until they are loaded. `self.orders.events().dead_letters("ship")?.redrive(…)` has them handled again.
    #[must_use]
    pub fn dead_letters(&self, cx: &View, effect: &str) -> Vec<DeadLetter> {
        let Ok(letters) = self.events.dead_letters(effect) else { return Vec::new() };
        cx.track(letters.changes());
        letters.read().unwrap_or_else(|| {
            cx.miss(async move { drop(letters.list().await) });
            Vec::new()
        })
    }

    /// The engine's handle, for all that it can do beyond this.
    #[must_use]
    pub fn events(&self) -> &Events<E, S> {
        &self.events
    }
}

impl<E, S> fmt::Debug for StateAppEvents<E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateAppEvents<{}, {}>", type_name::<E>(), type_name::<S>())
    }
}

impl<E, S> Field for StateAppEvents<E, S>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    fn bind(slot: Slot<'_, '_>) -> Result<Self> {
        Ok(Self { events: slot.binder.engine.events_at(slot.key, slot.place)? })
    }
}

impl<E, S> SavedField for StateAppEvents<E, S>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    fn with_snapshot_interval(self, records: u64) -> Self {
        Self { events: self.events.with_snapshot_interval(records) }
    }
}
