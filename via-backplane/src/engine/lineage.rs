//! Whether a snapshot is of the log that is there: a manifest can outlive its log (PROTOCOL §1).

use super::{Core, control::Control, decode::identity, snapshots::Header};
use crate::{BackendError, Cursor, Epoch, ErrorKind, Key, Offset, ReadRange, Selector};

/// Whether the log of `epoch` is the one a key's snapshot was folded from, as far as it still has the records that tell.
///
/// The key's own record that the snapshot ends with has to be there, or below the key's floor.
pub(super) async fn holds_key_head(
    core: &Core,
    key: &Key,
    epoch: Epoch,
    header: &Header,
) -> Result<bool, BackendError> {
    let stands_at = header.key_head;
    if header.covered.epoch != epoch {
        return Ok(false);
    }
    match identity_at(core, &Selector::Key(key.clone()), epoch, stands_at).await? {
        Some(same) => Ok(same),
        None => floor_is_above(core, key, stands_at.offset).await,
    }
}

/// Whether the family's record that a snapshot is complete up to is there, or may have been dropped.
///
/// A log that was put back from an older copy may hold the key's record and others than the snapshot knows between the two. Where the
/// record is gone and no ceiling explains it, the snapshot covers no more than its own last record.
pub(super) async fn holds_covered(core: &Core, key: &Key, header: &Header) -> Result<bool, BackendError> {
    let covered = header.covered;
    if covered == header.key_head || !core.ambient.rules().compare_record_ids {
        return Ok(true);
    }
    let family = key.family();
    if let Some(same) = identity_at(core, &Selector::Family(family.clone()), covered.epoch, covered).await? {
        return Ok(same);
    }
    let control = Control::new(core.backplane.clone(), core.ambient.entropy.clone(), family.clone());
    let ceiling = control.ceiling().await.map_err(|error| {
        BackendError::new(ErrorKind::Unavailable, "the family's ceiling could not be read").with_source(error)
    })?;
    Ok(ceiling.is_some_and(|ceiling| ceiling.epoch == covered.epoch && ceiling.offset > covered.offset))
}

/// Whether the record at a cursor is the one it says; `None` if there is none.
async fn identity_at(
    core: &Core,
    selector: &Selector,
    epoch: Epoch,
    cursor: Cursor,
) -> Result<Option<bool>, BackendError> {
    if cursor.offset == Offset::BEGIN {
        return Ok(Some(true));
    }
    let range = ReadRange { after: Offset(cursor.offset.0 - 1), up_to: cursor.offset, limit: 1 };
    let page = core.backplane.log().read(selector, range).await?;
    let record = page.iter().next();
    Ok(record.map(|record| page.epoch() == epoch && identity(&record) == cursor.id))
}

/// Whether a key's records below its floor explain that one at `offset` is gone.
pub(super) async fn floor_is_above(core: &Core, key: &Key, offset: Offset) -> Result<bool, BackendError> {
    match core.backplane.compactor() {
        Some(compactor) => Ok(compactor.floor(key).await? > offset),
        None => Ok(false),
    }
}
