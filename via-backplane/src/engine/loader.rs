//! Folding one key: from its best snapshot, or from its first record, up to its present head or to a record that stops it.
//!
//! It runs beside the projector, which keeps what comes meanwhile (PROTOCOL §7), and shows nothing: what it folds is the
//! caller's to publish. A snapshot is believed only as far as the log agrees: it is of the same epoch, the record it stands on
//! is the one it says (PROTOCOL §1), and the key's floor is not above what it covers (PROTOCOL §2).

mod folding;
mod start;

use std::time::Duration;

use futures_util::StreamExt as _;

use super::{
    Core,
    decode::Undecodable,
    lineage,
    owned_cell::OwnedError,
    projection::{Halt, HaltReason, Panicked, Published},
    retry::Delays,
    snapshots::{Generation, Header},
    tail::silent_end,
};
use crate::{
    BackendError, Epoch, ErrorKind, Event, Fold, FoldState, Key, Offset, ReadRange, Resume, Retry, Selector,
};
use folding::Folding;
use start::Start;

/// Records read at once. A key with more than these to read is streamed.
const PAGE: usize = 1_024;
/// How often a load begins again because compaction overtook it.
const MAX_OVERTAKEN: usize = 4;

/// A value folded from the log, and how far.
pub(super) struct Loaded<S> {
    /// `None` if there is no value to be had: records are gone, and no snapshot covers them.
    pub(super) value: Option<Published<S>>,
    /// The log it was folded from.
    pub(super) epoch: Epoch,
    /// Every record of the key up to here is in the value, but for those from a halt on.
    pub(super) complete_to: Offset,
    /// Why it goes no further.
    pub(super) halt: Option<Halt>,
    /// The records that do not decode and were skipped.
    pub(super) skipped: Vec<(Offset, Undecodable)>,
    /// What it began with.
    pub(super) origin: Origin,
    /// How many records were folded on top of that.
    pub(super) folded: u64,
    /// Records that everybody skips, because their loss was accepted; in order.
    accepted: Vec<Offset>,
}

/// What a value began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The key's first record.
    Genesis,
    /// A snapshot.
    Snapshot(Header),
}

impl<S> Loaded<S> {
    /// The last record that folds to nothing because its loss was accepted.
    pub(super) fn passed(&self) -> Offset {
        let passed = self.accepted.iter().rfind(|offset| **offset <= self.complete_to);
        passed.copied().unwrap_or_default()
    }

    /// The first record that it lacks because it does not decode.
    pub(super) fn lacks(&self) -> Option<Offset> {
        self.skipped.first().map(|(offset, _)| *offset)
    }

    fn begin(value: Published<S>, epoch: Epoch, origin: Origin) -> Self {
        Self {
            value: Some(value),
            epoch,
            complete_to: Offset::BEGIN,
            halt: None,
            skipped: Vec::new(),
            origin,
            folded: 0,
            accepted: Vec::new(),
        }
    }

    /// No value, for a reason.
    pub(super) fn none(epoch: Epoch, halt: Halt) -> Self {
        Self {
            value: None,
            epoch,
            complete_to: Offset::BEGIN,
            halt: Some(halt),
            skipped: Vec::new(),
            origin: Origin::Genesis,
            folded: 0,
            accepted: Vec::new(),
        }
    }
}

/// Where a load begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// At the newest snapshot that can be used, else at the first record.
    Newest,
    /// At the first record; once the key was compacted, at the oldest snapshot that can be used.
    Oldest,
}

/// What was found out about a key's snapshots, for who writes the next one.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    /// The log has other records where they stand.
    pub(super) refuted: Vec<Generation>,
    /// They could not be read, or are of something else.
    pub(super) unreadable: Vec<Generation>,
}

/// How far a value is folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bound {
    /// To the key's present head.
    Head,
    /// Up to this offset.
    Through(Offset),
    /// Up to the record before the one that stops the key.
    Before(Halt),
}

