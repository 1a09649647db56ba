//! Comparing what a pod has folded with what its snapshots and its log say.

use std::sync::Arc;

use super::{
    Core, Engine,
    digest::{self, Digest, digested},
    family::Family,
    loader::{From, Load},
    losses::{as_backend, contended},
    notes::{self, Note},
    owned_cell::ChangeError,
    past::{self, FoldedFrom},
    projection::{Halt, HaltReason, Published},
    refold,
    supervisor::{JobError, OnStop},
};
use crate::{BackendError, EncodeError, Epoch, Event, Fold, FoldState, Key, Offset, Retry, Selector};

/// How often a comparison begins again because compaction overtook it.
const MAX_OVERTAKEN: usize = 8;

/// What comparing a key came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// This pod's value was compared as of this record.
    pub key_head: Offset,
    /// What the fold that it was compared with began at: the first record, or the oldest snapshot there is. That one is believed.
    pub from: FoldedFrom,
    /// The snapshots that were compared as well, by what they cover, the older first. One of another version of the state is not,
    /// and none is where this pod cannot decode all records.
    pub snapshots: Vec<Offset>,
    /// Where they part, the lowest first; nothing where all agree.
    pub parted: Vec<Parted>,
}

impl Verified {
    /// Whether everything that was compared agrees.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.parted.is_empty()
    }
}

/// Something that is not what the fold of the log gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parted {
    /// What is another value.
    pub who: Party,
    /// Up to here it was the same, or nobody knows more.
    pub after: Offset,
    /// Here it is another.
    pub by: Offset,
}

/// What is compared with the fold of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Party {
    /// The value this pod serves.
    ThisPod,
    /// A snapshot.
    Snapshot,
}

/// Why a key was not compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// No event-sourced state of this family is declared on this engine.
    #[error("no state of this engine is called `{family}`")]
    UnknownFamily {
        /// The family.
        family: crate::Family,
    },
    /// The key has no value, or cannot be folded as far as it was.
    #[error("a record at {at} stops the fold: {}", .halt.reason, at = .halt.at)]
    Halted {
        /// Where, and why.
        halt: Halt,
    },
    /// The log was replaced meanwhile.
    #[error("the log was recreated or restored meanwhile")]
    Replaced,
    /// The state cannot be written down, so it has neither digests nor snapshots.
    #[error("the state cannot be written down")]
    Encode(#[source] EncodeError),
    /// The state is written in no order of its own, so that its digests say nothing.
    #[error(
        "the state is written in another order by each fold, as a `HashMap` is: keep a `BTreeMap` instead"
    )]
    Unordered,
    /// The engine stopped.
    #[error("the engine stopped")]
    Stopped,
    /// The backplane failed.
    #[error("the key's snapshots could not be asked for")]
    Backend(#[source] BackendError),
}

impl VerifyError {
    /// Whether repeating the call is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Replaced => Retry::Safe,
            Self::Backend(error) => error.retry(),
            Self::UnknownFamily { .. }
            | Self::Halted { .. }
            | Self::Encode(_)
            | Self::Unordered
            | Self::Stopped => Retry::Never,
        }
    }
}

impl std::convert::From<JobError> for VerifyError {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Panicked(message) => {
                let reason = HaltReason::Panicked { message };
                Self::Halted { halt: Halt { at: Offset::BEGIN, reason } }
            }
            JobError::Stopped => Self::Stopped,
        }
    }
}

impl Engine {
    /// Compares this pod's value of a key, and the key's snapshots, with what folding its log once more gives.
    ///
    /// Nothing of what is served changes. Where something parts, `via_fold_divergence_total` counts it, and nothing of the key is
    /// compacted any more; a comparison from the first record that finds everything right ends that.
    ///
    /// # Errors
    /// [`VerifyError`].
    ///
    /// # Cancel safety
    /// Cancel-safe. While the backplane is away it waits, so put a timeout around it.
    pub async fn verify(&self, key: &Key) -> Result<Verified, VerifyError> {
        match self.core.registry.find(key.family()) {
            Some(family) => family.verify(self.core.clone(), key.clone()).await,
            None => Err(VerifyError::UnknownFamily { family: key.family().clone() }),
        }
    }

