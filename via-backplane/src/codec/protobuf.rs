//! Protobuf, for events that are prost messages.

use prost::Message;

use super::{Codec, CodecId, DecodeError, EncodeError, encode_with};

/// Protobuf, for types that are prost messages. It needs the feature `prost`.
///
/// Fields of the payload that this binary does not know are lost when the event is decoded, as in every prost
/// message; the record in the log keeps them. A message nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH) can be
/// encoded and cannot be decoded: prost checks only the latter.
#[derive(Debug, Clone, Copy)]
pub struct Protobuf;

impl<T: Message + Default> Codec<T> for Protobuf {
    const ID: CodecId = CodecId::PROTOBUF;

    fn encode(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode_with(CodecId::PROTOBUF, out, |out| value.encode(out))
    }

    fn decode(bytes: &[u8]) -> Result<T, DecodeError> {
        // A message ends where its bytes end, so there is nothing that could follow it.
        T::decode(bytes).map_err(|error| DecodeError::payload(CodecId::PROTOBUF, error))
    }
}