impl Bound {
    /// Whether a record is to be folded.
    fn has(&self, offset: Offset) -> bool {
        match self {
            Self::Head => true,
            Self::Through(last) => offset <= *last,
            Self::Before(halt) => offset < halt.at,
        }
    }
}

/// What is to be loaded.
pub(super) struct Load<S> {
    key: Key,
    selector: Selector,
    from: From,
    /// How far the value is folded.
    bound: Bound,
    /// What an earlier round came to.
    before: Option<Loaded<S>>,
    /// The log's generation when the last round began.
    epoch: Epoch,
    /// Pauses before it begins.
    pause: Duration,
    pub(super) findings: Findings,
    /// The losses that were accepted, as the manifest said last.
    accepted: Vec<Offset>,
    /// Why a snapshot that is whole is none for this binary.
    misfit: Option<HaltReason>,
}

/// Why a round has to be made again.
enum Failed {
    /// The backplane failed: later.
    Backend(BackendError),
    /// The log was replaced, or a snapshot was found to be of another one.
    Replaced,
    /// The fold panicked, and with it went the value: fold up to the record before.
    Panicked(Panicked),
}

impl std::convert::From<BackendError> for Failed {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl<S: FoldState> Load<S> {
    /// The key's value at its present head.
    pub(super) fn of(key: Key) -> Self {
        Self {
            selector: Selector::Key(key.clone()),
            key,
            from: From::Newest,
            bound: Bound::Head,
            before: None,
            epoch: Epoch::default(),
            pause: Duration::ZERO,
            findings: Findings::default(),
            accepted: Vec::new(),
            misfit: None,
        }
    }

    /// Begins somewhere else than at the newest snapshot.
    pub(super) fn from(mut self, from: From) -> Self {
        self.from = from;
        self
    }

    /// Goes on from what was loaded before.
    pub(super) fn on_from(mut self, loaded: Loaded<S>) -> Self {
        self.before = Some(loaded);
        self
    }

