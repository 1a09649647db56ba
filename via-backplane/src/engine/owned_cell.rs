//! Cells the engine itself keeps in the store: sealed, and changed by everybody in a bounded loop.
//!
//! Such a cell decides what may be dropped for ever, so it does not trust its bytes: each value is followed by the number of its
//! layout and a digest of all that precedes. What was flipped or cut short, or written by a binary that knows more, is an error, and is
//! never overwritten. `docs/wire-format.md` has the bytes.

use std::{fmt, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use super::{
    ambient::{Entropy, Rules},
    write::{Failed, Lost, Write, Writer},
};
use crate::{BackendError, CellKey, Expected, Retry, Rev, Store, TooLarge, Ttl, Versioned};

/// Lost races after which a change gives up.
const MAX_ATTEMPTS: usize = 64;
/// The key of field 15 and the length of what follows, which end every cell.
const SEAL: [u8; 2] = [0x7a, CHECK_BYTES as u8];
const CHECK_BYTES: usize = 16;

/// What a cell of the engine holds: a protobuf message that leaves the fields 1, 14 and 15 to the cell.
pub(crate) trait Owned: prost::Message + Default + Clone {
    /// The layout this binary writes, and the newest it reads. A field that an older binary must not drop when it writes the cell
    /// makes it a new one.
    const FORMAT: u32;
}

/// A value at the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held<T> {
    pub(crate) value: T,
    pub(crate) rev: Rev,
}

/// What an edit makes of a cell.
#[derive(Debug)]
pub(crate) enum Change<T> {
    /// Write this.
    Put(T),
    /// What is there is right.
    Keep,
}

/// What became of one write at one revision.
#[derive(Debug)]
pub(crate) enum Put<T> {
    Written(Held<T>),
    /// Somebody else wrote first; nothing was written.
    Conflict,
}

/// Why a cell of the engine could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnedError {
    /// The backplane failed; nothing was written.
    #[error("the backplane failed")]
    Backend(#[source] BackendError),
    /// Refused before anything was sent.
    #[error("the cell is too large")]
    TooLarge(#[source] TooLarge),
    /// The write may be stored, may be overwritten already, or may still land.
    #[error("the write may or may not have been committed")]
    Unknown(#[source] BackendError),
    /// Flipped, cut short, or not via's. It is left as it is.
    #[error("the bytes of the cell `{cell}` are damaged")]
    Garbled { cell: CellKey },
    /// Written by a binary that knows more than this one. It is left as it is.
    #[error("the cell `{cell}` has layout {format}, this binary knows {known}")]
    Newer { cell: CellKey, format: u32, known: u32 },
}

impl OwnedError {
    /// Whether repeating the call is right.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Backend(error) => error.retry(),
            Self::Unknown(_) => Retry::MayDuplicate,
            Self::TooLarge(_) | Self::Garbled { .. } | Self::Newer { .. } => Retry::Never,
        }
    }
}

/// Why a cell of the engine could not be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError<R: fmt::Debug> {
    /// The edit said no; nothing was written.
    #[error("the change was rejected")]
    Rejected(R),
    /// Others kept writing first; nothing was written.
    #[error("the cell is contended")]
    Contended,
    #[error("the cell could not be changed")]
    Cell(#[from] OwnedError),
}

/// The present value of a cell. It may lag: what cannot be undone is decided by [`change`] or [`put_at`].
pub(crate) async fn load<T: Owned>(store: &dyn Store, key: &CellKey) -> Result<Option<Held<T>>, OwnedError> {
    let found = store.load(key).await.map_err(OwnedError::Backend)?;
    found.map(|Versioned { rev, bytes }| Ok(Held { value: unseal(key, &bytes)?, rev })).transpose()
}

