//! Snapshots of one key: when this pod writes one, and the writing itself, off the fold path.
//!
//! Every pod folds the same records, and one of them should write what they come to. The pod that wrote the last one writes the
//! next as soon as it is due. Every other pod waits a while longer and looks whether it is there by then, so another one
//! takes over when the writer is gone, and two that write at once lose nothing: the later one is superseded.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Core,
    digest::{self, Digest},
    loader::Findings,
    projection::Published,
    snapshots::{Draft, Generation, Header, Outcome, StateType},
    supervisor::JobError,
};
use crate::{BoxError, Cursor, Event, Fold, FoldState, Head, Key, Offset, Retry, Selector};

/// How long a claim is believed, and how much longer for each of its chunks: longer than writing them takes, and a writer that
/// takes longer all the same loses its work and nothing else.
const CLAIM_LASTS: Duration = Duration::from_secs(10);
const CHUNK_LASTS: Duration = Duration::from_millis(250);
/// How many bytes of snapshots of one key are written in a second, all pods together, so that a large state costs no more than a
/// hundredth of a processor, whatever its events are.
const BYTES_PER_SECOND: u32 = 1 << 20;
/// Skipped records of a key that are told apart; a key with more of them saves nothing until it is loaded anew.
const MAX_SKIPPED: usize = 256;

/// What is due of one key's snapshots on this pod.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// Records folded since the last snapshot this pod knows of.
    pub(super) since: u64,
    /// The last record in that snapshot.
    known: Offset,
    /// How many bytes it has.
    len: u64,
    /// Records this pod has skipped: the value is not what a better binary folds, so it is not for others.
    skipped: Vec<Offset>,
    /// More were skipped than are told apart.
    skipped_too_many: bool,
    /// This pod wrote that snapshot.
    is_writer: bool,
    pub(super) is_queued: bool,
    pub(super) is_running: bool,
    /// When this pod last tried.
    tried: Option<Instant>,
    findings: Findings,
    claim: Option<Claim>,
}

/// Somebody is writing, or has died.
#[derive(Debug, Clone, Copy)]
struct Claim {
    generation: Generation,
    /// Since when this pod knows of it.
    since: Instant,
    /// How long it is believed.
    lasts: Duration,
}

/// What one attempt at a snapshot came to.
#[derive(Debug)]
pub(super) enum Saved {
    /// This pod has written it. What the one before covers, if there is one, ends below `before`.
    Written { head: Offset, bytes: usize, before: Option<Head> },
    /// Somebody else has written one lately.
    Seen(Seen),
    /// Somebody else is writing so many chunks.
    Claimed { by: Generation, chunks: u32 },
    /// Snapshots that are of another log, or damaged: the next attempt displaces them.
    Displaces(Findings),
    /// Not this time.
    Failed,
    /// Never: the state is too large, or does not encode.
    Hopeless,
}

/// A snapshot somebody else has written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    head: Offset,
    len: u64,
    /// It is of the same record as this pod's value, and is another value.
    pub(super) diverges: bool,
}

/// What an attempt needs to know.
#[derive(Debug)]
pub(super) struct Plan {
    known: Offset,
    is_writer: bool,
    findings: Findings,
    displaces: Generation,
}

impl Saving {
    /// The value was loaded: what it was begun from is the snapshot there is. An attempt that is under way, or in the queue, stays so.
    pub(super) fn loaded(&mut self, header: Option<&Header>, findings: Findings) {
        let (known, len) =
            header.map_or_else(Default::default, |header| (header.key_head.offset, header.len));
        let (is_queued, is_running, tried) = (self.is_queued, self.is_running, self.tried);
        *self = Self { known, len, findings, is_queued, is_running, tried, ..Self::default() };
    }

    /// A record was skipped: nothing is to be saved from now on.
    pub(super) fn skip(&mut self, offset: Offset) {
        if self.skipped.len() == MAX_SKIPPED {
            self.skipped_too_many = true;
        } else {
            self.skipped.push(offset);
        }
    }

    /// The value was folded anew: what it skips is told again.
    pub(super) fn refolded(&mut self, findings: Findings) {
        self.skipped.clear();
        self.skipped_too_many = false;
        self.findings.add(&findings);
    }

