//! A hash of a state, by which pods compare what they have folded.

use std::fmt;

use super::{Core, supervisor::JobError};
use crate::{Codec as _, EncodeError, FoldState, codec::MessagePack};

/// The BLAKE3 digest of a state as snapshots keep it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub(crate) [u8; 32]);

impl Digest {
    /// The digest of a state.
    ///
    /// # Errors
    /// [`EncodeError`] if the state cannot be written down.
    pub fn of<S: FoldState>(state: &S) -> Result<Self, EncodeError> {
        let mut bytes = Vec::new();
        MessagePack::encode(state, &mut bytes)?;
        Ok(Self(*blake3::hash(&bytes).as_bytes()))
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
