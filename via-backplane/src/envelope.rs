//! What every record is: an event's payload and what the log has to know about it.
//!
//! A record is a protobuf message, `proto/envelope.proto`; `docs/wire-format.md` describes it for other languages. The
//! code here is written by hand, because every append and every fold pass through it: decoding borrows from the
//! record and allocates nothing, and fields of later versions survive being decoded and encoded.

use std::{
    str::Utf8Error,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost::encoding::WireType;

use crate::{CodecId, EventId, Offset, RecordId, Recorded, Retry, TraceContext};

mod unknown;
mod wire;

pub use unknown::Unknown;
use wire::Reader;

// The keys of the fields. The numbers are all below 16, so that every key is one byte.
const ID: u64 = wire::key(1, WireType::LengthDelimited);
const TIME: u64 = wire::key(2, WireType::SixtyFourBit);
const NAME: u64 = wire::key(3, WireType::LengthDelimited);
const VERSION: u64 = wire::key(4, WireType::Varint);
const CODEC: u64 = wire::key(5, WireType::Varint);
const PAYLOAD: u64 = wire::key(6, WireType::LengthDelimited);
const TRACE: u64 = wire::key(7, WireType::LengthDelimited);
const TRACE_STATE: u64 = wire::key(8, WireType::LengthDelimited);
const SUBJECT: u64 = wire::key(9, WireType::LengthDelimited);

/// The highest field number this version knows; it knows all below.
const LAST: u32 = wire::number(SUBJECT);

const ID_BYTES: usize = 16;
const TRACE_BYTES: usize = 16 + 8 + 1;

/// A record, borrowed from its bytes.
///
/// ```
/// use via_backplane::{CodecId, EventId, envelope::{Envelope, Unknown}};
///
/// let envelope = Envelope {
///     id: EventId([7; 16]),
///     time: 1_764_000_000_000_000,
///     name: "counter.added",
///     version: 1,
///     codec: CodecId::JSON,
///     payload: br#"{"by":1}"#,
///     trace: None,
///     trace_state: None,
///     subject: None,
///     unknown: Unknown::default(),
/// };
/// let mut record = Vec::new();
/// envelope.encode(&mut record);
/// assert_eq!(record.len(), envelope.encoded_len());
/// assert_eq!(Envelope::decode(&record)?, envelope);
/// # Ok::<(), via_backplane::envelope::EnvelopeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Which event this is.
    pub id: EventId,
    /// When it was appended: microseconds since 1970-01-01T00:00:00Z. [`micros`] and [`system_time`] convert it.
    pub time: u64,
    /// What the log calls the event's type; never empty.
    pub name: &'a str,
    /// The shape of the payload.
    pub version: u32,
    /// How the payload is written.
    pub codec: CodecId,
    /// The event.
    pub payload: &'a [u8],
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
    /// The W3C `tracestate` that belongs to `trace`.
    pub trace_state: Option<&'a str>,
    /// The data subject: whom the event is about, where somebody may ask for their data.
    pub subject: Option<&'a str>,
    /// Fields of later versions.
    pub unknown: Unknown<'a>,
}

impl<'a> Envelope<'a> {
    /// Reads a record without copying or allocating.
    ///
    /// Of a field that occurs more than once the last counts, as protobuf has it.
    ///
    /// # Errors
    /// [`EnvelopeError`] says what is wrong with the bytes; such a record is undecodable for every binary.
    pub fn decode(record: &'a [u8]) -> Result<Self, EnvelopeError> {
        Self::decode_named(record, "")
    }

