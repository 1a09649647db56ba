//! Folding one key from the log: up to its present head, or up to a record that is known to stop it.
//!
//! It runs beside the projector, which keeps what comes meanwhile (PROTOCOL §7), and shows nothing: what it folds is the
//! caller's to publish.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use futures_util::StreamExt as _;

use super::{
    Core,
    decode::{Decoded, Problem, Undecodable, decode, identity},
    projection::{Halt, HaltReason, Panicked, Published, fold_all},
    retry::Delays,
};
use crate::{
    BackendError, Batch, Cursor, Epoch, ErrorKind, Event, Fold, Head, Key, Offset, ReadRange, Resume,
    Selector, Stored,
};

/// Records read at once. A key with more than these to read is streamed.
const PAGE: usize = 1_024;

/// A value folded from the log, and how far.
pub(super) struct Loaded<S> {
    /// `None` if there is no value to be had: its records are gone.
    pub(super) value: Option<Published<S>>,
    /// The log it was folded from.
    pub(super) epoch: Epoch,
    /// Every record of the key up to here is in the value, but for those from a halt on.
    pub(super) complete_to: Offset,
    /// Why it goes no further.
    pub(super) halt: Option<Halt>,
    /// The records that do not decode and were skipped.
    pub(super) skipped: Vec<(Offset, Undecodable)>,
    /// How many records were folded.
    pub(super) folded: u64,
    /// Every record up to here was in the value it began with.
    began_at: Offset,
}

impl<S> Loaded<S> {
    /// No value, for a reason.
    pub(super) fn none(epoch: Epoch, reason: HaltReason) -> Self {
        Self {
            value: None,
            epoch,
            complete_to: Offset::BEGIN,
            halt: Some(Halt { at: Offset::BEGIN, reason }),
            skipped: Vec::new(),
            folded: 0,
            began_at: Offset::BEGIN,
        }
    }
}

impl<S: Default> Loaded<S> {
    fn begin(epoch: Epoch) -> Self {
        Self {
            value: Some(Published::begin()),
            epoch,
            complete_to: Offset::BEGIN,
            halt: None,
            skipped: Vec::new(),
            folded: 0,
            began_at: Offset::BEGIN,
        }
    }
}

/// What is to be loaded.
pub(super) struct Load<S> {
    key: Key,
    selector: Selector,
    /// The record that has stopped the key, and why: the value is folded up to the one before.
    stop: Option<Halt>,
    /// What an earlier round came to.
    from: Option<Loaded<S>>,
    /// The log's generation when the last round began.
    epoch: Epoch,
    /// Begins with a pause: what was loaded a moment ago was of no use.
    pauses: bool,
}

/// Why a round has to be made again.
enum Failed {
    /// The backplane failed: later.
    Backend(BackendError),
    /// The log was replaced meanwhile.
    Replaced,
    /// The fold panicked, and with it went the value: fold up to the record before.
    Panicked(Panicked),
}

impl From<BackendError> for Failed {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl<S: Default> Load<S> {
    /// The key's value at its present head.
    pub(super) fn of(key: Key) -> Self {
        Self {
            selector: Selector::Key(key.clone()),
            key,
            stop: None,
            from: None,
            epoch: Epoch::default(),
            pauses: false,
        }
    }

    /// Goes on from what was loaded before.
    pub(super) fn on_from(mut self, loaded: Loaded<S>) -> Self {
        self.from = Some(loaded);
        self
    }

    /// Not at once: what was loaded a moment ago was of no use.
    pub(super) fn after_a_pause(mut self) -> Self {
        self.pauses = true;
        self
    }

    /// Up to the record before a halt.
    pub(super) fn up_to(mut self, halt: Halt) -> Self {
        self.stop = Some(halt);
        self
    }

