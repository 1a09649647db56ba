//! The handle of one piece of event-sourced state.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{
    Core,
    append::{self, AppendFailed, AppendOptions},
    appender::Appender,
    changes::Changes,
    consumer::{ConsumerError, DeadLetters, Delivery, OnEvent, selector_of},
    family::{Family, Progress},
    projection::{Halt, Projection, View},
    retry::Delays,
    sampling::Sampled,
};
use crate::{BoxError, Cursor, Epoch, Event, Fold, InvalidKey, Key, Offset, Position, ReadRange, Selector};

/// One key's events and the state they fold to, on this pod.
///
/// Handles are cheap to clone. `E` is the family's event, `S` its state.
///
/// # Guarantees
///
/// - [`read`](Self::read) never waits and gives a value that does not change while it is held.
/// - Every pod that has folded the same records holds the same value, if the fold keeps its contract (see [`Fold`]).
/// - An append that returned is in the log; this pod folds it soon after, and at once for those who
///   [`wait_for`](Self::wait_for) its position.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use serde::{Deserialize, Serialize};
/// use via_backplane::{Engine, Event, Fold, Recorded, Waited};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(name = "counter.added")]
/// struct Added { by: i64 }
///
/// impl Fold<i64> for Added {
///     fn fold(self, total: &mut i64, _at: &Recorded) {
///         *total += self.by;
///     }
/// }
///
/// # async fn doc(engine: Engine) -> Result<(), Box<dyn std::error::Error>> {
/// let counter = engine.events::<Added, i64>("counter")?;
/// let position = counter.append(Added { by: 2 }).await?;
/// assert_eq!(counter.wait_for(&position, Duration::from_secs(5)).await, Waited::Reached);
/// assert_eq!(counter.read().as_deref(), Some(&2));
/// # Ok(())
/// # }
/// ```
pub struct Events<E, S> {
    pub(super) core: Core,
    pub(super) family: Arc<Family<E, S>>,
    pub(super) projection: Arc<Projection<S>>,
    /// With a key of its own, because the projector writes what lies beside the projection's.
    pub(super) appender: Appender<E>,
}

/// What waiting for a position came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The record is folded and readers see it.
    Reached,
    /// The key halted at or before the record.
    Halted,
    /// The log was recreated or restored: the record is not in this pod's history and never will be.
    EpochChanged,
    /// The time was over first.
    TimedOut,
}

/// How a key stands on this pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Nothing has been read from the log yet, or nobody has asked for the value since it was let go.
    Cold,
    /// The value is being loaded; reads answer nothing yet.
    CatchingUp,
    /// The value follows the log.
    Live,
    /// The key folds no further and serves its last good value.
    Halted(Halt),
}

