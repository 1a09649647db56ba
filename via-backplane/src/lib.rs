//! The event-sourced clustered state backplane behind via.
//!
//! Read the modules in this order: the [contract](Backplane) an adapter implements, the [envelope] every record is,
//! the [`Event`] and [`Fold`] a user writes, and the [`Engine`] that folds one into the other on every pod.

// The derives name this crate by its path, and are used in here too.
extern crate self as via_backplane;

mod backplane;
mod compactor;
mod error;
mod feed;
mod key;
mod log;
mod offset;
mod reply;
mod store;

pub mod codec;
pub mod envelope;
// `via` re-exports the trait with a derive of its own, so it needs a path to the trait that is not also the derive.
#[doc(hidden)]
pub mod event;
mod fold;
pub mod golden;
mod trace;

mod engine;

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod fault;

pub use backplane::{Backplane, Limits};
pub use codec::{Codec, CodecId, DecodeError, EncodeError};
pub use compactor::Compactor;
#[cfg(feature = "testing")]
pub use engine::Rules;
pub use engine::{
    AcceptLossError, AppendFailed, AppendOptions, Appender, AtError, Block, Builder, Cell, Changes, Clock,
    Consumer, ConsumerError, ConsumerRunning, ConsumerState, DeadLetter, DeadLetterError, DeadLetters,
    DecideError, DecideOptions, Delivery, Digest, Engine, Entropy, Events, Fault, FoldedFrom, Halt,
    HaltReason, Health, JobError, Monotonic, NamedConsumer, OnError, OnEvent, OnStop, Parted, Party, Past,
    Pin, PinError, Rebuilt, RefoldError, Refolded, RegisterError, Sampled, Standing, StartAt, Status, Stop,
    Supervisor, Undecodable, UnreadableLetter, UpdateError, Verified, VerifyError, View, Waited, Which,
    internal_cell, metrics,
};
pub use envelope::{Envelope, EnvelopeError};
pub use error::{AppendError, BackendError, BoxError, CasError, ErrorKind, Retry, TooLarge};
pub use event::{Event, EventId};
pub use feed::{Feed, MAX_TOPIC_BYTES, Messages, PublishError, Topic};
pub use fold::{Fold, FoldState, MigrateError, Recorded};
pub use key::{Family, InvalidKey, Key, MAX_FAMILY_BYTES, MAX_INSTANCE_BYTES};
pub use log::{
    Append, AppendId, Appended, Batch, Entries, Entry, EventLog, Expectation, Hole, MAX_APPEND_ID_BYTES,
    Offsets, OwnedRecord, Page, ReadRange, Records, Resume, Selector, Stored, Subscription,
};
pub use offset::{Cursor, Epoch, Head, Incarnation, Offset, Position, RecordId, Rev};
pub use reply::Reply;
pub use store::{CellKey, CellSelector, Change, Expected, MAX_CELL_KEY_BYTES, Store, Ttl, Versioned, Watch};
pub use trace::TraceContext;
/// Derives [`trait@Event`] for a struct or enum; the trait's page says how.
pub use via_macros::Event;
/// Says which version of a state an `impl Fold` is about, and what older ones are today; [`Fold`]'s page says how.
pub use via_macros::state;

// The book's examples are compiled and run with this crate's own.
#[cfg(doctest)]
#[doc = include_str!("../../docs/folds.md")]
struct Folds;
#[cfg(doctest)]
#[doc = include_str!("../../docs/effects.md")]
struct Effects;
#[cfg(doctest)]
#[doc = include_str!("../../docs/evolution.md")]
struct Evolution;
#[cfg(doctest)]
#[doc = include_str!("../../docs/state.md")]
struct State;
