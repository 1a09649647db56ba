//! What a key's compaction is confirmed by: its snapshots, compared with its log.

use futures_util::{FutureExt as _, future::BoxFuture};

use super::{
    Core, compaction,
    decode::identity,
    snapshots::{Generation, Header},
};
use crate::{BackendError, BoxError, Epoch, Key, Offset, ReadRange, Selector};

/// Confirms compactions by the keys' manifests.
pub(super) struct Holds(pub(super) Core);

impl compaction::Holds for Holds {
    fn confirm<'a>(
        &'a self,
        key: &'a Key,
        epoch: Epoch,
        limit: Offset,
    ) -> BoxFuture<'a, Result<Option<Offset>, BoxError>> {
        async move {
            let snapshots = self.0.snapshots(key);
            let checked = self.not_refuted(key, epoch).await?;
            Ok(snapshots.confirm_compaction(epoch, limit, &checked).await?)
        }
        .boxed()
    }
}

impl Holds {
    /// The snapshots that the log does not refute: a manifest can outlive its log (PROTOCOL §1).
    async fn not_refuted(&self, key: &Key, epoch: Epoch) -> Result<Vec<Generation>, BoxError> {
        let Some(held) = self.0.snapshots(key).manifest().await? else { return Ok(Vec::new()) };
        let mut checked = Vec::new();
        for snapshot in [held.value.current(), held.value.previous()].into_iter().flatten() {
            if self.stands_in_the_log(key, epoch, &snapshot.header()).await? {
                checked.push(snapshot.generation());
            }
        }
        Ok(checked)
    }

    async fn stands_in_the_log(
        &self,
        key: &Key,
        epoch: Epoch,
        header: &Header,
    ) -> Result<bool, BackendError> {
        let stands_at = header.key_head;
        if header.covered.epoch != epoch {
            return Ok(false);
        }
        let backplane = &self.0.backplane;
        let after = Offset(stands_at.offset.0.saturating_sub(1));
        let range = ReadRange { after, up_to: stands_at.offset, limit: 1 };
        let page = backplane.log().read(&Selector::Key(key.clone()), range).await?;
        match page.iter().next() {
            Some(record) => Ok(page.epoch() == epoch && identity(&record) == stands_at.id),
            None => match backplane.compactor() {
                Some(compactor) => Ok(compactor.floor(key).await? > stands_at.offset),
                None => Ok(false),
            },
        }
    }
}