    /// Not at once: what was loaded a moment ago was of no use.
    pub(super) fn after(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Up to the record before a halt.
    pub(super) fn up_to(mut self, halt: Halt) -> Self {
        self.bound = Bound::Before(halt);
        self
    }

    /// Up to an offset, whether or not there is a record of the key.
    pub(super) fn through(mut self, last: Offset) -> Self {
        self.bound = Bound::Through(last);
        self
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Loads, retrying for as long as the backplane is away.
    pub(super) async fn run<E: Event + Fold<S>>(mut self, core: &Core) -> (Loaded<S>, Findings) {
        let mut delays = Delays::new(Duration::from_millis(10), Duration::from_secs(5), core.ambient.seed());
        let mut is_said = false;
        let mut overtaken = 0;
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
        let loaded = loop {
            match self.attempt::<E>(core, overtaken == MAX_OVERTAKEN).await {
                Ok(Some(loaded)) => break loaded,
                Ok(None) => overtaken += 1,
                Err(Failed::Panicked(Panicked { at, message })) => {
                    let halt = Halt { at, reason: HaltReason::Panicked { message } };
                    let before = std::mem::replace(&mut self.bound, Bound::Before(halt.clone()));
                    if before.has(at) {
                        continue;
                    }
                    // It folded well a moment ago: no value of such a fold is worth showing.
                    tracing::error!(key = %self.key, %at, "a fold panicked on a record it had folded before");
                    break Loaded::none(self.epoch, halt);
                }
                Err(Failed::Replaced) => {}
                Err(Failed::Backend(error)) => {
                    if error.kind() == ErrorKind::Closed {
                        std::future::pending::<()>().await;
                    }
                    if !std::mem::replace(&mut is_said, true) {
                        tracing::warn!(key = %self.key, kind = ?error.kind(), %error, "loading failed; trying again");
                    }
                }
            }
            delays.wait().await;
        };
        (loaded, self.findings)
    }

    /// Loads once; `None` if compaction has overtaken it, unless this is the last time.
    async fn attempt<E>(&mut self, core: &Core, is_last: bool) -> Result<Option<Loaded<S>>, Failed>
    where
        E: Event + Fold<S>,
    {
        let loaded = self.round::<E>(core).await?;
        // Asked after the records were read, because a floor is recorded before the first record is dropped (PROTOCOL §2).
        let floor = match core.backplane.compactor() {
            Some(compactor) if core.ambient.rules().check_floors => compactor.floor(&self.key).await?,
            _ => Offset::BEGIN,
        };
        if self.begins_above(core, &loaded, floor).await? {
            return Ok(Some(loaded));
        }
        // Newer snapshots cover what was dropped, unless there are none to be had.
        if !is_last {
            return Ok(None);
        }
        let reason = self.misfit.take().unwrap_or(HaltReason::Compacted { floor });
        let at = match &loaded.origin {
            Origin::Genesis => Offset::BEGIN,
            Origin::Snapshot(header) => header.key_head.offset,
        };
        Ok(Some(Loaded::none(loaded.epoch, Halt { at, reason })))
    }

    /// Whether what a value began with has all that is gone below the key's floor.
    async fn begins_above(
        &self,
        core: &Core,
        loaded: &Loaded<S>,
        floor: Offset,
    ) -> Result<bool, BackendError> {
        let Origin::Snapshot(header) = &loaded.origin else { return Ok(floor.0 <= 1) };
        let covers = |offset: Offset| floor.0 <= offset.0 + 1;
        Ok(covers(header.key_head.offset)
            || covers(header.covered.offset) && lineage::holds_covered(core, &self.key, header).await?)
    }

    async fn round<E: Event + Fold<S>>(&mut self, core: &Core) -> Result<Loaded<S>, Failed> {
        let log = core.backplane.log();
        let mut head = log.head(&self.selector).await?;
        self.epoch = head.epoch;
        let Start { loaded, snapshot } = self.begin::<E>(core, &mut head).await?;
        let mut folding = Folding::<E, S>::new(loaded, self.bound.clone());
        let stands_at = folding.cursor();
        if !core.ambient.rules().load_to_head {
            return Ok(folding.into_loaded(stands_at.head()));
        }
        if head.offset == Offset::BEGIN && stands_at.offset == Offset::BEGIN {
            return Ok(folding.into_loaded(head));
        }
        let after = Offset(stands_at.offset.0.saturating_sub(1));
        let range = ReadRange { after, up_to: head.offset, limit: PAGE };
        let page = log.read(&self.selector, range).await?;
        if core.ambient.rules().compare_record_ids && !self.agrees(core, &page, stands_at).await? {
            self.findings.refuted.extend(snapshot);
            return Err(Failed::Replaced);
        }
        let is_all = page.capacity() < PAGE || page.iter().count() < PAGE;
        if !folding.take(&page)? || is_all {
            return Ok(folding.into_loaded(head));
        }
        let mut records = log.subscribe(&self.selector, Resume::At(folding.seen())).await?;
        loop {
            // A long history must not keep other tasks of this thread from running.
            tokio::task::coop::consume_budget().await;
            let batch = records.next().await.unwrap_or_else(|| Err(silent_end()))?;
            if !folding.take(&batch)? || folding.seen() >= head.offset {
                return Ok(folding.into_loaded(head));
            }
        }
    }
}

/// What an engine's cell that cannot be read is to a load: a backplane that is away, if trying again may help.
fn unreadable(error: OwnedError) -> Result<OwnedError, Failed> {
    match error {
        OwnedError::Backend(error) => Err(Failed::Backend(error)),
        OwnedError::Unknown(error) => Err(Failed::Backend(error)),
        other if other.retry() == Retry::Safe => Err(Failed::Backend(
            BackendError::new(ErrorKind::Unavailable, "a cell was not read").with_source(other),
        )),
        other => Ok(other),
    }
}