    /// The loss of a record was accepted, which counts as no event; `true` if it was skipped here.
    pub(super) fn accept(&mut self, offset: Offset) -> bool {
        let before = self.skipped.len();
        self.skipped.retain(|skipped| *skipped != offset);
        self.skipped.len() < before
    }

    /// The first record that was skipped, as far as they are told apart.
    pub(super) fn first_skipped(&self) -> Option<Offset> {
        // Of too many, those that are told apart came first.
        self.skipped.first().copied().or_else(|| self.skipped_too_many.then_some(Offset::BEGIN))
    }

    /// Whether the value lacks records that others may be able to decode.
    pub(super) fn is_dirty(&self) -> bool {
        self.skipped_too_many || !self.skipped.is_empty()
    }

    /// When the next snapshot may be attempted: at most once per `pause`, less often where the state is large, and later by a random
    /// part of that where another pod is likely to write it.
    pub(super) fn due(&self, now: Instant, pause: Duration, chance: u64) -> Instant {
        let pause = pause.max(Duration::from_secs_f64(self.len as f64 / f64::from(BYTES_PER_SECOND)));
        let rested = self.tried.map_or(now, |tried| now.max(tried + pause));
        if self.is_writer {
            return rested;
        }
        let part = (chance >> 11) as f64 / (1u64 << 53) as f64;
        rested + pause + pause.mul_f64(part)
    }

    /// What an attempt that begins now goes by.
    pub(super) fn begin(&mut self, now: Instant) -> Plan {
        self.is_running = true;
        let dead = self.claim.filter(|claim| now.duration_since(claim.since) > claim.lasts);
        Plan {
            known: self.known,
            is_writer: self.is_writer,
            findings: self.findings.clone(),
            displaces: dead.map_or(Generation(0), |claim| claim.generation),
        }
    }

    /// Notes what an attempt came to, after which `since` more records had been folded when it began.
    pub(super) fn end(&mut self, saved: &Saved, since: u64, now: Instant) {
        (self.is_running, self.tried) = (false, Some(now));
        match saved {
            Saved::Written { head, bytes, .. } => {
                (self.is_writer, self.known, self.len, self.claim) = (true, *head, *bytes as u64, None);
                self.findings = Findings::default();
                self.since = self.since.saturating_sub(since);
            }
            Saved::Seen(seen) => {
                (self.is_writer, self.known, self.len, self.claim) = (false, seen.head, seen.len, None);
                self.since = self.since.saturating_sub(since);
            }
            Saved::Claimed { by, chunks } => {
                self.is_writer = false;
                if self.claim.is_none_or(|known| known.generation != *by) {
                    let lasts = CLAIM_LASTS + CHUNK_LASTS * *chunks;
                    self.claim = Some(Claim { generation: *by, since: now, lasts });
                }
            }
            Saved::Displaces(findings) => self.findings.add(findings),
            Saved::Failed => {}
            // Not again before as many records have come as led to this attempt.
            Saved::Hopeless => self.since = 0,
        }
    }
}

impl Findings {
    fn add(&mut self, more: &Self) {
        self.refuted.extend_from_slice(&more.refuted);
        self.unreadable.extend_from_slice(&more.unreadable);
    }
}

/// Writes a snapshot of a value, unless somebody else has lately.
pub(super) async fn save<E, S>(
    core: &Core,
    key: &Key,
    value: Arc<Published<S>>,
    covered: Cursor,
    plan: Plan,
) -> Saved
where
    E: Event + Fold<S>,
    S: FoldState,
{
    match try_save::<E, S>(core, key, value, covered, plan).await {
        Ok(saved) => saved,
        Err(error) => {
            let cause = std::error::Error::source(&*error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%key, %error, cause, "no snapshot was written");
            Saved::Failed
        }
    }
}