    /// Loads, retrying for as long as the backplane is away.
    pub(super) async fn run<E: Event + Fold<S>>(mut self, core: &Core) -> Loaded<S> {
        let mut delays = Delays::new(Duration::from_millis(10), Duration::from_secs(5), core.ambient.seed());
        let mut is_said = false;
        if self.pauses {
            delays.wait().await;
        }
        loop {
            match self.round::<E>(core).await {
                Ok(loaded) => match self.behind(core, &loaded).await {
                    Ok(None) => return loaded,
                    Ok(Some(floor)) => return Loaded::none(loaded.epoch, HaltReason::Compacted { floor }),
                    Err(error) => self.say(&error, &mut is_said),
                },
                Err(Failed::Panicked(Panicked { at, message })) => {
                    let before = self.stop.replace(Halt { at, reason: HaltReason::Panicked { message } });
                    if before.is_some_and(|before| before.at <= at) {
                        // It folded well a moment ago: no value of such a fold is worth showing.
                        tracing::error!(key = %self.key, %at, "a fold panicked on a record it had folded before");
                        return Loaded { value: None, halt: self.stop, ..Loaded::begin(self.epoch) };
                    }
                }
                Err(Failed::Replaced) => {}
                Err(Failed::Backend(error)) => {
                    if error.kind() == ErrorKind::Closed {
                        std::future::pending::<()>().await;
                    }
                    self.say(&error, &mut is_said);
                }
            }
            delays.wait().await;
        }
    }

    fn say(&self, error: &BackendError, is_said: &mut bool) {
        if !std::mem::replace(is_said, true) {
            tracing::warn!(key = %self.key, kind = ?error.kind(), %error, "loading failed; trying again");
        }
    }

    /// The key's floor, where it is above what the value began with: records in between are gone (PROTOCOL §2).
    ///
    /// Asked after they were read, because a floor is recorded before the first record is dropped.
    async fn behind(&self, core: &Core, loaded: &Loaded<S>) -> Result<Option<Offset>, BackendError> {
        let Some(compactor) = core.backplane.compactor() else { return Ok(None) };
        let floor = compactor.floor(&self.key).await?;
        Ok((floor.0 > loaded.began_at.0 + 1).then_some(floor))
    }

    async fn round<E: Event + Fold<S>>(&mut self, core: &Core) -> Result<Loaded<S>, Failed> {
        let log = core.backplane.log();
        let head = log.head(&self.selector).await?;
        self.epoch = head.epoch;
        let mut folding = Folding::<E, S>::new(self.begin(head), self.stop.clone());
        let stands_at = folding.cursor();
        let after = Offset(stands_at.offset.0.saturating_sub(1));
        if self.folds_nothing_more(head, stands_at) {
            return Ok(folding.into_loaded(head));
        }
        let range = ReadRange { after, up_to: head.offset, limit: PAGE };
        let page = log.read(&self.selector, range).await?;
        folding.compare(&page)?;
        let is_all = page.iter().count() < PAGE;
        if !folding.take(&page)? || is_all {
            return Ok(folding.into_loaded(head));
        }
        let from = Resume::At(folding.cursor().offset);
        let mut records = log.subscribe(&self.selector, from).await?;
        loop {
            // A long history must not keep other tasks of this thread from running.
            tokio::task::coop::consume_budget().await;
            let batch = records.next().await.unwrap_or_else(|| Err(silent_end()))?;
            if !folding.take(&batch)? || folding.seen >= head.offset {
                return Ok(folding.into_loaded(head));
            }
        }
    }

    /// What the round starts from: what an earlier one came to, if the log is still the same.
    fn begin(&mut self, head: Head) -> Loaded<S> {
        let kept = self.from.take().filter(|loaded| loaded.epoch == head.epoch && loaded.value.is_some());
        kept.unwrap_or_else(|| Loaded::begin(head.epoch))
    }

