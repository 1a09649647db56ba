//! How an event changes a state, and how a state outlives its type.

use std::{any::type_name, time::SystemTime};

use serde::{Serialize, de::DeserializeOwned};

use crate::{BoxError, CodecId, EventId, Offset, Retry, codec::decode_state};

/// The pure reducer: what this event does to a state.
///
/// Every pod folds the same events in the same order and has to arrive at the same state, today and in years. So
/// a fold reads nothing but the event, the state and `at`: no clock, no randomness, no environment, nothing
/// global, and nothing whose order varies, such as iterating a `HashMap`. The book's page on folds says what
/// else, and why.
///
/// A fold does not fail. Refuse a change *before* it becomes an event; once it is one, it has happened. A fold
/// that panics halts its key on this pod, at the value before the event.
///
/// ```
/// use std::time::UNIX_EPOCH;
/// use via_backplane::{EventId, Fold, Offset, Recorded};
///
/// struct Added { by: i64 }
///
/// impl Fold<i64> for Added {
///     fn fold(self, count: &mut i64, _at: &Recorded) {
///         *count += self.by;
///     }
/// }
///
/// // A fold is tested by folding.
/// let mut count = 40;
/// let at = Recorded::new(Offset(7), EventId([1; 16]), UNIX_EPOCH);
/// Added { by: 2 }.fold(&mut count, &at);
/// assert_eq!(count, 42);
/// ```
///
/// # Versions of a state
///
/// Snapshots keep what a fold made of records that may be gone. A snapshot that another version of the program wrote
/// holds what *its* fold made of them, in *its* type. So a change of the fold or of the state type is a new version of
/// the two together, and a migration says what the old value is today. Write both with
/// [`#[state]`](macro@crate::state):
///
/// ```
/// use std::collections::BTreeMap;
/// use serde::{Deserialize, Serialize};
/// use via_backplane::{Fold, Recorded, state};
///
/// struct Counted { room: String }
///
/// /// What the first version kept: how many in all.
/// #[derive(Deserialize)]
/// struct VisitsV1(u64);
///
/// #[derive(Default, Clone, Serialize, Deserialize)]
/// struct Visits { before_rooms: u64, rooms: BTreeMap<String, u64> }
///
/// impl From<VisitsV1> for Visits {
///     fn from(VisitsV1(before_rooms): VisitsV1) -> Self {
///         Self { before_rooms, rooms: BTreeMap::new() }
///     }
/// }
///
/// #[state(version = 2, migrate(1 = VisitsV1))]
/// impl Fold<Visits> for Counted {
///     fn fold(self, visits: &mut Visits, _at: &Recorded) {
///         *visits.rooms.entry(self.room).or_default() += 1;
///     }
/// }
/// ```
///
/// A key whose records are all retained needs no migration: it is folded anew. A compacted key whose snapshot no
/// migration reads halts, and names the one to write. The book's page on evolution has the rest.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how it changes `{S}`",
    label = "no `Fold<{S}>` for this event",
    note = "write `impl Fold<{S}> for {Self} {{ fn fold(self, state: &mut {S}, at: &Recorded) {{ … }} }}`"
)]
pub trait Fold<S>: Sized {
    /// The version of this fold and of `S` together, at least 1. Raise it when either changes.
    const STATE_VERSION: u32 = 1;

    /// Changes `state` by this event, recorded `at`.
    fn fold(self, state: &mut S, at: &Recorded);

    /// The present state that a snapshot of an older `version`, written by `codec`, stands for.
    ///
    /// Only asked about versions below [`STATE_VERSION`](Self::STATE_VERSION). Like a fold, it has to be a function of
    /// what it is given: every pod migrates for itself. [`decode_state`](crate::codec::decode_state) reads the snapshot.
    ///
    /// # Errors
    /// [`MigrateError::NoMigration`] if the version is not one this binary migrates, which is what this says where it
    /// is not written; [`MigrateError::Snapshot`] if the bytes are not what that version wrote.
    fn migrate(version: u32, codec: CodecId, snapshot: &[u8]) -> Result<S, MigrateError> {
        // Whatever it holds, nothing here reads it.
        let _unread = (codec, snapshot);
        Err(MigrateError::none::<Self, S>(version))
    }
}

