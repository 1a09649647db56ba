//! One current value in the store, with a local copy on this pod.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use metrics::counter;
use parking_lot::{Mutex, MutexGuard};
use prost::Message as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use super::{
    Core,
    changes::Changes,
    metrics::{CELL_CONFLICTS, CELL_UNDECODABLE, CELL_UPDATES},
    projection::{Published, View},
    write::{Failed, Lost, Write, Writer},
};
use crate::{
    BackendError, CellKey, Codec as _, CodecId, Cursor, DecodeError, EncodeError, Epoch, Expected, Retry,
    Rev, TooLarge, Ttl, Versioned, codec::MessagePack,
};

/// Lost races after which an update gives up.
const MAX_ATTEMPTS: usize = 64;

/// A shared value: changed by compare-and-swap, read from a local copy that a watch keeps right.
///
/// # Guarantees
///
/// - [`read`](Self::read) never waits; it may lag the newest write by one hop.
/// - An [`update`](Self::update) that returned is stored, and the next `read` on this pod sees it or something newer.
/// - An update's closure is never run on a value that already holds its own effect: where that cannot be told, the
///   update answers [`UpdateError::MaybeCommitted`].
///
/// ```
/// # async fn doc(engine: via_backplane::Engine) -> Result<(), Box<dyn std::error::Error>> {
/// let theme = engine.cell::<String>("theme")?;
/// theme.set("dark".to_owned()).await?;
/// assert_eq!(theme.read().as_deref().map(String::as_str), Some("dark"));
/// # Ok(())
/// # }
/// ```
pub struct Cell<T> {
    pub(super) core: Core,
    pub(super) local: Arc<Local<T>>,
}

/// Why an update did not take place, or may have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError<R = std::convert::Infallible> {
    /// The closure said no; nothing was written.
    #[error("rejected")]
    Rejected(R),
    /// Others kept writing first; nothing was written.
    #[error("the cell is contended")]
    Contended,
    /// The outcome is unknown: the update may be stored, may be overwritten already, or may still land.
    #[error("the update may or may not have been committed")]
    MaybeCommitted(#[source] BackendError),
    /// Larger than the backplane takes; nothing was written.
    #[error("the value is too large")]
    TooLarge(#[source] TooLarge),
    /// The value could not be encoded; nothing was written.
    #[error("the value could not be encoded")]
    Encode(#[source] EncodeError),
    /// What is stored does not decode as this type, and is not overwritten.
    #[error("the stored value does not decode")]
    Undecodable(#[source] DecodeError),
    /// The backplane failed; nothing was written.
    #[error("the cell could not be updated")]
    Backend(#[source] BackendError),
}

impl<R> UpdateError<R> {
    /// Whether repeating the update is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Contended => Retry::Safe,
            Self::MaybeCommitted(_) => Retry::MayDuplicate,
            Self::Backend(error) => error.retry(),
            _ => Retry::Never,
        }
    }

    fn outcome(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::Contended => "contended",
            Self::MaybeCommitted(_) => "unknown",
            _ => "failed",
        }
    }
}

/// A cell as it is stored; see `docs/wire-format.md`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredCell {
    /// The write that stored it: how a writer knows its own.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) nonce: Bytes,
    #[prost(uint32, tag = "2")]
    pub(super) codec: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) payload: Bytes,
}

impl StoredCell {
    fn decode_value<T: Serialize + DeserializeOwned>(bytes: &Bytes) -> Result<T, DecodeError> {
        let malformed = |source| DecodeError::Payload { codec: CodecId::PROTOBUF, source };
        let stored = Self::decode(bytes.clone()).map_err(|error| malformed(Box::new(error)))?;
        if stored.codec != CodecId::MESSAGE_PACK.0 {
            return Err(DecodeError::ForeignCodec {
                codec: CodecId(stored.codec),
                expected: CodecId::MESSAGE_PACK,
            });
        }
        MessagePack::decode(&stored.payload)
    }
}

impl<T> Cell<T> {
    /// The name in the store.
    #[must_use]
    pub fn key(&self) -> &CellKey {
        &self.local.key
    }

    /// The value now, or `None` if it is not loaded yet (loading has begun). Never waits. A cell that was never written
    /// holds the type's default.
    #[must_use]
    pub fn read(&self) -> Option<View<T>> {
        let value = self.local.slot.lock().value.clone()?;
        Some(View::new(value, Epoch::default(), crate::Offset::BEGIN))
    }

