//! One current value shared by everyone.

use std::{any::type_name, fmt};

use serde::{Serialize, de::DeserializeOwned};
use via_backplane::{Cell, UpdateError, View as Snapshot};

use crate::{
    Cx, Read, Result, View,
    error::{Refusals, Refused},
    read::Text,
    state::{Field, Slot},
};

/// One current value shared by everyone on every pod, changed by compare-and-swap.
///
/// Only the latest value is kept. Choose it where changes are rare and the last word counts, such as a setting.
pub struct StateApp<T> {
    cell: Cell<T>,
}

impl<T> StateApp<T>
where
    T: Serialize + DeserializeOwned + Clone + Default + Send + Sync + 'static,
{
    /// The value now, and the view's promise to run again when it changes.
    #[must_use]
    pub fn read(&self, cx: &View) -> Read<T> {
        cx.track(self.cell.changes());
        if let Some(snapshot) = self.cell.read() {
            return Read::loaded(snapshot);
        }
        let cell = self.cell.clone();
        cx.miss(async move { drop(cell.loaded().await) });
        Read::cold()
    }

    /// The value as text for `html!`.
    #[must_use]
    pub fn text(&self, cx: &View) -> Text<T>
    where
        T: fmt::Display,
    {
        Text(self.read(cx))
    }

    /// The value in an action, loading it first where needed.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn loaded(&self, _cx: &Cx) -> Snapshot<T> {
        self.cell.loaded().await
    }

    /// Changes the value; the closure may run more than once, and may refuse.
    ///
    /// # Errors
    /// What the closure refused with, or why the backplane could not write.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not a write under way.
    pub async fn update(&self, _cx: &Cx, mut change: impl FnMut(&mut T) -> Result<()> + Send) -> Result<()> {
        let mut refusals = Refusals::default();
        let outcome = self.cell.update(|value| change(value).map_err(|error| refusals.keep(error))).await;
        outcome.map_err(|error| {
            let refused = matches!(error, UpdateError::Rejected(Refused));
            refusals.restore(error, refused)
        })
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// If the backplane could not write, or may have and cannot say so.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not a write under way.
    pub async fn set(&self, _cx: &Cx, value: T) -> Result<()> {
        Ok(self.cell.set(value).await?)
    }
}

impl<T> fmt::Debug for StateApp<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateApp<{}>", type_name::<T>())
    }
}

impl<T> Field for StateApp<T>
where
    T: Serialize + DeserializeOwned + Clone + Default + Send + Sync + 'static,
{
    fn bind(slot: Slot<'_, '_>) -> Result<Self> {
        Ok(Self { cell: slot.binder.engine.cell_at(slot.key, slot.place)? })
    }
}
