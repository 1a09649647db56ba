//! Choosing a snapshot to start from.

use bytes::Bytes;

use super::super::owned_cell::OwnedError;
use super::{super::owned_cell::Held, Generation, Header, Manifest, Snapshots};

/// How often a reader starts over because newer snapshots displaced those it was reading.
const MAX_RELOADS: usize = 16;

/// Why a snapshot's bytes cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// The manifest names a chunk that the store does not have.
    #[error("chunk {0} is missing")]
    Missing(u32),
    #[error("it has {found} bytes, its header says {expected}")]
    Length { expected: u64, found: u64 },
    #[error("its digest is not the one in its header")]
    Digest,
    /// Written in a way this binary does not know.
    #[error("its bytes have format {0}, which this binary does not know")]
    Format(u32),
}

/// A snapshot that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) generation: Generation,
    pub(crate) header: Header,
}

/// What reading a candidate came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// The state, as its header says.
    Bytes(Bytes),
    /// Whole, it is gone: a newer one has displaced it. The newer ones are among the next candidates.
    Displaced,
    Unusable(Unusable),
}

/// The snapshots of a key, the best first: current, previous, the one to roll back to.
pub(crate) struct Candidates<'a> {
    snapshots: &'a Snapshots<'a>,
    manifest: Option<Held<Manifest>>,
    /// Those that were handed out.
    tried: Vec<Generation>,
    reloads: usize,
}

impl Snapshots<'_> {
    /// What there is to start from.
    ///
    /// ```text
    /// let mut candidates = snapshots.candidates().await?;
    /// while let Some(candidate) = candidates.next() {
    ///     // Ask the log whether the header is of it, then:
    ///     match candidates.read(&candidate).await? { … }
    /// }
    /// ```
    pub(crate) async fn candidates(&self) -> Result<Candidates<'_>, OwnedError> {
        let manifest = self.manifest().await?;
        Ok(Candidates { snapshots: self, manifest, tried: Vec::new(), reloads: 0 })
    }
}

impl Candidates<'_> {
    /// The manifest the candidates are of.
    pub(crate) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref().map(|held| &held.value)
    }

    /// The best that was not handed out yet.
    pub(crate) fn next(&mut self) -> Option<Candidate> {
        let untried = self
            .manifest()?
            .snapshots()
            .into_iter()
            .find(|snapshot| !self.tried.contains(&snapshot.generation()))?;
        let candidate = Candidate { generation: untried.generation(), header: untried.header() };
        self.tried.push(candidate.generation);
        Some(candidate)
    }

    /// The bytes of a candidate.
    pub(crate) async fn read(&mut self, candidate: &Candidate) -> Result<Read, OwnedError> {
        loop {
            let named = self.manifest().and_then(|manifest| manifest.find(candidate.generation));
            let Some(snapshot) = named else { return Ok(Read::Displaced) };
            let bytes = self.snapshots.bytes_of(snapshot).await.map_err(OwnedError::Backend)?;
            let missing = match bytes {
                Ok(bytes) => return Ok(Read::Bytes(bytes)),
                Err(missing @ Unusable::Missing(_)) => missing,
                Err(unusable) => return Ok(Read::Unusable(unusable)),
            };
            // A newer commit may have displaced it while it was read: nothing is lost before the manifest was looked at again.
            if !self.snapshots.rules.reload_manifest || !self.reload().await? {
                return Ok(Read::Unusable(missing));
            }
        }
    }

    /// Loads the manifest again; false if it is still the same.
    async fn reload(&mut self) -> Result<bool, OwnedError> {
        let fresh = self.snapshots.manifest().await?;
        let rev = |held: &Option<Held<Manifest>>| held.as_ref().map(|held| held.rev);
        // A load may lag, and what it brings then is no news.
        if rev(&fresh) <= rev(&self.manifest) || self.reloads >= MAX_RELOADS {
            return Ok(false);
        }
        self.reloads += 1;
        self.manifest = fresh;
        Ok(true)
    }
}