    /// Tells when the value changes or becomes loaded.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes::new(Arc::from(format!("cell {}", self.key())), self.local.version.subscribe())
    }

    /// The value, once it is loaded.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn loaded(&self) -> View<T> {
        let mut changes = self.changes();
        loop {
            if let Some(view) = self.read() {
                return view;
            }
            if !changes.changed().await {
                unreachable!("the local copy outlives its handles");
            }
        }
    }
}

impl<T> Cell<T>
where
    T: Serialize + DeserializeOwned + Clone + Default + Send + Sync + 'static,
{
    /// Replaces the value.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    ///
    /// # Cancel safety
    /// As [`update`](Self::update).
    pub async fn set(&self, value: T) -> Result<(), UpdateError> {
        self.update(|present| {
            present.clone_from(&value);
            Ok(())
        })
        .await
    }

    /// Changes the value by what `change` makes of it; runs it again when somebody else wrote first.
    ///
    /// Updates of one cell run one at a time on a pod.
    ///
    /// # Errors
    /// [`UpdateError::Rejected`] with what `change` returned; else see there.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not a write under way: it may still be committed.
    pub async fn update<R>(&self, change: impl FnMut(&mut T) -> Result<(), R>) -> Result<(), UpdateError<R>> {
        let _turn = self.local.updating.lock().await;
        let outcome = self.try_update(change).await;
        let label = outcome.as_ref().err().map_or("written", UpdateError::outcome);
        counter!(CELL_UPDATES, "outcome" => label).increment(1);
        outcome
    }

    async fn try_update<R>(
        &self,
        mut change: impl FnMut(&mut T) -> Result<(), R>,
    ) -> Result<(), UpdateError<R>> {
        let writer = self.writer();
        let mut delays = writer.delays(Duration::from_millis(1), Duration::from_millis(250));
        for _ in 0..MAX_ATTEMPTS {
            let store = self.local.store();
            let present = writer.store.load(self.key()).await.map_err(UpdateError::Backend)?;
            let mut value = match &present {
                Some(present) => {
                    StoredCell::decode_value(&present.bytes).map_err(UpdateError::Undecodable)?
                }
                None => T::default(),
            };
            change(&mut value).map_err(UpdateError::Rejected)?;
            let write = replace(self.key(), present, &value, writer.nonce()).map_err(UpdateError::Encode)?;
            match writer.commit(&write).await {
                Ok(rev) => {
                    self.local.wrote(store, rev, value);
                    return Ok(());
                }
                Err(Lost::Conflict) => {
                    counter!(CELL_CONFLICTS).increment(1);
                    delays.wait().await;
                }
                Err(Lost::Failed(error)) => return Err(error.into()),
            }
        }
        Err(UpdateError::Contended)
    }

    fn writer(&self) -> Writer<'_> {
        Writer {
            store: self.core.backplane.store(),
            entropy: &*self.core.ambient.entropy,
            rules: self.core.ambient.rules(),
        }
    }
}

impl<T> Clone for Cell<T> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), local: self.local.clone() }
    }
}

impl<T> fmt::Debug for Cell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell").field("key", self.key()).finish_non_exhaustive()
    }
}

/// The compare-and-swap that puts `value` in the place of what was loaded.
fn replace<'a, T: Serialize + DeserializeOwned>(
    key: &'a CellKey,
    present: Option<Versioned>,
    value: &T,
    nonce: Bytes,
) -> Result<Write<'a>, EncodeError> {
    let mut payload = Vec::new();
    MessagePack::encode(value, &mut payload)?;
    let stored = StoredCell { nonce: nonce.clone(), codec: CodecId::MESSAGE_PACK.0, payload: payload.into() };
    let expected = present.map_or(Expected::Absent, |present| Expected::At(present.rev));
    Ok(Write { key, expected, nonce, bytes: stored.encode_to_vec().into(), ttl: Ttl::Forever })
}

impl<R> From<Failed> for UpdateError<R> {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::TooLarge(error) => Self::TooLarge(error),
            Failed::Backend(error) => Self::Backend(error),
            Failed::Unknown(error) => Self::MaybeCommitted(error),
        }
    }
}

/// A cell's copy on this pod.
pub(super) struct Local<T> {
    pub(super) key: CellKey,
    slot: Mutex<Slot<T>>,
    version: watch::Sender<u64>,
    updating: tokio::sync::Mutex<()>,
}