    fn folds_nothing_more(&self, head: Head, stands_at: Cursor) -> bool {
        let stop = self.stop.as_ref().is_some_and(|halt| halt.at.0 <= stands_at.offset.0 + 1);
        stop || (head.offset == Offset::BEGIN && stands_at.offset == Offset::BEGIN)
    }
}

/// A value being folded.
struct Folding<E, S> {
    loaded: Loaded<S>,
    stop: Option<Halt>,
    events: Vec<Decoded<E>>,
    /// The last record looked at.
    seen: Offset,
}

impl<E: Event + Fold<S>, S> Folding<E, S> {
    fn new(loaded: Loaded<S>, stop: Option<Halt>) -> Self {
        let seen = loaded
            .value
            .as_ref()
            .map_or(Offset::BEGIN, |value| value.key_head.offset)
            .max(loaded.complete_to);
        Self { loaded, stop, events: Vec::new(), seen }
    }

    fn value(&mut self) -> &mut Published<S> {
        self.loaded.value.as_mut().expect("a value that is being folded is there")
    }

    /// The last record in the value.
    fn cursor(&self) -> Cursor {
        self.loaded.value.as_ref().map_or(Cursor::begin(self.loaded.epoch), |value| value.key_head)
    }

    /// Whether the log still holds the record the value stands on, where it holds any there (PROTOCOL §1).
    fn compare(&self, page: &Batch) -> Result<(), Failed> {
        let stands_at = self.cursor();
        let first = page.iter().find(|record| record.offset == stands_at.offset);
        match first {
            Some(record) if identity(&record) != stands_at.id => Err(Failed::Replaced),
            _ => Ok(()),
        }
    }

    /// Folds what is new in a batch; `false` once the key is halted.
    fn take(&mut self, batch: &Batch) -> Result<bool, Failed> {
        if batch.epoch() != self.loaded.epoch {
            return Err(Failed::Replaced);
        }
        let (seen, stop) = (self.seen, self.stops_at());
        let mut records = batch.iter().filter(|record| record.offset > seen && record.offset < stop);
        loop {
            let met = self.decode_some(&mut records);
            self.fold()?;
            let Some((at, problem)) = met else { break };
            match problem {
                Problem::Undecodable(error) => self.loaded.skipped.push((at, error)),
                Problem::Newer { name, version } => {
                    self.halt(at, HaltReason::NewerVersion { name, version });
                    return Ok(false);
                }
                Problem::Unknown { name } => {
                    self.halt(at, HaltReason::UnknownEvent { name });
                    return Ok(false);
                }
            }
        }
        Ok(batch.iter().last().is_none_or(|record| record.offset < stop))
    }

    /// The record that is not to be folded any more.
    fn stops_at(&self) -> Offset {
        self.stop.as_ref().map_or(Offset(u64::MAX), |halt| halt.at)
    }

    /// Decodes until there are no more records, or one that does not.
    fn decode_some<'a>(
        &mut self,
        records: &mut impl Iterator<Item = Stored<'a>>,
    ) -> Option<(Offset, Problem)> {
        let mut decoding = None;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for record in records {
                decoding = Some(record.offset);
                match decode::<E>(&record) {
                    Ok(decoded) => self.events.push(decoded),
                    Err(problem) => return Some((record.offset, problem)),
                }
            }
            None
        }));
        self.seen = decoding.unwrap_or(self.seen);
        outcome.unwrap_or_else(|panic| {
            let at = decoding.expect("only decoders panic here");
            Some((at, Problem::panicked(&*panic)))
        })
    }

    fn fold(&mut self) -> Result<(), Failed> {
        let mut events = std::mem::take(&mut self.events);
        let (count, epoch) = (events.len() as u64, self.loaded.epoch);
        let outcome = fold_all(self.value(), epoch, events.drain(..));
        self.events = events;
        self.loaded.folded += count;
        outcome.map_err(Failed::Panicked)
    }

    fn halt(&mut self, at: Offset, reason: HaltReason) {
        self.loaded.halt = Some(Halt { at, reason });
    }

    /// What was loaded when `head` was the key's head, or when it was already past it.
    fn into_loaded(mut self, head: Head) -> Loaded<S> {
        if self.loaded.halt.is_none() {
            self.loaded.halt = self.stop.take();
        }
        self.loaded.complete_to = self.seen.max(head.offset);
        self.loaded
    }
}

fn silent_end() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the subscription ended without saying why")
}