impl<E, S> Events<E, S> {
    /// The key of this state.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.appender.key()
    }

    /// A handle that appends to this key, and does not keep its state.
    #[must_use]
    pub fn appender(&self) -> Appender<E> {
        self.appender.clone()
    }

    /// The value now, or `None` if it is not loaded yet (loading has begun). Never waits.
    #[must_use]
    pub fn read(&self) -> Option<View<S>> {
        // Read before the value: a value without a record must not claim a newer log than the one it was read under.
        let epoch = self.family.progress.borrow().covered.epoch;
        match self.projection.read() {
            Some((value, passed)) => Some(View::new(value, epoch, passed)),
            None => {
                self.family.want(&self.projection);
                None
            }
        }
    }

    /// Tells when the value changes or becomes loaded, which this asks for. While it is kept, the value stays on this pod.
    #[must_use]
    pub fn changes(&self) -> Changes {
        let changes = self.projection.changes();
        self.family.want(&self.projection);
        changes
    }

    /// The value, once it is loaded. A halted key answers its last good value; one that never had any does not answer until it
    /// is repaired.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn loaded(&self) -> View<S> {
        let mut changes = self.changes();
        loop {
            if let Some(view) = self.read() {
                return view;
            }
            if !changes.changed().await {
                // This handle keeps the sender alive.
                unreachable!("the projection outlives its handles");
            }
        }
    }

    /// How this key stands on this pod.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.projection.halted() {
            Some(halt) => Status::Halted(halt),
            None if !self.projection.is_incomplete() => Status::Live,
            None if self.projection.is_wanted() && self.family.is_live() => Status::CatchingUp,
            None => Status::Cold,
        }
    }

    /// The last digest this pod took of this key's value; `None` if it took none since the value was loaded, as when
    /// [`with_fold_digests`](super::Builder::with_fold_digests) is off.
    #[must_use]
    pub fn digest(&self) -> Option<Sampled> {
        self.projection.sampled()
    }

    /// Sets how many records of a key of this family are folded between two snapshots of it, for all handles of this pod.
    ///
    /// A snapshot writes the whole state: choose more for a large one.
    #[must_use]
    pub fn with_snapshot_interval(self, records: u64) -> Self {
        self.family.set_snapshot_interval(records.max(1));
        self
    }

    /// Every record up to this one is folded and published on this pod.
    #[must_use]
    pub fn covered(&self) -> Cursor {
        self.family.progress.borrow().covered
    }

    /// The records of this family that this pod skipped because they do not decode: the last 1,024, oldest first.
    #[must_use]
    pub fn undecodable(&self) -> Vec<(Key, Offset)> {
        let skipped = self.family.undecodable.lock();
        skipped.listed.iter().map(|record| (record.key.clone(), record.offset)).collect()
    }

    /// Waits until a record is folded on this pod: read your writes, here or on any other pod.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn wait_for(&self, position: &Position, at_most: Duration) -> Waited {
        let deadline = Instant::now() + at_most;
        timeout_at(deadline, self.reach(position)).await.unwrap_or(Waited::TimedOut)
    }

    async fn reach(&self, position: &Position) -> Waited {
        let mut progress = self.family.progress.subscribe();
        let mut generation = progress.borrow().generation;
        loop {
            let now = *progress.borrow_and_update();
            match self.judge(position, now, generation) {
                Standing::Settled(waited) => return waited,
                Standing::Behind => {}
                Standing::Forgotten => return self.was_folded(&position.cursor).await,
                // This pod may not have noticed yet that the log was replaced, or have just begun to fold it anew.
                Standing::Doubtful if self.log_holds(&position.cursor).await != Some(true) => {
                    return Waited::EpochChanged;
                }
                Standing::Doubtful if now.generation != generation => {
                    generation = now.generation;
                    continue;
                }
                Standing::Doubtful => {}
            }
            if progress.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// What is known without asking the log.
    fn judge(&self, position: &Position, now: Progress, generation: u64) -> Standing {
        let wanted = position.cursor;
        let rules = self.core.ambient.rules();
        let knows_epoch = now.covered.epoch != Epoch::default();
        let other_epoch = knows_epoch && now.covered.epoch != wanted.epoch && rules.compare_epochs;
        if other_epoch || now.generation != generation {
            return Standing::Doubtful;
        }
        if self.projection.halted().is_some_and(|halt| halt.at <= wanted.offset) {
            return Standing::Settled(Waited::Halted);
        }
        if self.projection.is_incomplete() {
            // Nothing is shown, so nothing is reached. It may have been let go meanwhile.
            self.family.want(&self.projection);
            return Standing::Behind;
        }
        if !now.live || now.covered.offset < wanted.offset {
            return Standing::Behind;
        }
        // Who has waited for a value reads it next: eviction passes it by once more.
        self.projection.note_use();
        match self.family.recent.lock().get(wanted.offset) {
            Some(id) if id == wanted.id || !rules.compare_record_ids => Standing::Settled(Waited::Reached),
            Some(_) => Standing::Doubtful,
            None => Standing::Forgotten,
        }
    }

    /// The record was folded too long ago to remember which it was. If it was compacted away since, it had been folded.
    async fn was_folded(&self, wanted: &Cursor) -> Waited {
        match self.log_holds(wanted).await {
            Some(false) => Waited::EpochChanged,
            Some(true) | None => Waited::Reached,
        }
    }

    /// Whether the log's record at this offset is the wanted one; `None` if there is no record. Retries until it knows.
    async fn log_holds(&self, wanted: &Cursor) -> Option<bool> {
        let selector = Selector::Key(self.key().clone());
        let range =
            ReadRange { after: Offset(wanted.offset.0.saturating_sub(1)), up_to: wanted.offset, limit: 1 };
        let mut delays =
            Delays::new(Duration::from_millis(10), Duration::from_secs(1), self.core.ambient.seed());
        loop {
            if let Ok(batch) = self.core.backplane.log().read(&selector, range).await {
                let same_epoch = batch.epoch() == wanted.epoch;
                let record = batch.iter().next()?;
                return Some(same_epoch && crate::envelope::record_id(record.bytes) == wanted.id);
            }
            delays.wait().await;
        }
    }
}

/// How a position stands, as far as this pod knows.
enum Standing {
    Settled(Waited),
    /// Not folded yet.
    Behind,
    /// Folded, if the log is still the one it was appended to.
    Forgotten,
    /// The log it was appended to may not be the one this pod has folded.
    Doubtful,
}

impl<E: Event, S: Default> Events<E, S> {
    pub(super) fn new(core: Core, family: Arc<Family<E, S>>, key: &Key) -> Self {
        let projection = family.projection(key);
        let appender = Appender::new(core.clone(), family.metrics.appends.clone(), projection.key.clone());
        Self { core, family, projection, appender }
    }

    /// The same family's instance of this name.
    ///
    /// # Errors
    /// [`InvalidKey`] if the name is empty or too long.
    pub fn instance(&self, name: impl AsRef<str>) -> Result<Self, InvalidKey> {
        let key = Key::instance(&self.family.name, name)?;
        Ok(Self::new(self.core.clone(), self.family.clone(), &key))
    }
}

impl<E, S> Events<E, S>
where
    E: Event + Fold<S>,
{
    /// Appends one event and answers where it stands.
    ///
    /// # Errors
    /// [`AppendFailed`]; its `retry()` says whether repeating is right.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the append: it may still be committed.
    pub async fn append(&self, event: E) -> Result<Position, AppendFailed> {
        self.append_with(event, AppendOptions::default()).await
    }

    /// Appends one event with an id, an expectation or a trace context.
    ///
    /// With an id, an unknown outcome is resolved by repeating the append inside the id's window.
    ///
    /// # Errors
    /// As [`append`](Self::append); also [`AppendFailed::Conflict`] if an expectation failed.
    ///
    /// # Cancel safety
    /// As [`append`](Self::append).
    pub async fn append_with(&self, event: E, options: AppendOptions) -> Result<Position, AppendFailed> {
        self.appender.append_with(event, options).await
    }

    /// Appends several events of this key, adjacent, in order, all or none; answers where the last one stands.
    ///
    /// # Errors
    /// As [`append`](Self::append); [`AppendFailed::Empty`] if there is no event, [`AppendFailed::TooLarge`] if there are
    /// more than the backplane takes at once.
    ///
    /// # Cancel safety
    /// As [`append`](Self::append).
    pub async fn append_batch(&self, events: impl IntoIterator<Item = E>) -> Result<Position, AppendFailed> {
        self.append_batch_with(events, AppendOptions::default()).await
    }

    /// As [`append_batch`](Self::append_batch), with an id, an expectation or a trace context.
    ///
    /// # Errors
    /// As [`append_batch`](Self::append_batch).
    ///
    /// # Cancel safety
    /// As [`append`](Self::append).
    pub async fn append_batch_with(
        &self,
        events: impl IntoIterator<Item = E>,
        options: AppendOptions,
    ) -> Result<Position, AppendFailed> {
        self.appender.append_batch_with(events, options).await
    }

    /// Appends events of several instances of this family, adjacent, in order, all or none; answers where each stands.
    ///
    /// An id in `options` is scoped to the first event's key; an expectation is about that key too.
    ///
    /// # Errors
    /// As [`append_batch`](Self::append_batch), and [`AppendFailed::OtherFamily`] if a handle is of another family.
    ///
    /// # Cancel safety
    /// As [`append`](Self::append).
    pub async fn append_across(
        events: impl IntoIterator<Item = (Self, E)>,
        options: AppendOptions,
    ) -> Result<Vec<Position>, AppendFailed> {
        let events: Vec<_> = events.into_iter().collect();
        let Some((first, _)) = events.first() else { return Err(AppendFailed::Empty) };
        let first = first.clone();
        if let Some((other, _)) =
            events.iter().find(|(handle, _)| !Arc::ptr_eq(&handle.family, &first.family))
        {
            return Err(AppendFailed::OtherFamily { key: other.key().clone() });
        }
        let stamp = append::Stamp::new(&first.core, first.key(), &options);
        let keys: Vec<_> = events.iter().map(|(handle, _)| handle.key().clone()).collect();
        let events = keys.iter().zip(events).map(|(key, (_, event))| (key, event));
        let (entries, _) = append::encode_all(events, stamp)?;
        let ids: Vec<_> = entries.iter().map(|entry| crate::envelope::record_id(&entry.record)).collect();
        let appended =
            append::commit(&first.core, &first.family.metrics.appends, first.key(), entries, options).await?;
        let offsets = appended.offsets.iter();
        let cursors = offsets.zip(ids).map(|(offset, id)| Cursor { epoch: appended.epoch, offset, id });
        Ok(keys.into_iter().zip(cursors).map(|(key, cursor)| Position { key, cursor }).collect())
    }
}

impl<E: Event, S> Events<E, S> {
    /// Runs a side effect for every event, on one pod at a time and at least once. Await what it answers.
    ///
    /// On a family's own handle it is about every event of the family, those of its instances included; on an instance's handle about
    /// that instance's alone. The name says which consumer it is, to all pods and for as long as there is the log: a pod that comes
    /// back under it goes on where the last one stood.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use via_backplane::{Event, Events, Fold, Recorded};
    /// # #[derive(Clone, Serialize, Deserialize, Event)]
    /// # #[event(name = "order.placed")]
    /// # struct Placed { article: String }
    /// # impl Fold<u64> for Placed { fn fold(self, placed: &mut u64, _at: &Recorded) { *placed += 1; } }
    /// use via_backplane::Delivery;
    ///
    /// async fn ship(order: Delivery<Placed>) -> Result<(), std::io::Error> {
    ///     println!("shipping {} as {}", order.event.article, order.idempotency_key());
    ///     Ok(())
    /// }
    ///
    /// # async fn doc(orders: Events<Placed, u64>) -> Result<(), Box<dyn std::error::Error>> {
    /// orders.on_event("ship", ship).concurrency(8).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_event<H, Fut, Failure>(&self, name: impl Into<String>, handler: H) -> OnEvent<E>
    where
        H: Fn(Delivery<E>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
        Failure: Into<BoxError>,
    {
        OnEvent::new(self.core.clone(), selector_of(self.key()), name.into(), handler)
    }

    /// The events of this family that the consumer of this name has given up.
    ///
    /// # Errors
    /// [`ConsumerError::InvalidName`] if it is no name.
    pub fn dead_letters(&self, consumer: &str) -> Result<DeadLetters, ConsumerError> {
        DeadLetters::new(&self.core, self.key().family(), consumer)
    }
}

impl<E, S> Clone for Events<E, S> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            family: self.family.clone(),
            projection: self.projection.clone(),
            appender: self.appender.clone(),
        }
    }
}

impl<E, S> fmt::Debug for Events<E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("key", self.key()).finish_non_exhaustive()
    }
}