async fn try_save<E, S>(
    core: &Core,
    key: &Key,
    value: Arc<Published<S>>,
    covered: Cursor,
    plan: Plan,
) -> Result<Saved, BoxError>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    let snapshots = core.snapshots(key);
    let key_head = value.key_head;
    if !plan.is_writer
        && let Some(held) = snapshots.manifest().await?
        && let Some(current) =
            held.value.current().filter(|current| !plan.findings.distrusts(current.generation()))
    {
        let header = current.header();
        if header.covered.epoch == covered.epoch && header.key_head.offset > plan.known {
            return seen::<E, S>(core, key, header, value).await;
        }
    }
    let bytes = match digest::encode(core, value).await? {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(%key, %error, "the state cannot be encoded, so the key has no snapshots");
            return Ok(Saved::Hopeless);
        }
    };
    let draft = Draft {
        covered,
        key_head,
        state: StateType { name: E::NAME.to_owned(), version: E::STATE_VERSION },
        bytes,
        refuted: plan.findings.refuted,
        unreadable: plan.findings.unreadable,
        clears_holds_up_to: Some(covered.offset),
        displaces: plan.displaces,
    };
    match snapshots.write(&draft).await {
        Ok(Outcome::Written { bytes, previous, .. }) => {
            let kept = if core.ambient.rules().keep_previous { previous } else { Some(covered) };
            Ok(Saved::Written { head: key_head.offset, bytes, before: needless(kept, covered) })
        }
        Ok(Outcome::Superseded { by }) => {
            let is_same_place = by.key_head == key_head && by.state == draft.state;
            let diverges = is_same_place && diverges::<S>(core, key, &by, draft.bytes).await?;
            Ok(Saved::Seen(Seen { head: by.key_head.offset, len: by.len, diverges }))
        }
        Ok(Outcome::Claimed { by, chunks }) => Ok(Saved::Claimed { by, chunks }),
        Ok(Outcome::LostClaim) => Ok(Saved::Failed),
        Ok(Outcome::Foreign { generation, .. }) => {
            // One of the two is of a log that is no more; the log itself knows which.
            let head = core.backplane.log().head(&Selector::Key(key.clone())).await?;
            let mut findings = Findings::default();
            if head.epoch == covered.epoch {
                findings.refuted.push(generation);
            }
            Ok(Saved::Displaces(findings))
        }
        Err(super::snapshots::WriteError::Unreadable { generation, source }) => {
            tracing::error!(%key, %generation, error = %source, "a snapshot was written and cannot be read back");
            core.snapshot_unusable(key);
            Ok(Saved::Displaces(Findings { unreadable: vec![generation], ..Findings::default() }))
        }
        Err(error) if error.retry() == Retry::Never => {
            tracing::error!(%key, %error, "the key has no snapshots");
            Ok(Saved::Hopeless)
        }
        Err(error) => Err(error.into()),
    }
}

/// Below what a key's records are needed no more, where the snapshot that is kept beside the new one is of the same log.
fn needless(kept: Option<Cursor>, covered: Cursor) -> Option<Head> {
    let kept = kept.filter(|kept| kept.epoch == covered.epoch)?;
    Some(Head { epoch: covered.epoch, offset: Offset(kept.offset.0.saturating_add(1)) })
}

/// Compares a snapshot of somebody else with this pod's value, where they are of the same record.
async fn seen<E, S>(
    core: &Core,
    key: &Key,
    header: Header,
    value: Arc<Published<S>>,
) -> Result<Saved, BoxError>
where
    E: Event + Fold<S>,
    S: FoldState,
{
    let is_same_place = header.key_head == value.key_head && header.state.version == E::STATE_VERSION;
    let mut is_other = false;
    if is_same_place && let Ok(bytes) = digest::encode(core, value).await? {
        is_other = diverges::<S>(core, key, &header, bytes).await?;
    }
    Ok(Saved::Seen(Seen { head: header.key_head.offset, len: header.len, diverges: is_other }))
}

/// Whether a snapshot of the same records is of another value than these bytes.
async fn diverges<S: FoldState>(
    core: &Core,
    key: &Key,
    header: &Header,
    bytes: Bytes,
) -> Result<bool, JobError> {
    if header.digest[..] == Digest::of_bytes(&bytes).as_bytes()[..] {
        return Ok(false);
    }
    let is_comparable = digest::is_comparable::<S>(core, bytes).await?;
    if !is_comparable {
        tracing::debug!(%key, "the state is written in no order of its own, so pods cannot be compared");
    }
    Ok(is_comparable)
}

impl Findings {
    fn distrusts(&self, generation: Generation) -> bool {
        self.refuted.contains(&generation) || self.unreadable.contains(&generation)
    }
}
