//! What a key's compaction is confirmed by: its snapshots, compared with its log.

use futures_util::{FutureExt as _, future::BoxFuture};

use super::{
    Core, compaction, lineage,
    snapshots::{Generation, Header},
};
use crate::{BackendError, BoxError, Epoch, Key, Offset};

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
        Ok(lineage::holds_key_head(&self.0, key, epoch, header).await?
            && lineage::holds_covered(&self.0, key, header).await?)
    }
}