struct Slot<T> {
    /// The revision of `value`, or of its removal; `None` if the store never said one.
    rev: Option<Rev>,
    /// `None` until the store was asked.
    value: Option<Arc<Published<T>>>,
    /// A replay of the present is under way and has not brought this cell, nor has this pod written it since.
    unconfirmed: bool,
    /// The store held `value`; else it is the default, because the store held nothing.
    is_stored: bool,
    /// The revision of a stored value that does not decode, newer than `value`.
    undecodable: Option<Rev>,
    /// Counts the stores this copy has followed, each with revisions of its own.
    store: u64,
}

impl<T: Default> Local<T> {
    pub(super) fn new(key: CellKey) -> Self {
        Self {
            key,
            slot: Mutex::new(Slot {
                rev: None,
                value: None,
                unconfirmed: false,
                is_stored: false,
                undecodable: None,
                store: 0,
            }),
            version: watch::Sender::new(0),
            updating: tokio::sync::Mutex::new(()),
        }
    }

    /// Which store is followed now.
    fn store(&self) -> u64 {
        self.slot.lock().store
    }

    /// Takes what this pod wrote, unless the store it was written to was replaced meanwhile: its revisions would hide
    /// those of the new one.
    fn wrote(&self, store: u64, rev: Rev, value: T) {
        let slot = self.slot.lock();
        if slot.store == store {
            self.take_into(slot, Some(rev), Some(value));
        }
    }

    /// Remembers that the store holds what this binary cannot read, unless a newer value is held.
    fn pass_over(&self, rev: Rev) {
        let mut slot = self.slot.lock();
        if slot.rev < Some(rev) {
            slot.undecodable = slot.undecodable.max(Some(rev));
        }
    }

    /// Takes a value of the store, unless a newer one is held.
    fn take(&self, rev: Option<Rev>, value: Option<T>) {
        self.take_into(self.slot.lock(), rev, value);
    }

    fn take_into(&self, mut slot: MutexGuard<'_, Slot<T>>, rev: Option<Rev>, value: Option<T>) {
        slot.unconfirmed = false;
        if slot.value.is_some() && (rev.is_none() || slot.rev >= rev) {
            return;
        }
        let version = *self.version.borrow() + 1;
        slot.rev = rev.or(slot.rev);
        if slot.rev >= slot.undecodable {
            slot.undecodable = None;
        }
        slot.is_stored = value.is_some();
        let state = value.unwrap_or_default();
        slot.value = Some(Arc::new(Published { state, version, key_head: Cursor::begin(Epoch::default()) }));
        // Sent under the lock, so that versions are announced in order.
        self.version.send_replace(version);
    }
}

/// Which store a replay is of. Another one counts its revisions anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    /// The first one on this pod: what it wrote before may have gone to a store that was recreated since.
    First,
    SameStore,
    OtherStore,
}

/// A local copy, whatever its type: what the watch talks to.
pub(super) trait Watched: Send + Sync {
    fn key(&self) -> &CellKey;
    /// The store holds these bytes.
    fn put(&self, rev: Rev, bytes: &Bytes);
    /// The store holds nothing, since this revision if it is known.
    fn gone(&self, rev: Option<Rev>);
    /// A replay of the present begins.
    fn begin(&self, replay: Replay);
    /// The replay ended without this cell.
    fn was_not_replayed(&self);
    /// Whether the store holds a value that this binary cannot read.
    fn is_undecodable(&self) -> bool;
}

impl<T> Watched for Local<T>
where
    T: Serialize + DeserializeOwned + Default + Send + Sync,
{
    fn key(&self) -> &CellKey {
        &self.key
    }

    fn put(&self, rev: Rev, bytes: &Bytes) {
        match StoredCell::decode_value(bytes) {
            Ok(value) => self.take(Some(rev), Some(value)),
            Err(error) => {
                self.pass_over(rev);
                counter!(CELL_UNDECODABLE).increment(1);
                tracing::error!(cell = %self.key, rev = rev.0, %error, "the stored value does not decode; the last good one is kept");
            }
        }
    }

    fn gone(&self, rev: Option<Rev>) {
        self.take(rev, None);
    }

    fn begin(&self, replay: Replay) {
        let mut slot = self.slot.lock();
        if replay != Replay::SameStore {
            (slot.rev, slot.undecodable) = (None, None);
        }
        if replay == Replay::OtherStore {
            slot.store += 1;
        }
        slot.unconfirmed = true;
    }

    fn was_not_replayed(&self) {
        let mut slot = self.slot.lock();
        slot.undecodable = None;
        // A default that stays one is no change.
        if slot.unconfirmed && (slot.is_stored || slot.value.is_none()) {
            slot.value = None;
            self.take_into(slot, None, None);
        }
    }

    fn is_undecodable(&self) -> bool {
        self.slot.lock().undecodable.is_some()
    }
}
