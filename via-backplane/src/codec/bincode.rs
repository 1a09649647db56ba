//! bincode 2, the compact positional codec.

use serde::{Serialize, de::DeserializeOwned};

use super::{Codec, CodecId, DecodeError, EncodeError, bounded, encode_with};

/// bincode 2 in its standard configuration: little endian, variable-length integers. It needs the feature `bincode`.
///
/// It is half the bytes and half the time of [`MessagePack`](super::MessagePack) and describes nothing: *every* change
/// of a type's shape needs a new version, and `#[serde(tag)]`, `flatten`, `other` and `skip_serializing_if` do not work.
///
/// A value of a recursive type that nests deeper than [`MAX_DEPTH`](super::MAX_DEPTH) can be encoded and cannot be
/// decoded.
#[derive(Debug, Clone, Copy)]
pub struct Bincode;

impl<T: Serialize + DeserializeOwned> Codec<T> for Bincode {
    const ID: CodecId = CodecId::BINCODE;

    fn encode(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode_with(CodecId::BINCODE, out, |out| {
            bincode::serde::encode_into_std_write(value, out, bincode::config::standard()).map(drop)
        })
    }

    fn decode(bytes: &[u8]) -> Result<T, DecodeError> {
        let (value, read) = bincode::serde::seed_decode_from_slice(
            bounded::Seed::for_payload(bytes),
            bytes,
            bincode::config::standard(),
        )
        .map_err(|error| DecodeError::payload(CodecId::BINCODE, error))?;
        if read < bytes.len() {
            return Err(DecodeError::payload(CodecId::BINCODE, "there are bytes after the value"));
        }
        Ok(value)
    }
}