    /// Lets a key be compacted again on which pods disagreed: its log and its snapshots are right as they are.
    ///
    /// [`verify`](Self::verify) ends that by itself where everything agrees from the first record on. A key that was compacted before has no
    /// first record any more, so somebody has to say so, once the fold is mended and every pod that showed another value was
    /// restarted or [refolded](Self::refold): whatever is compacted from then on cannot be folded again. A pod that still finds
    /// another value holds the key anew. A key that nothing holds stays as it is.
    ///
    /// # Errors
    /// [`BackendError`] if the store could not be asked or told; its `retry()` says whether repeating is right.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the write under way. Call it again.
    pub async fn accept_divergence(&self, key: &Key) -> Result<(), BackendError> {
        let head = self.core.backplane.log().head(&Selector::Key(key.clone())).await?;
        match self.core.snapshots(key).clear_diverged(head.epoch).await {
            Ok(()) => {
                tracing::warn!(%key, "a divergence was accepted: nothing holds the key for it any more");
                Ok(())
            }
            Err(ChangeError::Contended) => Err(contended()),
            Err(ChangeError::Cell(error)) => Err(as_backend(error)),
            Err(ChangeError::Rejected(never)) => match never {},
        }
    }
}

/// What something is at an offset.
struct Claim {
    who: Party,
    at: Offset,
    covered: Offset,
    digest: Digest,
}

/// As [`Engine::verify`]. Begins again where compaction drops what it compares with meanwhile.
pub(super) async fn verify<E, S>(
    core: Core,
    family: Arc<Family<E, S>>,
    key: Key,
) -> Result<Verified, VerifyError>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    let mut overtaken = 0;
    loop {
        let outcome = verify_once(core.clone(), family.clone(), key.clone()).await;
        let is_overtaken = matches!(
            &outcome,
            Err(VerifyError::Halted { halt }) if matches!(halt.reason, HaltReason::Compacted { .. })
        );
        overtaken += 1;
        if !is_overtaken || overtaken == MAX_OVERTAKEN {
            return outcome;
        }
    }
}

async fn verify_once<E, S>(core: Core, family: Arc<Family<E, S>>, key: Key) -> Result<Verified, VerifyError>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    let projection = family.projection(&key);
    let stopping = core.supervisor.stopping();
    tokio::select! {
        biased;
        () = stopping.cancelled() => return Err(VerifyError::Stopped),
        () = refold::here(&projection, || family.want(&projection)) => {}
    }
    let epoch = family.progress.borrow().covered.epoch;
    let Some(value) = projection.peek() else {
        return Err(projection.halted().map_or(VerifyError::Replaced, |halt| VerifyError::Halted { halt }));
    };
    let key_head = value.key_head.offset;
    let (value, digest) = digested::<S, _>(&core, Of(value)).await?;
    drop(value);
    let digest = digest.map_err(VerifyError::Encode)?;
    let mut claims = snapshots::<E, S>(&core, &key, epoch).await.map_err(VerifyError::Backend)?;
    claims.push(Claim { who: Party::ThisPod, at: key_head, covered: key_head, digest });
    claims.sort_by_key(|claim| claim.at);
    let verified = compare::<E, S>(&core, &key, epoch, key_head, claims).await?;
    match verified.parted.first() {
        Some(first) => diverged(&core, &family, &key, epoch, *first).await,
        None if verified.from == FoldedFrom::Genesis => {
            // It holds the key for nothing; if it could not be told, the next comparison tells it.
            core.snapshots(&key).clear_diverged(epoch).await.ok();
        }
        None => {}
    }
    Ok(verified)
}

