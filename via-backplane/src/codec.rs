//! How an event becomes a payload and back.
//!
//! The codec is the event type's choice and its [`CodecId`] stands in every envelope, so a log may hold payloads of
//! several. [`MessagePack`] with named fields is the default: it describes itself, so a field can be added without a
//! new version. `docs/decisions/payload-codec.md` has the reasons and the figures.
//!
//! Payloads come from outside. Every codec here rejects bytes after the value, allocates at most a small multiple of
//! the payload, and bounds nesting to about [`MAX_DEPTH`]: a record cannot overflow the stack of the pods that fold it.

use std::{any::type_name, fmt};

use serde::de::DeserializeOwned;

use crate::{BoxError, Event, MigrateError, Retry};

#[cfg(feature = "bincode")]
mod bincode;
#[cfg(feature = "bincode")]
mod bounded;
mod json;
mod message_pack;
#[cfg(feature = "prost")]
mod protobuf;

#[cfg(feature = "bincode")]
pub use self::bincode::Bincode;
#[cfg(feature = "prost")]
pub use self::protobuf::Protobuf;
pub use self::{json::Json, message_pack::MessagePack};

/// The deepest nesting of lists, maps and enums in a payload.
///
/// It is the recursion limit of prost. Without one, a payload of a few kilobytes overflows the stack, which aborts
/// the process of every pod that reads it.
pub const MAX_DEPTH: usize = 100;

/// Which codec wrote a payload, as the envelope says it. Ids never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodecId(pub u32);

impl CodecId {
    /// [`MessagePack`]'s.
    pub const MESSAGE_PACK: Self = Self(1);
    /// [`Json`]'s.
    pub const JSON: Self = Self(2);
    /// `Bincode`'s; known without the feature `bincode`, so that an error can name it.
    pub const BINCODE: Self = Self(3);
    /// `Protobuf`'s; known without the feature `prost`, so that an error can name it.
    pub const PROTOBUF: Self = Self(4);
}

impl fmt::Display for CodecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MESSAGE_PACK => f.write_str("messagepack"),
            Self::JSON => f.write_str("json"),
            Self::BINCODE => f.write_str("bincode"),
            Self::PROTOBUF => f.write_str("protobuf"),
            Self(other) => write!(f, "codec {other}"),
        }
    }
}

/// A way to write values of `T` as bytes.
///
/// ```
/// use via_backplane::codec::{Codec, Json, MessagePack};
/// let mut payload = Vec::new();
/// <Json as Codec<_>>::encode(&vec![1, 2], &mut payload)?;
/// assert_eq!(payload, b"[1,2]");
/// let back: Vec<i32> = Json::decode(&payload)?;
/// assert_eq!(back, [1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Codec<T> {
    /// What envelopes call this codec.
    const ID: CodecId;

    /// Appends `value` to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] if this codec cannot represent the value; `out` is then as it was.
    fn encode(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Reads exactly one value that takes up all of `bytes`.
    ///
    /// # Errors
    /// [`DecodeError::Payload`] if the bytes are anything else.
    fn decode(bytes: &[u8]) -> Result<T, DecodeError>;
}

/// Decodes an event of its current version: the whole of [`Event::decode`] for a type without upcasters.
///
/// # Errors
/// As [`Event::decode`].
pub fn decode_current<E, C>(version: u32, codec: CodecId, payload: &[u8]) -> Result<E, DecodeError>
where
    E: Event,
    C: Codec<E>,
{
    // The version is looked at first: a newer one may well have changed the codec too, and it is the newer version that
    // tells the engine to wait for a newer binary.
    if version > E::VERSION {
        return Err(DecodeError::Newer { version, known: E::VERSION });
    }
    if version < E::VERSION {
        return Err(DecodeError::NoUpcaster { version, current: E::VERSION });
    }
    if codec != C::ID {
        return Err(DecodeError::ForeignCodec { codec, expected: C::ID });
    }
    C::decode(payload)
}

/// Decodes an event of any version up to its current one: the whole of [`Event::decode`] for a type with an upcaster.
///
/// The current version is `C`'s; every older one is decoded as `Old`, in whatever codec that has, and turned into `E`
/// by its `From<Old>`. `Old` may have an upcaster itself. It has to be an older version of the same event: the derive
/// checks that where it is written, and any use of this function checks it when it is compiled.
///
/// # Errors
/// As [`Event::decode`].
#[inline]
pub fn decode_upcast<E, C, Old>(version: u32, codec: CodecId, payload: &[u8]) -> Result<E, DecodeError>
where
    E: Event + MadeFrom<Old>,
    C: Codec<E>,
    Old: Event,
{
    const {
        assert!(is_same_name::<E, Old>(), "an event is upcast from older versions of the same event name");
        // An event that upcasts from itself would look for its payload's version for ever.
        assert!(is_older::<E, Old>(), "an event is upcast from a version below its own");
    }
    if version >= E::VERSION {
        return decode_current::<E, C>(version, codec, payload);
    }
    // Versions between the two were never upcast from; asked about one, `Old` would say that a newer binary knows it.
    if version > Old::VERSION {
        return Err(DecodeError::NoUpcaster { version, current: E::VERSION });
    }
    Old::decode(version, codec, payload).map(E::made_from)
}

