//! Appending events, with or without their state.

use std::{fmt, marker::PhantomData, sync::Arc};

use super::{
    Core,
    append::{self, AppendFailed, AppendOptions},
    metrics::Appends,
};
use crate::{Cursor, Entries, Entry, Epoch, Event, InvalidKey, Key, Offset, Position, RecordId};

/// A handle that only appends: of a pod that has no other of its family, nothing is tailed, folded or kept.
///
/// For whatever writes and never reads: a gateway, an importer. It shares a name with the [`Events`](super::Events) of other pods, or of
/// this one. Cloning is a few reference counts.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use via_backplane::{Engine, Event};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(name = "meter.read")]
/// struct Reading { watts: f64 }
///
/// # async fn doc(engine: Engine) -> Result<(), Box<dyn std::error::Error>> {
/// let meters = engine.appender::<Reading>("meters")?;
/// meters.instance("cellar")?.append(Reading { watts: 140.0 }).await?;
/// # Ok(())
/// # }
/// ```
pub struct Appender<E> {
    core: Core,
    metrics: Arc<Appends>,
    key: Key,
    events: PhantomData<fn(E)>,
}

impl<E> Appender<E> {
    pub(super) fn new(core: Core, metrics: Arc<Appends>, key: Key) -> Self {
        Self { core, metrics, key, events: PhantomData }
    }

    /// The key it appends to.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The same family's instance of this name.
    ///
    /// # Errors
    /// [`InvalidKey`] if the name is empty or too long.
    pub fn instance(&self, name: impl AsRef<str>) -> Result<Self, InvalidKey> {
        let key = Key::instance(self.key.family(), name)?;
        Ok(Self::new(self.core.clone(), self.metrics.clone(), key))
    }

    pub(super) fn position(&self, epoch: Epoch, offset: Offset, id: RecordId) -> Position {
        Position { key: self.key.clone(), cursor: Cursor { epoch, offset, id } }
    }
}

impl<E: Event> Appender<E> {
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
        let stamp = append::Stamp::new(&self.core, &self.key, &options);
        let (record, id) = append::encode(&event, stamp, 0)?;
        let entries = Entries::One(Entry { key: self.key.clone(), record });
        let appended = append::commit(&self.core, &self.metrics, &self.key, entries, options).await?;
        let offset = appended.offsets.get(0).unwrap_or_default();
        Ok(self.position(appended.epoch, offset, id))
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
        let stamp = append::Stamp::new(&self.core, &self.key, &options);
        let (entries, id) = append::encode_all(events.into_iter().map(|event| (&self.key, event)), stamp)?;
        let appended = append::commit(&self.core, &self.metrics, &self.key, entries, options).await?;
        let last = appended.offsets.len().saturating_sub(1);
        Ok(self.position(appended.epoch, appended.offsets.get(last).unwrap_or_default(), id))
    }
}

impl<E> Clone for Appender<E> {
    fn clone(&self) -> Self {
        Self::new(self.core.clone(), self.metrics.clone(), self.key.clone())
    }
}

impl<E> fmt::Debug for Appender<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender").field("key", &self.key).finish_non_exhaustive()
    }
}