/// What the key's snapshots say.
async fn snapshots<E, S>(core: &Core, key: &Key, epoch: Epoch) -> Result<Vec<Claim>, BackendError>
where
    E: Event + Fold<S>,
{
    let held = core.snapshots(key).manifest().await.map_err(as_backend)?;
    let Some(held) = held else { return Ok(Vec::new()) };
    let headers = [held.value.previous(), held.value.current()].into_iter().flatten();
    let claim = |header: super::snapshots::Header| {
        let is_comparable = header.covered.epoch == epoch
            && header.state.name == E::NAME
            && header.state.version == E::STATE_VERSION;
        let digest = Digest(header.digest[..].try_into().ok()?);
        let (at, covered) = (header.key_head.offset, header.covered.offset);
        is_comparable.then_some(Claim { who: Party::Snapshot, at, covered, digest })
    };
    Ok(headers.map(super::snapshots::Snapshot::header).filter_map(claim).collect())
}

/// Folds the log from the oldest there is, and compares on the way. The claims are in the order of their offsets.
async fn compare<E, S>(
    core: &Core,
    key: &Key,
    epoch: Epoch,
    key_head: Offset,
    claims: Vec<Claim>,
) -> Result<Verified, VerifyError>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    let load = || Load::of(key.clone()).from(From::Oldest);
    let mut verified =
        Verified { key_head, from: FoldedFrom::Genesis, snapshots: Vec::new(), parted: Vec::new() };
    let mut before = None;
    // Up to where each party is known to be right.
    let mut right = [Offset::BEGIN; 2];
    for claim in claims {
        let next = match before.take() {
            Some(loaded) => load().on_from(loaded),
            None => load(),
        };
        let mut loaded =
            past::fold::<E, S>(core, next.through(claim.at)).await.ok_or(VerifyError::Stopped)?;
        if let Some(halt) = loaded.halt {
            return Err(VerifyError::Halted { halt });
        }
        if loaded.epoch != epoch {
            return Err(VerifyError::Replaced);
        }
        verified.from = FoldedFrom::from(&loaded.origin);
        let value = loaded.value.take().expect("what is not halted has a value");
        let (mut value, digest) = digested::<S, _>(core, Boxed(value)).await?;
        if digest.as_ref().is_ok_and(|digest| *digest != claim.digest) {
            let (same, has_an_order) = digest::has_an_order::<S, _>(core, value).await?;
            if !has_an_order {
                return Err(VerifyError::Unordered);
            }
            value = same;
        }
        loaded.value = Some(value.0);
        let is_comparable = claim.who == Party::ThisPod || loaded.skipped.is_empty();
        if is_comparable {
            let digest = digest.map_err(VerifyError::Encode)?;
            let right = &mut right[usize::from(claim.who == Party::ThisPod)];
            if digest == claim.digest {
                *right = claim.at;
            } else {
                let begun = match verified.from {
                    FoldedFrom::Genesis => Offset::BEGIN,
                    FoldedFrom::Snapshot { covered } => covered,
                };
                let after = (*right).max(begun.min(claim.at));
                verified.parted.push(Parted { who: claim.who, after, by: claim.at });
            }
            if claim.who == Party::Snapshot {
                verified.snapshots.push(claim.covered);
            }
        }
        before = Some(loaded);
    }
    Ok(verified)
}

/// Two folds of the same records differ: says so, and keeps what is left of the key.
pub(super) async fn diverged<E, S>(
    core: &Core,
    family: &Family<E, S>,
    key: &Key,
    epoch: Epoch,
    parted: Parted,
) {
    let Parted { who, after, by } = parted;
    tracing::error!(%key, ?who, %after, %by, "two folds of the same records are not the same");
    family.metrics.divergence.increment(1);
    let (core_to_tell, key, name) = (core.clone(), key.clone(), format!("hold {}", family.name));
    let told =
        async move { notes::tell(&core_to_tell, &key, Note::Diverged, epoch, by.max(Offset(1))).await };
    // If the engine stops before it is told, the next comparison finds it again.
    core.supervisor.run(name, OnStop::Abort, told).await.ok();
}

/// A value that others may hold.
struct Of<S>(Arc<Published<S>>);

impl<S> AsRef<S> for Of<S> {
    fn as_ref(&self) -> &S {
        &self.0.state
    }
}

/// A value of one's own.
struct Boxed<S>(Published<S>);

impl<S> AsRef<S> for Boxed<S> {
    fn as_ref(&self) -> &S {
        &self.0.state
    }
}