    /// Reads a record whose name is probably this one: to compare the bytes costs less than to look whether they are UTF-8.
    pub(crate) fn decode_named(record: &'a [u8], probably: &'static str) -> Result<Self, EnvelopeError> {
        use EnvelopeError::Malformed;

        let (mut id, mut trace) = (None, None);
        let mut envelope = Self {
            id: EventId([0; ID_BYTES]),
            time: 0,
            name: "",
            version: 0,
            codec: CodecId(0),
            payload: &[],
            trace: None,
            trace_state: None,
            subject: None,
            unknown: Unknown::default(),
        };
        let mut reader = Reader::new(record);
        loop {
            let field = reader.rest();
            if field.is_empty() {
                break;
            }
            let key = reader.key().ok_or(Malformed)?;
            match key {
                ID => id = Some(reader.bytes().ok_or(Malformed)?),
                TIME => envelope.time = reader.fixed64().ok_or(Malformed)?,
                NAME => {
                    let name = reader.bytes().ok_or(Malformed)?;
                    envelope.name = if name == probably.as_bytes() { probably } else { text("name", name)? };
                }
                // Protobuf truncates a 64-bit varint in a 32-bit field.
                VERSION => envelope.version = reader.varint().ok_or(Malformed)? as u32,
                CODEC => envelope.codec = CodecId(reader.varint().ok_or(Malformed)? as u32),
                PAYLOAD => envelope.payload = reader.bytes().ok_or(Malformed)?,
                TRACE => trace = Some(reader.bytes().ok_or(Malformed)?),
                TRACE_STATE => {
                    envelope.trace_state = Some(text("trace_state", reader.bytes().ok_or(Malformed)?)?);
                }
                SUBJECT => envelope.subject = Some(text("subject", reader.bytes().ok_or(Malformed)?)?),
                _ if wire::number(key) <= LAST => {
                    return Err(EnvelopeError::WireType { field: wire::number(key) });
                }
                _ => {
                    reader.skip(key).ok_or(Malformed)?;
                    envelope.unknown.push(field, reader.rest());
                }
            }
        }
        if envelope.name.is_empty() {
            return Err(EnvelopeError::Missing { field: "name" });
        }
        let id = id.filter(|id| !id.is_empty()).ok_or(EnvelopeError::Missing { field: "id" })?;
        envelope.id = EventId(sized("id", id)?);
        envelope.trace = trace.map(trace_context).transpose()?;
        Ok(envelope)
    }

    /// How many bytes [`encode`](Self::encode) appends.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        wire::bytes_len(ID_BYTES)
            + if self.time == 0 { 0 } else { wire::FIXED64_LEN }
            + implicit_bytes_len(self.name.as_bytes())
            + implicit_varint_len(self.version)
            + implicit_varint_len(self.codec.0)
            + implicit_bytes_len(self.payload)
            + self.trace.map_or(0, |_| wire::bytes_len(TRACE_BYTES))
            + self.trace_state.map_or(0, |state| wire::bytes_len(state.len()))
            + self.subject.map_or(0, |subject| wire::bytes_len(subject.len()))
            + self.unknown.len()
    }

    /// Appends the record to `out`, which grows at most once; an empty one is then exactly full.
    ///
    /// The known fields come first, in the order of their numbers, then the unknown ones as they were. So a record
    /// that was written this way is the same after decoding and encoding, to the byte.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        wire::put_bytes(ID, &self.id.0, out);
        if self.time != 0 {
            wire::put_fixed64(TIME, self.time, out);
        }
        put_implicit_bytes(NAME, self.name.as_bytes(), out);
        put_implicit_varint(VERSION, self.version, out);
        put_implicit_varint(CODEC, self.codec.0, out);
        put_implicit_bytes(PAYLOAD, self.payload, out);
        if let Some(trace) = &self.trace {
            wire::put_bytes(TRACE, &trace_bytes(trace), out);
        }
        if let Some(trace_state) = self.trace_state {
            wire::put_bytes(TRACE_STATE, trace_state.as_bytes(), out);
        }
        if let Some(subject) = self.subject {
            wire::put_bytes(SUBJECT, subject.as_bytes(), out);
        }
        for field in self.unknown.fields() {
            out.extend_from_slice(field);
        }
    }

    /// What a fold is told about this record, which stands at `offset`.
    #[must_use]
    pub fn recorded(&self, offset: Offset) -> Recorded {
        Recorded::new(offset, self.id, system_time(self.time))
    }
}

