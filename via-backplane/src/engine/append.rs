//! From an event to a committed record.

use std::{cell::RefCell, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{Core, metrics::Appends, retry::Delays};
use crate::{
    Append, AppendError, AppendId, Appended, BackendError, EncodeError, Entries, Entry, ErrorKind, Event,
    EventId, Expectation, Head, Key, RecordId, Retry, Selector, TooLarge, TraceContext,
    envelope::{self, Envelope, Unknown},
};

/// Repeats of an append with an id whose outcome is unknown.
const MAX_REPEATS: usize = 8;
/// How long an append with an id goes on for at most, however long each attempt takes: longer than a cluster needs to elect a
/// new leader. Then its caller is told, and may repeat it under the same id.
const RESOLVE_WITHIN: Duration = Duration::from_secs(20);
/// Of answers that need no waiting, one in this many is timed: two clock reads would cost more than such an append.
const TIMED_ONE_IN: u32 = 64;

/// What an append may carry besides its event.
///
/// ```
/// # use std::time::Duration;
/// # use serde::{Deserialize, Serialize};
/// # use via_backplane::{Event, Events, Fold, Recorded};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event(name = "order.noted")]
/// # struct Noted { text: String }
/// # impl Fold<Vec<String>> for Noted { fn fold(self, notes: &mut Vec<String>, _at: &Recorded) { notes.push(self.text); } }
/// use via_backplane::{AppendId, AppendOptions};
///
/// # async fn doc(notes: Events<Noted, Vec<String>>) -> Result<(), Box<dyn std::error::Error>> {
/// let shown = notes.loaded().await;
/// let options = AppendOptions::default()
///     .id(AppendId::new("order-4711")?)
///     .expect_head(shown.key_head());
/// notes.append_with(Noted { text: format!("note {}", shown.len() + 1) }, options).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "options do nothing by themselves"]
pub struct AppendOptions {
    id: Option<AppendId>,
    expect_head: Option<Head>,
    trace: Option<TraceContext>,
}

impl AppendOptions {
    /// Makes repeating the append harmless, within the backplane's id window. The event's id is derived from it.
    pub fn id(mut self, id: AppendId) -> Self {
        self.id = Some(id);
        self
    }

    /// Appends only if the key's last record is still this one.
    ///
    /// It comes from a value that was read ([`View::key_head`](super::View::key_head)) or from an append
    /// ([`Cursor::head`](crate::Cursor::head)), so that its epoch is the one the caller knows: in a log that was
    /// recreated since, the expectation fails.
    pub fn expect_head(mut self, head: Head) -> Self {
        self.expect_head = Some(head);
        self
    }

    /// Continues a trace: every fold and consumer of the event sees it.
    pub fn trace(mut self, trace: TraceContext) -> Self {
        self.trace = Some(trace);
        self
    }
}

/// Why an append did not answer with a position.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendFailed {
    /// The key's head was not the expected one; nothing was appended.
    #[error("the head of `{key}` is not the expected one")]
    Conflict {
        /// The key.
        key: Key,
        /// Its head, where the backplane says it.
        head: Option<Head>,
    },
    /// This id was appended before, and the backplane does not recall where.
    #[error("this append to `{key}` was made before")]
    Duplicate {
        /// The key.
        key: Key,
    },
    /// The outcome is unknown: the events may be in the log now, or may still land.
    #[error("the append to `{key}` may or may not have been committed")]
    MaybeCommitted {
        /// The key.
        key: Key,
        /// What hid the outcome.
        source: BackendError,
    },
    /// Larger than the backplane takes; nothing was appended.
    #[error("an event for `{key}` is too large")]
    TooLarge {
        /// The key.
        key: Key,
        /// What, how large, and the limit.
        source: TooLarge,
    },
    /// The event could not be encoded; nothing was appended.
    #[error("the event could not be encoded")]
    Encode(#[from] EncodeError),
    /// A batch without events.
    #[error("a batch needs at least one event")]
    Empty,
    /// A batch over two families; there is no transaction across families.
    #[error("`{key}` is of another family than the batch's first event")]
    OtherFamily {
        /// The key that does not belong.
        key: Key,
    },
    /// The backplane failed; nothing was appended.
    #[error("the append to `{key}` failed")]
    Backend {
        /// The key.
        key: Key,
        /// What failed.
        source: BackendError,
    },
}

impl AppendFailed {
    /// Whether repeating the append is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::MaybeCommitted { .. } => Retry::MayDuplicate,
            Self::Backend { source, .. } => source.retry(),
            _ => Retry::Never,
        }
    }

    fn of(key: &Key, error: AppendError) -> Self {
        let key = key.clone();
        match error {
            AppendError::Conflict { head } => Self::Conflict { key, head },
            AppendError::Duplicate => Self::Duplicate { key },
            AppendError::MaybeCommitted(source) => Self::MaybeCommitted { key, source },
            AppendError::TooLarge(source) => Self::TooLarge { key, source },
            AppendError::Backend(source) => Self::Backend { key, source },
        }
    }
}

