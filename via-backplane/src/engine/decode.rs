//! From a stored record to the event a fold takes, or to what is wrong with it.

use std::any::Any;

use super::supervisor;
use crate::{
    DecodeError, Event, RecordId, Recorded, Stored,
    envelope::{self, Envelope, EnvelopeError},
};

/// A record as a fold takes it.
pub(crate) struct Decoded<E> {
    pub(crate) at: Recorded,
    pub(crate) event: E,
}

/// Why a record does not decode; each means something else for its key.
#[derive(Debug)]
pub(crate) enum Problem {
    /// A newer binary wrote it: the key halts until this one is replaced.
    Newer { name: String, version: u32 },
    /// An event this binary does not know: likewise.
    Unknown { name: String },
    /// The bytes are not what they should be: the record is skipped.
    Undecodable(Undecodable),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Undecodable {
    #[error("not an envelope")]
    Envelope(#[source] EnvelopeError),
    #[error("the payload does not decode")]
    Payload(#[source] DecodeError),
    #[error("decoding the payload panicked: {0}")]
    Panicked(String),
}

pub(crate) fn decode<E: Event>(record: &Stored<'_>) -> Result<Decoded<E>, Problem> {
    open(record, |event, envelope| Decoded { at: envelope.recorded(record.offset), event })
}

/// Decodes a record, and makes something of its event and of what is around it.
pub(crate) fn open<E: Event, T>(
    record: &Stored<'_>,
    make: impl FnOnce(E, &Envelope<'_>) -> T,
) -> Result<T, Problem> {
    let opened = Envelope::decode_named(record.bytes, E::NAME);
    // By reference: to copy it would cost as much as decoding a small payload.
    let envelope = match &opened {
        Ok(envelope) => envelope,
        Err(error) => return Err(Problem::Undecodable(Undecodable::Envelope(*error))),
    };
    if envelope.name != E::NAME {
        return Err(Problem::Unknown { name: envelope.name.to_owned() });
    }
    if envelope.version > E::VERSION {
        return Err(Problem::Newer { name: envelope.name.to_owned(), version: envelope.version });
    }
    let event = E::decode(envelope.version, envelope.codec, envelope.payload)
        .map_err(|error| Problem::Undecodable(Undecodable::Payload(error)))?;
    Ok(make(event, envelope))
}

impl Problem {
    /// A panic of a decoder is about its record, and must not end the family's tail.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::Undecodable(Undecodable::panicked(panic))
    }
}

impl Undecodable {
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::Panicked(supervisor::message(panic))
    }
}

impl<E> Decoded<E> {
    pub(crate) fn id(&self) -> RecordId {
        self.at.id().into()
    }
}

/// The identity of a record, decodable or not.
pub(crate) fn identity(record: &Stored<'_>) -> RecordId {
    envelope::record_id(record.bytes)
}
