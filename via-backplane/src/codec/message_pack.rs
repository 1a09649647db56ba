//! MessagePack with named fields, the default codec.

use rmp_serde::{Deserializer, Serializer, decode::Error};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Codec, CodecId, DecodeError, EncodeError, MAX_DEPTH, encode_with};

/// MessagePack, structs as maps from field name to value.
///
/// Fields may be reordered, and added where they have a default, without a new version.
#[derive(Debug, Clone, Copy)]
pub struct MessagePack;

impl<T: Serialize + DeserializeOwned> Codec<T> for MessagePack {
    const ID: CodecId = CodecId::MESSAGE_PACK;

    fn encode(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        encode_with(CodecId::MESSAGE_PACK, out, |out| {
            value.serialize(&mut Serializer::new(out).with_struct_map())
        })?;
        if too_deep(&out[start..]) {
            out.truncate(start);
            return Err(EncodeError::TooDeep);
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<T, DecodeError> {
        decode(bytes)
    }
}

/// As [`Codec::decode`], for types that are only ever read.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if too_deep(bytes) {
        return Err(DecodeError::TooDeep);
    }
    let mut deserializer = Deserializer::from_read_ref(bytes);
    let value = T::deserialize(&mut deserializer)
        .map_err(|error| DecodeError::payload(CodecId::MESSAGE_PACK, error))?;
    // The deserializer does not say where it stands, but only at the end can it not read a marker. A `bool` is
    // one marker: whatever follows, this neither allocates nor recurses.
    match bool::deserialize(&mut deserializer) {
        Err(Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err(DecodeError::payload(CodecId::MESSAGE_PACK, "there are bytes after the value")),
    }
}

/// Whether a value nests deeper than [`MAX_DEPTH`]. Truncated bytes are left to the decoder to refuse.
///
/// rmp-serde counts the depth of lists and maps, but not that of an enum variant's content, so a recursive enum would
/// overflow the stack.
fn too_deep(bytes: &[u8]) -> bool {
    // Each level takes at least its marker, so small payloads, the usual ones, need no walk.
    bytes.len() > MAX_DEPTH && depth_exceeded(bytes)
}

fn depth_exceeded(mut rest: &[u8]) -> bool {
    // How many values each open list or map still lacks. The outermost entry stands for the payload itself.
    let mut missing = [0_u64; MAX_DEPTH + 1];
    missing[0] = 1;
    let mut depth = 0;
    loop {
        while missing[depth] == 0 {
            if depth == 0 {
                return false;
            }
            depth -= 1;
        }
        missing[depth] -= 1;
        let Some((token, after)) = Token::read(rest) else { return false };
        rest = after;
        if let Token::Open { values } = token {
            if depth == MAX_DEPTH {
                return true;
            }
            depth += 1;
            missing[depth] = values;
        }
    }
}

/// The beginning of a value: all of a scalar, or the head of a list or map.
enum Token {
    Scalar,
    Open { values: u64 },
}

impl Token {
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&marker, rest) = bytes.split_first()?;
        match marker {
            0x80..=0x8f => Some((Self::Open { values: 2 * u64::from(marker & 0x0f) }, rest)),
            0x90..=0x9f => Some((Self::Open { values: u64::from(marker & 0x0f) }, rest)),
            0xdc => length::<2>(rest).map(|(values, rest)| (Self::Open { values }, rest)),
            0xdd => length::<4>(rest).map(|(values, rest)| (Self::Open { values }, rest)),
            0xde => length::<2>(rest).map(|(pairs, rest)| (Self::Open { values: 2 * pairs }, rest)),
            0xdf => length::<4>(rest).map(|(pairs, rest)| (Self::Open { values: 2 * pairs }, rest)),
            _ => skip_scalar(marker, rest).map(|rest| (Self::Scalar, rest)),
        }
    }
}

fn skip_scalar(marker: u8, rest: &[u8]) -> Option<&[u8]> {
    let (len, rest) = match marker {
        0xa0..=0xbf => (u64::from(marker & 0x1f), rest),
        0xc4 | 0xd9 => length::<1>(rest)?,
        0xc5 | 0xda => length::<2>(rest)?,
        0xc6 | 0xdb => length::<4>(rest)?,
        // Extensions have a byte for their type.
        0xc7 => length::<1>(rest).map(|(len, rest)| (len + 1, rest))?,
        0xc8 => length::<2>(rest).map(|(len, rest)| (len + 1, rest))?,
        0xc9 => length::<4>(rest).map(|(len, rest)| (len + 1, rest))?,
        0xd4..=0xd8 => (1 + (1 << (marker - 0xd4)), rest),
        0xcc | 0xd0 => (1, rest),
        0xcd | 0xd1 => (2, rest),
        0xca | 0xce | 0xd2 => (4, rest),
        0xcb | 0xcf | 0xd3 => (8, rest),
        _ => (0, rest),
    };
    rest.get(usize::try_from(len).ok()?..)
}

fn length<const N: usize>(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (digits, rest) = bytes.split_first_chunk::<N>()?;
    Some((digits.iter().fold(0, |len, &digit| len << 8 | u64::from(digit)), rest))
}