/// What an append's envelopes have in common.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    micros: u64,
    first: EventId,
    trace: Option<TraceContext>,
}

impl Stamp {
    pub(super) fn new(core: &Core, key: &Key, options: &AppendOptions) -> Self {
        let now = core.ambient.clock.now();
        let first = match &options.id {
            Some(id) => derived_id(key, id),
            None => core.ambient.event_id(now),
        };
        Self { micros: envelope::micros(now), first, trace: options.trace }
    }

    /// The id of a batch's event at `index`: the first one's, counted up in its low 62 bits (RFC 9562, §6.2, method 2).
    fn id(&self, index: usize) -> EventId {
        let (high, low) = self.first.0.split_at(8);
        let low = u64::from_be_bytes(low.try_into().expect("eight of sixteen bytes"));
        let variant = low & !(u64::MAX >> 2);
        let counted = variant | (low.wrapping_add(index as u64) & (u64::MAX >> 2));
        let mut id = [0; 16];
        id[..8].copy_from_slice(high);
        id[8..].copy_from_slice(&counted.to_be_bytes());
        EventId(id)
    }
}

/// The same append id always means the same event ids: whoever repeats an append repeats its events. UUID version 8.
fn derived_id(key: &Key, id: &AppendId) -> EventId {
    let mut hasher = blake3::Hasher::new_derive_key("via 2026 event id of an append id");
    for part in [key.family().as_str(), key.instance_name().unwrap_or(""), id.as_str()] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let digest = hasher.finalize();
    let bytes = digest.as_bytes()[..16].try_into().expect("sixteen of thirty-two bytes");
    EventId(uuid::Builder::from_custom_bytes(bytes).into_uuid().into_bytes())
}

/// A larger payload's buffer is not kept: one such event must not cost every thread its memory.
const MAX_KEPT_PAYLOAD: usize = 64 << 10;

