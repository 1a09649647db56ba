//! Loss is never guessed: a hole is crossed only with a fresh ceiling (PROTOCOL §2).

use super::{Ended, Projector};
use crate::{Batch, Event, Fold, FoldState, Head, Offset};

impl<E, S> Projector<E, S>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    /// Asks, before a batch is taken, whether what it jumps over may have been dropped.
    ///
    /// Offsets have holes by nature, so every batch is looked at, and the look is a comparison: the ceiling is known unless it
    /// was asked for half a grace period ago. A pod that follows the log is above it. One that was paused for longer than a
    /// record that may go is announced is not, and then every key may have missed records: each is loaded anew.
    pub(super) async fn look_for_holes(&mut self, batch: &Batch) -> Result<(), Ended> {
        if self.core.backplane.compactor().is_none() {
            return Ok(());
        }
        if let Some(hole) = batch.hole() {
            let lost: Vec<_> = hole.floors.iter().filter_map(|(key, _)| self.keys.find(key)).collect();
            let upto = batch.last().map_or(self.cursor.offset, |record| record.offset);
            lost.into_iter().for_each(|id| self.may_have_missed(id, upto));
        }
        let ceiling = self.ceiling.fresh(self.cursor.epoch).await?;
        if self.cursor.offset.0 + 1 >= ceiling.0 || self.keys.is_empty() {
            return Ok(());
        }
        // Whatever is dropped by now lies below this head, and a load that begins now goes up to it.
        let core = self.core.clone();
        let head = core.backplane.log().head(&self.selector).await?;
        self.reload_all_below(ceiling, head)
    }

    fn reload_all_below(&mut self, ceiling: Offset, head: Head) -> Result<(), Ended> {
        if head.epoch != self.cursor.epoch && self.core.ambient.rules().compare_epochs {
            return Err(Ended::Changed);
        }
        for id in self.keys.ids() {
            let Some(keyed) = self.keys.get(id) else { continue };
            if keyed.began_at.max(keyed.complete_to).0 + 1 < ceiling.0 {
                self.may_have_missed(id, head.offset);
            }
        }
        Ok(())
    }

    fn may_have_missed(&mut self, id: crate::engine::keys::KeyId, upto: Offset) {
        // A halted key takes nothing from the tail: it reads from its own cursor when it resumes.
        if self.keys.get(id).is_some_and(|keyed| !keyed.halted) {
            self.reload(id, upto);
        }
    }
}