/// Changes a cell by what `edit` makes of it; answers what is stored then.
///
/// `edit` runs again when somebody else wrote first. An outcome that stays unknown is told: calling again is right where `edit` finds
/// its own effect and keeps it.
pub(crate) async fn change<T: Owned, R: fmt::Debug>(
    store: &dyn Store,
    entropy: &dyn Entropy,
    key: &CellKey,
    mut edit: impl FnMut(Option<&Held<T>>) -> Result<Change<T>, R>,
) -> Result<Option<Held<T>>, ChangeError<R>> {
    let mut delays = writer(store, entropy).delays(Duration::from_millis(1), Duration::from_millis(250));
    for _ in 0..MAX_ATTEMPTS {
        let present = load::<T>(store, key).await?;
        let value = match edit(present.as_ref()).map_err(ChangeError::Rejected)? {
            Change::Put(value) => value,
            Change::Keep => return Ok(present),
        };
        let expected = present.map_or(Expected::Absent, |present| Expected::At(present.rev));
        if let Put::Written(held) = put_at(store, entropy, key, expected, value).await? {
            return Ok(Some(held));
        }
        delays.wait().await;
    }
    Err(ChangeError::Contended)
}

/// Writes a cell that is at exactly this revision.
pub(crate) async fn put_at<T: Owned>(
    store: &dyn Store,
    entropy: &dyn Entropy,
    key: &CellKey,
    expected: Expected,
    value: T,
) -> Result<Put<T>, OwnedError> {
    put_for(store, entropy, key, expected, value, Ttl::Forever).await
}

/// As [`put_at`], for a cell that ends by itself.
pub(crate) async fn put_for<T: Owned>(
    store: &dyn Store,
    entropy: &dyn Entropy,
    key: &CellKey,
    expected: Expected,
    value: T,
    ttl: Ttl,
) -> Result<Put<T>, OwnedError> {
    let writer = writer(store, entropy);
    let nonce = writer.nonce();
    let bytes = seal(&nonce, &value);
    match writer.commit(&Write { key, expected, nonce, bytes, ttl }).await {
        Ok(rev) => Ok(Put::Written(Held { value, rev })),
        Err(Lost::Conflict) => Ok(Put::Conflict),
        Err(Lost::Failed(Failed::TooLarge(error))) => Err(OwnedError::TooLarge(error)),
        Err(Lost::Failed(Failed::Backend(error))) => Err(OwnedError::Backend(error)),
        Err(Lost::Failed(Failed::Unknown(error))) => Err(OwnedError::Unknown(error)),
    }
}

/// How many bytes the cell of this value has.
pub(crate) fn sealed_len<T: Owned>(value: &T) -> usize {
    seal(&Bytes::from_static(&[0; 16]), value).len()
}

/// The engine's own cells have no switches: what a test wants to break, it breaks in the store.
fn writer<'a>(store: &'a dyn Store, entropy: &'a dyn Entropy) -> Writer<'a> {
    Writer { store, entropy, rules: Rules::ALL }
}

/// What is around a value: protobuf messages one after the other are one message.
#[derive(Clone, PartialEq, prost::Message)]
struct Frame {
    #[prost(bytes = "bytes", tag = "1")]
    nonce: Bytes,
    #[prost(uint32, tag = "14")]
    format: u32,
}

fn seal<T: Owned>(nonce: &Bytes, value: &T) -> Bytes {
    let before = Frame { nonce: nonce.clone(), format: 0 };
    let after = Frame { nonce: Bytes::new(), format: T::FORMAT };
    let len = before.encoded_len() + value.encoded_len() + after.encoded_len() + SEAL.len() + CHECK_BYTES;
    let mut bytes = BytesMut::with_capacity(len);
    before.encode_raw(&mut bytes);
    value.encode_raw(&mut bytes);
    after.encode_raw(&mut bytes);
    let check = check(&bytes);
    bytes.put_slice(&SEAL);
    bytes.put_slice(&check);
    bytes.freeze()
}

fn unseal<T: Owned>(cell: &CellKey, bytes: &Bytes) -> Result<T, OwnedError> {
    let garbled = || OwnedError::Garbled { cell: cell.clone() };
    let end = bytes.len().checked_sub(SEAL.len() + CHECK_BYTES).ok_or_else(garbled)?;
    let (sealed, seal) = (bytes.slice(..end), &bytes[end..]);
    if seal[..SEAL.len()] != SEAL || seal[SEAL.len()..] != check(&sealed) {
        return Err(garbled());
    }
    let format = Frame::decode(sealed.clone()).map_err(|_| garbled())?.format;
    if format > T::FORMAT {
        return Err(OwnedError::Newer { cell: cell.clone(), format, known: T::FORMAT });
    }
    T::decode(sealed).map_err(|_| garbled())
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a digest has 32 bytes")
}

#[cfg(test)]
mod tests;