/// Reads a snapshot of a state as the type that version had; `version` is for the error.
///
/// For a [`migrate`](crate::Fold::migrate) written by hand:
///
/// ```
/// use via_backplane::{CodecId, Fold, MigrateError, Recorded, codec::decode_state};
///
/// struct Added { cents: i64 }
///
/// impl Fold<i64> for Added {
///     const STATE_VERSION: u32 = 2;
///
///     fn fold(self, cents: &mut i64, _at: &Recorded) {
///         *cents += self.cents;
///     }
///
///     fn migrate(version: u32, codec: CodecId, snapshot: &[u8]) -> Result<i64, MigrateError> {
///         match version {
///             // Version 1 counted whole euros.
///             1 => decode_state::<i64>(version, codec, snapshot).map(|euros| euros * 100),
///             _ => Err(MigrateError::none::<Self, i64>(version)),
///         }
///     }
/// }
/// ```
///
/// # Errors
/// [`MigrateError::Snapshot`] if the bytes are anything else.
pub fn decode_state<T: DeserializeOwned>(
    version: u32,
    codec: CodecId,
    snapshot: &[u8],
) -> Result<T, MigrateError> {
    let state = match codec {
        CodecId::MESSAGE_PACK => message_pack::decode(snapshot),
        _ => Err(DecodeError::ForeignCodec { codec, expected: CodecId::MESSAGE_PACK }),
    };
    state.map_err(|error| MigrateError::Snapshot { state: type_name::<T>(), version, source: error.into() })
}

/// What an older version of a value becomes: [`From`], with an error message of its own.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "nothing turns `{Old}` into `{Self}`",
    label = "no `From<{Old}>` for the newer version",
    note = "write `impl From<{Old}> for {Self}`: it says what was stored as `{Old}` means today"
)]
pub trait MadeFrom<Old> {
    fn made_from(old: Old) -> Self;
}

#[diagnostic::do_not_recommend]
impl<Old, T: From<Old>> MadeFrom<Old> for T {
    #[inline]
    fn made_from(old: Old) -> Self {
        old.into()
    }
}

/// What `old` is as the version after it.
#[doc(hidden)]
#[inline]
pub fn made_from<New: MadeFrom<Old>, Old>(old: Old) -> New {
    New::made_from(old)
}

/// Whether two types describe the same event; for constants.
#[doc(hidden)]
#[must_use]
pub const fn is_same_name<E: Event, Old: Event>() -> bool {
    let (name, old) = (E::NAME.as_bytes(), Old::NAME.as_bytes());
    let mut at = 0;
    // Neither `==` nor an iterator works in a constant.
    while at < name.len() && at < old.len() && name[at] == old[at] {
        at += 1;
    }
    at == name.len() && at == old.len()
}

/// Whether `Old` is an older version than `E`; for constants.
#[doc(hidden)]
#[must_use]
pub const fn is_older<E: Event, Old: Event>() -> bool {
    Old::VERSION < E::VERSION
}

/// Why an event has no payload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The value nests deeper than [`MAX_DEPTH`], so nobody could decode it.
    #[error("the event nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// The codec cannot represent the value.
    #[error("the event cannot be encoded as {codec}")]
    Payload {
        /// The codec that was asked to.
        codec: CodecId,
        /// What it said.
        source: BoxError,
    },
}

impl EncodeError {
    /// Whether encoding the same event again is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

/// Why a payload is not an event of the type that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A newer binary wrote the payload: wait for one that knows the version.
    #[error("the payload is of version {version}, this binary knows {known}")]
    Newer {
        /// The payload's version.
        version: u32,
        /// The newest version this type knows.
        known: u32,
    },
    /// An older version of the payload that nothing turns into the current one: write the upcaster.
    #[error("the payload is of version {version}, and nothing upcasts it to {current}")]
    NoUpcaster {
        /// The payload's version.
        version: u32,
        /// The version this type is.
        current: u32,
    },
    /// The payload was written by another codec than the type's: a change of codec needs a new version.
    #[error("the payload is {codec}, the event type reads {expected}")]
    ForeignCodec {
        /// The payload's codec.
        codec: CodecId,
        /// The type's codec.
        expected: CodecId,
    },
    /// The payload nests deeper than [`MAX_DEPTH`].
    #[error("the payload nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// The bytes are not a value of the type.
    #[error("the payload is not the event type's {codec}")]
    Payload {
        /// The codec that was asked to.
        codec: CodecId,
        /// What it said.
        source: BoxError,
    },
}

impl DecodeError {
    /// Whether decoding the same payload again, in this binary, is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        Retry::Never
    }

    fn payload(codec: CodecId, source: impl Into<BoxError>) -> Self {
        Self::Payload { codec, source: source.into() }
    }
}

/// Encodes by `write`, and leaves `out` as it was if that fails.
fn encode_with<E: Into<BoxError>>(
    codec: CodecId,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), EncodeError> {
    let start = out.len();
    write(out).map_err(|source| {
        out.truncate(start);
        EncodeError::Payload { codec, source: source.into() }
    })
}