thread_local! {
    /// A payload has to be encoded before its envelope knows its length.
    static PAYLOAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Encodes one record, in one allocation.
pub(super) fn encode<E: Event>(
    event: &E,
    stamp: Stamp,
    index: usize,
) -> Result<(Bytes, RecordId), EncodeError> {
    with_envelope(event, stamp, index, |envelope| {
        let mut record = Vec::with_capacity(envelope.encoded_len());
        envelope.encode(&mut record);
        (Bytes::from(record), envelope.id.into())
    })
}

/// Encodes a batch's records into one buffer; answers the last one's identity too.
pub(super) fn encode_all<'a, E: Event>(
    events: impl Iterator<Item = (&'a Key, E)>,
    stamp: Stamp,
) -> Result<(Entries, RecordId), AppendFailed> {
    let (expected, _) = events.size_hint();
    let mut buffer = Vec::new();
    let mut ends = Vec::with_capacity(expected);
    let mut last = RecordId::default();
    for (index, (key, event)) in events.enumerate() {
        last = with_envelope(&event, stamp, index, |envelope| {
            if index == 0 {
                // Events of one batch are mostly alike. The log keeps this buffer, so it should not be much too large.
                buffer.reserve_exact(envelope.encoded_len() * expected.max(1));
            }
            envelope.encode(&mut buffer);
            envelope.id.into()
        })?;
        ends.push((key.clone(), buffer.len()));
    }
    if ends.is_empty() {
        return Err(AppendFailed::Empty);
    }
    if buffer.capacity() > buffer.len() / 4 * 5 {
        buffer.shrink_to_fit();
    }
    let buffer = Bytes::from(buffer);
    let mut start = 0;
    let entries = ends.into_iter().map(|(key, end)| {
        let record = buffer.slice(start..end);
        start = end;
        Entry { key, record }
    });
    Ok((Entries::Many(entries.collect()), last))
}

fn with_envelope<E: Event, T>(
    event: &E,
    stamp: Stamp,
    index: usize,
    write: impl FnOnce(&Envelope<'_>) -> T,
) -> Result<T, EncodeError> {
    // Taken, not borrowed: encoding runs the user's code, which may append events of its own.
    let mut payload = PAYLOAD.take();
    payload.clear();
    let written = event.encode(&mut payload).map(|()| {
        write(&Envelope {
            id: stamp.id(index),
            time: stamp.micros,
            name: E::NAME,
            version: E::VERSION,
            codec: E::CODEC,
            payload: &payload,
            trace: stamp.trace,
            trace_state: None,
            subject: None,
            unknown: Unknown::default(),
        })
    });
    if payload.capacity() <= MAX_KEPT_PAYLOAD {
        PAYLOAD.set(payload);
    }
    written
}

/// Appends, and repeats an append with an id while its outcome is unknown (PROTOCOL §6).
pub(super) async fn commit(
    core: &Core,
    metrics: &Appends,
    key: &Key,
    entries: Entries,
    options: AppendOptions,
) -> Result<Appended, AppendFailed> {
    let count = entries.len() as u64;
    let mut expect: Vec<_> =
        options.expect_head.map(|head| Expectation { key: key.clone(), head }).into_iter().collect();
    if !core.ambient.rules().expect_epochs {
        forget_epochs(core, &mut expect).await;
    }
    let append = Append { entries, expect, id: options.id };
    // A caller that appends in a loop must let the projector run, even when no answer needs waiting.
    tokio::task::coop::consume_budget().await;
    let repeatable = append.id.is_some() || !core.ambient.rules().repeat_only_with_id;
    let appended =
        if repeatable { repeat(core, metrics, append).await } else { once(core, metrics, append).await };
    let appended = appended.map_err(|error| AppendFailed::of(key, error))?;
    metrics.events.increment(count);
    Ok(appended)
}

/// What a backplane that compares offsets alone would make of expectations.
async fn forget_epochs(core: &Core, expect: &mut [Expectation]) {
    for Expectation { key, head } in expect {
        let selector = Selector::Key(key.clone());
        if let Ok(present) = core.backplane.log().head(&selector).await {
            head.epoch = present.epoch;
        }
    }
}

async fn once(core: &Core, metrics: &Appends, append: Append) -> Result<Appended, AppendError> {
    let log = core.backplane.log();
    if core.times_this_one(TIMED_ONE_IN) {
        let started = Instant::now();
        let appended = log.append(append).await;
        metrics.seconds.record(started.elapsed().as_secs_f64());
        return appended;
    }
    match log.append(append).now() {
        Ok(appended) => appended,
        Err(reply) => {
            let started = Instant::now();
            let appended = reply.await;
            metrics.seconds.record(started.elapsed().as_secs_f64());
            appended
        }
    }
}

async fn repeat(core: &Core, metrics: &Appends, append: Append) -> Result<Appended, AppendError> {
    // Half the window: the repeats must arrive while the first attempt is still remembered.
    let deadline = Instant::now() + RESOLVE_WITHIN.min(core.backplane.limits().id_window / 2);
    let mut unknown = None;
    let resolved = timeout_at(deadline, resolve(core, metrics, append, &mut unknown)).await;
    resolved.unwrap_or_else(|_| Err(AppendError::MaybeCommitted(unknown.unwrap_or_else(no_answer))))
}

/// Appends until the outcome is known; `unknown` is why it is not known yet.
async fn resolve(
    core: &Core,
    metrics: &Appends,
    append: Append,
    unknown: &mut Option<BackendError>,
) -> Result<Appended, AppendError> {
    let mut delays = Delays::new(Duration::from_millis(20), Duration::from_secs(2), core.ambient.seed());
    for repeats in 0.. {
        let error = match once(core, metrics, append.clone()).await {
            Err(AppendError::MaybeCommitted(error)) => error,
            // After an unknown outcome, a failure to reach the backend does not make the outcome known.
            Err(AppendError::Backend(error)) if unknown.is_some() && error.retry() == Retry::Safe => error,
            Err(AppendError::Backend(error)) if unknown.is_some() => {
                return Err(AppendError::MaybeCommitted(error));
            }
            outcome => return outcome,
        };
        if repeats == MAX_REPEATS {
            return Err(AppendError::MaybeCommitted(error));
        }
        *unknown = Some(error);
        delays.wait().await;
    }
    unreachable!("the repeats are counted")
}

fn no_answer() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the backplane did not answer in time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;

    #[test]
    fn ids_of_a_batch_are_distinct_ordered_and_stay_version_7() {
        let first = EventId(uuid::Uuid::now_v7().into_bytes());
        let stamp = Stamp { micros: 0, first, trace: None };
        assert_eq!(stamp.id(0), first);
        let ids: Vec<_> = (0..1_000).map(|index| stamp.id(index)).collect();
        let wraps = ids.windows(2).filter(|pair| pair[0] >= pair[1]).count();
        assert!(wraps <= 1, "the counter wraps at most once in 2^62 ids");
        for id in ids {
            let uuid = uuid::Uuid::from_bytes(id.0);
            assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
        }
    }

    #[test]
    fn an_append_id_means_one_event_id_per_key() {
        let rooms = Family::new("rooms").expect("a valid name");
        let one = Key::instance(&rooms, "1").expect("a valid name");
        let two = Key::instance(&rooms, "2").expect("a valid name");
        let id = AppendId::new("click").expect("a valid id");
        assert_eq!(derived_id(&one, &id), derived_id(&one, &id));
        assert_ne!(derived_id(&one, &id), derived_id(&two, &id));
        assert_ne!(derived_id(&one, &id), derived_id(&one, &AppendId::new("other").expect("a valid id")));
    }
}
