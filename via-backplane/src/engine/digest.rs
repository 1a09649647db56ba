//! A hash of a state, by which pods compare what they have folded.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use super::{Core, projection::Published, supervisor::JobError};
use crate::{Codec as _, EncodeError, FoldState, codec::MessagePack};

/// How often an encoding is decoded and encoded again to see whether it stays the same. A map of two entries comes out in the
/// same order every other time.
const TRIES: usize = 16;

/// The BLAKE3 digest of a state as snapshots keep it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub(crate) [u8; 32]);

impl Digest {
    /// The digest of a state.
    ///
    /// # Errors
    /// [`EncodeError`] if the state cannot be written down.
    pub fn of<S: FoldState>(state: &S) -> Result<Self, EncodeError> {
        bytes_of(state).map(|bytes| Self::of_bytes(&bytes))
    }

    /// The digest of an encoded state.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// All of it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A value with the digest of its state, which is computed off the fold path.
pub(super) async fn digested<S: FoldState, V: AsRef<S> + Send + 'static>(
    core: &Core,
    value: V,
) -> Result<(V, Result<Digest, EncodeError>), JobError> {
    let digest = move || {
        let digest = Digest::of(value.as_ref());
        (value, digest)
    };
    core.copy("digest of a state".to_owned(), digest).await
}

/// Encodes a value off the fold path; the error says why it cannot be.
pub(super) async fn encode<S: FoldState>(
    core: &Core,
    value: Arc<Published<S>>,
) -> Result<Result<Bytes, EncodeError>, JobError> {
    core.copy("encode a state".to_owned(), move || bytes_of(&value.state)).await
}

/// As [`is_comparable`], of a value that is not encoded yet.
pub(super) async fn has_an_order<S: FoldState, V: AsRef<S> + Send + 'static>(
    core: &Core,
    value: V,
) -> Result<(V, bool), JobError> {
    let look = move || {
        let is_canonical = bytes_of(value.as_ref()).is_ok_and(|bytes| is_canonical::<S>(&bytes));
        (value, is_canonical)
    };
    core.copy("compare a state".to_owned(), look).await
}

/// A state as snapshots have it.
pub(super) fn bytes_of<S: FoldState>(state: &S) -> Result<Bytes, EncodeError> {
    let mut bytes = Vec::new();
    MessagePack::encode(state, &mut bytes)?;
    Ok(bytes.into())
}

/// Whether another digest of the same records means another value.
///
/// A state that holds a `HashMap` or a `HashSet` is written in an order that differs from pod to pod, so its digests say nothing.
/// Decoding it and encoding it again gives that away.
pub(super) async fn is_comparable<S: FoldState>(core: &Core, bytes: Bytes) -> Result<bool, JobError> {
    core.copy("compare a state".to_owned(), move || is_canonical::<S>(&bytes)).await
}

/// Whether equal states of this type are written as equal bytes, as far as this one shows.
pub(super) fn is_canonical<S: FoldState>(bytes: &[u8]) -> bool {
    let again = |_| {
        let state: Result<S, _> = MessagePack::decode(bytes);
        state.is_ok_and(|state| bytes_of(&state).is_ok_and(|again| again == bytes))
    };
    (0..TRIES).all(again)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use super::*;

    fn canonical<S: FoldState>(state: &S) -> bool {
        is_canonical::<S>(&bytes_of(state).expect("it encodes"))
    }

    #[test]
    fn what_has_an_order_of_its_own_is_told_from_what_has_none() {
        let pairs = [("one", 1), ("two", 2)].map(|(name, n)| (name.to_owned(), n));
        assert!(canonical(&Vec::from(pairs.clone())));
        assert!(canonical(&BTreeMap::from(pairs.clone())));
        assert!(!canonical(&HashMap::from(pairs.clone())), "of two entries");
        assert!(!canonical(&HashSet::from(pairs.map(|(name, _)| name))), "of two entries");
        assert!(canonical(&HashMap::from([("one".to_owned(), 1)])), "there is but one order of one");
    }
}