/// What a state has to be: written down as snapshots, copied for readers, and empty before the first event.
///
/// Nobody implements it: it stands for the traits it names.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the state of a fold",
    label = "not a state",
    note = "write `#[derive(Clone, Default, Serialize, Deserialize)]` on `{Self}`: a state is copied for readers, and \
            written down as snapshots",
    note = "a state is also `Send`, `Sync` and `'static`"
)]
pub trait FoldState: Serialize + DeserializeOwned + Default + Clone + Send + Sync + 'static {}

// Without this, the error would name the first missing trait, and the next one after that was derived.
#[diagnostic::do_not_recommend]
impl<S: Serialize + DeserializeOwned + Default + Clone + Send + Sync + 'static> FoldState for S {}

/// The state a snapshot stands for, whichever version of `E`'s fold wrote it.
///
/// # Errors
/// [`MigrateError`] says what the snapshot needs.
pub(crate) fn restore<E, S>(version: u32, codec: CodecId, snapshot: &[u8]) -> Result<S, MigrateError>
where
    E: Fold<S>,
    S: DeserializeOwned,
{
    use std::cmp::Ordering::{Equal, Greater, Less};

    match version.cmp(&E::STATE_VERSION) {
        Less => E::migrate(version, codec, snapshot),
        Equal => decode_state(version, codec, snapshot),
        Greater => Err(MigrateError::Newer { state: type_name::<S>(), version, known: E::STATE_VERSION }),
    }
}

/// Why a snapshot is not the state that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// Nothing turns a snapshot of this version into the present state: write the migration.
    #[error(
        "nothing migrates the state `{state}` from version {version} to {current}: write \
         `migrate({version} = …)` into the `#[state(version = {current})]` of `impl Fold<{state}> for {event}`, or that \
         impl's `fn migrate`"
    )]
    NoMigration {
        /// The state's type.
        state: &'static str,
        /// The type that folds into it.
        event: &'static str,
        /// The snapshot's version.
        version: u32,
        /// The version this binary folds.
        current: u32,
    },
    /// A newer binary wrote the snapshot.
    #[error("a snapshot of the state `{state}` is of version {version}, this binary knows {known}")]
    Newer {
        /// The state's type.
        state: &'static str,
        /// The snapshot's version.
        version: u32,
        /// The newest version this binary knows.
        known: u32,
    },
    /// The snapshot is not what its version says.
    #[error("the snapshot of version {version} is no `{state}`")]
    Snapshot {
        /// The type it was to be read as.
        state: &'static str,
        /// The snapshot's version.
        version: u32,
        /// What is wrong with it.
        source: BoxError,
    },
}

impl MigrateError {
    /// What a hand-written [`Fold::migrate`] answers for a version it does not know.
    #[must_use]
    pub fn none<E: Fold<S>, S>(version: u32) -> Self {
        Self::NoMigration {
            state: type_name::<S>(),
            event: type_name::<E>(),
            version,
            current: E::STATE_VERSION,
        }
    }

    /// Whether migrating the same snapshot again, in this binary, is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

/// What the log knows about an event being folded: where it stands, which it is, and when it was appended.
///
/// The same on every pod, so a fold may use all of it: `time` is the clock of a fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    offset: Offset,
    id: EventId,
    time: SystemTime,
}

impl Recorded {
    /// Describes a record; for tests of folds. `time` should be whole microseconds, as it is in the log.
    #[must_use]
    pub fn new(offset: Offset, id: EventId, time: SystemTime) -> Self {
        Self { offset, id, time }
    }

    /// Where the record stands in its family's log.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Which event it is.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.id
    }

    /// When it was appended, by the clock of the pod that appended it, to the microsecond.
    ///
    /// Times of different pods may disagree with each other and with the order of the log. Order by
    /// [`offset`](Self::offset).
    #[must_use]
    pub fn time(&self) -> SystemTime {
        self.time
    }
}