/// The identity of a record: its event id, or a digest of bytes that have none.
///
/// It looks at nothing but the id, so binaries that disagree about the rest of a record agree about its identity. The
/// digest is the first 16 bytes of BLAKE3.
#[must_use]
pub fn record_id(record: &[u8]) -> RecordId {
    event_id(record).unwrap_or_else(|| {
        let mut digest = [0; ID_BYTES];
        blake3::Hasher::new().update(record).finalize_xof().fill(&mut digest);
        RecordId(digest)
    })
}

fn event_id(record: &[u8]) -> Option<RecordId> {
    let mut id = None;
    let mut reader = Reader::new(record);
    while !reader.rest().is_empty() {
        match reader.key()? {
            ID => id = Some(reader.bytes()?),
            key => reader.skip(key)?,
        }
    }
    id?.try_into().ok().map(RecordId)
}

/// A time as records have it: whole microseconds since 1970, 0 for anything earlier.
#[must_use]
pub fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The time a record has; 1970 where this platform cannot represent it.
#[must_use]
pub fn system_time(micros: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_micros(micros)).unwrap_or(UNIX_EPOCH)
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The bytes are not a protobuf message, or have a group, which no via ever wrote.
    #[error("the record is not a protobuf message")]
    Malformed,
    /// A field this version knows has another wire type.
    #[error("the envelope's field {field} has the wrong wire type")]
    WireType {
        /// The field's number.
        field: u32,
    },
    /// A required field is not there, or empty.
    #[error("the envelope has no {field}")]
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// A field of fixed length has another one.
    #[error("the envelope's {field} has {len} bytes instead of {expected}")]
    Length {
        /// The field's name.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The length it should have.
        expected: usize,
    },
    /// A text is not UTF-8.
    #[error("the envelope's {field} is not UTF-8")]
    Utf8 {
        /// The field's name.
        field: &'static str,
        /// Where it is not.
        source: Utf8Error,
    },
}

impl EnvelopeError {
    /// Whether decoding the same bytes again is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

fn text<'a>(field: &'static str, bytes: &'a [u8]) -> Result<&'a str, EnvelopeError> {
    std::str::from_utf8(bytes).map_err(|source| EnvelopeError::Utf8 { field, source })
}

fn sized<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], EnvelopeError> {
    bytes.try_into().map_err(|_| EnvelopeError::Length { field, len: bytes.len(), expected: N })
}

fn trace_context(bytes: &[u8]) -> Result<TraceContext, EnvelopeError> {
    let bytes: [u8; TRACE_BYTES] = sized("trace", bytes)?;
    let [trace_id @ .., _, _, _, _, _, _, _, _, _] = bytes;
    let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, span_id @ .., flags] = bytes;
    Ok(TraceContext { trace_id, span_id, flags })
}

fn trace_bytes(trace: &TraceContext) -> [u8; TRACE_BYTES] {
    let mut bytes = [0; TRACE_BYTES];
    bytes[..16].copy_from_slice(&trace.trace_id);
    bytes[16..24].copy_from_slice(&trace.span_id);
    bytes[24] = trace.flags;
    bytes
}

// Protobuf leaves a field without explicit presence away when it has its default, and so do we: one value, one encoding.

fn implicit_bytes_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { wire::bytes_len(bytes.len()) }
}

fn put_implicit_bytes(key: u64, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        wire::put_bytes(key, bytes, out);
    }
}

fn implicit_varint_len(value: u32) -> usize {
    if value == 0 { 0 } else { wire::varint_len(value) }
}

fn put_implicit_varint(key: u64, value: u32, out: &mut Vec<u8>) {
    if value != 0 {
        wire::put_varint(key, value, out);
    }
}
