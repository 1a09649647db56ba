//! What a user's type has to say to be an event.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{CodecId, DecodeError, EncodeError, RecordId};

/// An immutable fact, as a user's type describes it.
///
/// Derive it; the derive needs `Serialize` and `Deserialize` beside it (or `prost::Message` for `codec =
/// "protobuf"`):
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use via_backplane::{CodecId, Event};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
/// #[event(name = "chat.posted", version = 1)]
/// struct Posted {
///     from: String,
///     body: String,
/// }
///
/// let posted = Posted { from: "ada".into(), body: "hello".into() };
/// let mut payload = Vec::new();
/// posted.encode(&mut payload)?;
/// assert_eq!(Posted::decode(1, CodecId::MESSAGE_PACK, &payload)?, posted);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// | key of `#[event(…)]` | meaning | default |
/// |---|---|---|
/// | `name` | what the log calls this type; it outlives the type's name and place in the code | required |
/// | `version` | the shape of the payload, at least 1 | 1 |
/// | `codec` | `"messagepack"`, `"json"`, `"bincode"` or `"protobuf"`; the last two need the feature of that name (`prost` for `protobuf`) | `"messagepack"` |
/// | `upcast` | the type of the version before: older payloads are decoded as that, and made this by `From` | none |
///
/// # Older versions
///
/// The old type keeps its attribute and its codec, under another name, and the new one says what an old event means today:
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use via_backplane::{CodecId, Event};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(name = "chat.posted", version = 1, codec = "json")]
/// struct PostedV1 {
///     body: String,
/// }
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
/// #[event(name = "chat.posted", version = 2, upcast = PostedV1)]
/// struct Posted {
///     from: Option<String>,
///     body: String,
/// }
///
/// impl From<PostedV1> for Posted {
///     fn from(old: PostedV1) -> Self {
///         Self { from: None, body: old.body }
///     }
/// }
///
/// let posted = Posted::decode(1, CodecId::JSON, br#"{"body":"hello"}"#)?;
/// assert_eq!(posted, Posted { from: None, body: "hello".into() });
/// # Ok::<(), via_backplane::DecodeError>(())
/// ```
///
/// `PostedV1` may have an `upcast` itself, and then each version becomes the next one. The book's page on evolution says
/// when a change needs a version.
///
/// # Variants a binary does not know
///
/// With a self-describing codec, an enum can name a variant that stands for every variant it does not know. A pod
/// that runs an older binary then folds a newer pod's variant as nothing, instead of skipping the record:
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use via_backplane::{CodecId, Event, Fold, Recorded};
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(name = "counter.changed")]
/// #[serde(tag = "kind")]
/// enum Changed {
///     Added { by: i64 },
///     Reset,
///     #[serde(other)]
///     Unknown,
/// }
///
/// impl Fold<i64> for Changed {
///     fn fold(self, count: &mut i64, _at: &Recorded) {
///         match self {
///             Self::Added { by } => *count += by,
///             Self::Reset => *count = 0,
///             Self::Unknown => {}
///         }
///     }
/// }
///
/// // {"kind": "Doubled", "times": 2}, as a newer binary writes it.
/// let newer = b"\x82\xa4kind\xa7Doubled\xa5times\x02";
/// assert!(matches!(Changed::decode(1, CodecId::MESSAGE_PACK, newer)?, Changed::Unknown));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The variant has to be *tagged* (`#[serde(tag = "…")]`) for this to work whatever the newer variant holds; an
/// externally tagged enum only accepts a newer variant without fields.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "write `#[derive(Serialize, Deserialize, Event)]` and `#[event(name = \"…\")]` on `{Self}`"
)]
pub trait Event: Sized + Send + Sync + 'static {
    /// What the log calls this type. Two types of one app never share it.
    const NAME: &'static str;

    /// The shape of the payload [`encode`](Self::encode) writes, at least 1.
    const VERSION: u32;

    /// The codec of the payload [`encode`](Self::encode) writes.
    const CODEC: CodecId;

    /// Appends the payload of this event to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] if the codec cannot represent the value; `out` is then as it was.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Reads the payload of an event of this name, of `version`, written by `codec`.
    ///
    /// The payload comes from outside: whatever its bytes, this returns, and allocates no more than a small
    /// multiple of them.
    ///
    /// # Errors
    /// - [`DecodeError::Newer`] if `version` is above [`VERSION`](Self::VERSION): a newer binary wrote it.
    /// - [`DecodeError::NoUpcaster`] if it is an older version that nothing here turns into this one.
    /// - [`DecodeError::ForeignCodec`] if the payload is of another codec than this type's.
    /// - [`DecodeError::Payload`] if the bytes are not this type.
    fn decode(version: u32, codec: CodecId, payload: &[u8]) -> Result<Self, DecodeError>;
}

/// The id of an event: the bytes of a UUID version 7.
///
/// It begins with the milliseconds at which it was made, so ids of one pod sort by time. It is unique, and the
/// same on every pod: derive the idempotency key of an effect from it.
///
/// ```
/// use via_backplane::EventId;
/// let id = EventId(0x01936b2f_8a40_7000_8000_000000000001_u128.to_be_bytes());
/// assert_eq!(id.to_string(), "01936b2f-8a40-7000-8000-000000000001");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub [u8; 16]);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

/// A state may keep ids: text where people read it, the sixteen bytes elsewhere.
impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { to.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            from.deserialize_str(IdVisitor)
        } else {
            from.deserialize_bytes(IdVisitor)
        }
    }
}

struct IdVisitor;

impl de::Visitor<'_> for IdVisitor {
    type Value = EventId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the id of an event, a UUID")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<EventId, E> {
        uuid::Uuid::try_parse(text).map(|uuid| EventId(uuid.into_bytes())).map_err(E::custom)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<EventId, E> {
        bytes.try_into().map(EventId).map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

impl From<EventId> for RecordId {
    fn from(id: EventId) -> Self {
        Self(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_in_a_state_is_read_back_from_every_codec() {
        let id = EventId([7; 16]);
        let json = serde_json::to_string(&id).expect("an id is text");
        assert_eq!(json, "\"07070707-0707-0707-0707-070707070707\"");
        assert_eq!(serde_json::from_str::<EventId>(&json).expect("it was just written"), id);
        let bytes = rmp_serde::to_vec_named(&id).expect("an id is bytes");
        assert_eq!(bytes.len(), 18);
        assert_eq!(rmp_serde::from_slice::<EventId>(&bytes).expect("it was just written"), id);
        assert!(rmp_serde::from_slice::<EventId>(&bytes[..17]).is_err());
        assert!(serde_json::from_str::<EventId>("\"no id\"").is_err());
    }
}
