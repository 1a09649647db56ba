//! Folding each record twice, where the app wants to know whether its folds keep their contract.

use super::Projector;
use crate::{
    Event, Fold, FoldState,
    engine::{
        keys::KeyId,
        projection::Run,
        shadow::{Between, Shadow},
    },
};

impl<E, S> Projector<E, S>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    /// Begins the second value of a key at the one that is shown.
    pub(super) fn shadow(&mut self, id: KeyId) {
        if !self.core.settings.fold_verify {
            return;
        }
        let Some(keyed) = self.keys.get_mut(id) else { return };
        keyed.shadow = keyed.copies.hold().map(|value| Box::new(Shadow::of(&value)));
    }

    /// Folds a run that was folded into the shown value into the second one as well, and compares them now and then.
    pub(super) fn fold_again(&mut self, id: KeyId, run: Run<'_>) {
        let Some(keyed) = self.keys.get_mut(id) else { return };
        let Some(shadow) = &mut keyed.shadow else { return };
        shadow.fold::<E>(run);
        // What waits for a copy is not in the shown value yet.
        let Some(published) = keyed.copies.hold().filter(|_| keyed.copies.is_settled()) else { return };
        let Some(Between { after, by }) = shadow.compare(&published) else { return };
        **shadow = Shadow::of(&published);
        drop(published);
        let key = keyed.copies.shared.key.clone();
        tracing::error!(%key, %after, %by, "a fold of the same records gave two values: it depends on something else");
        self.family.metrics.divergence.increment(1);
        self.hold_all(key);
    }
}
