//! The protobuf wire format, as much of it as an envelope needs.

use prost::encoding::{WireType, decode_varint, encode_varint, encoded_len_varint};

/// The varint before a field: its number and wire type.
pub(super) const fn key(number: u32, wire_type: WireType) -> u64 {
    (number << 3 | wire_type as u32) as u64
}

/// The number of the field that `key` begins.
pub(super) const fn number(key: u64) -> u32 {
    (key >> 3) as u32
}

/// Field numbers have 29 bits, and there is no field 0.
const KEYS: std::ops::RangeInclusive<u64> = 1 << 3..=u32::MAX as u64;

/// Reads a message from its front. Every `None` means that the bytes are no message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What has not been read.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The key of the next field.
    #[inline]
    pub(super) fn key(&mut self) -> Option<u64> {
        self.varint().filter(|key| KEYS.contains(key))
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Option<u64> {
        match self.rest {
            // Nearly every varint in a record is one byte.
            [byte @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Some(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    #[cold]
    fn long_varint(&mut self) -> Option<u64> {
        decode_varint(&mut self.rest).ok()
    }

    #[inline]
    pub(super) fn fixed64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }

    /// Reads over the value of a field. Groups are refused: they were never part of proto3, and nest.
    pub(super) fn skip(&mut self, key: u64) -> Option<()> {
        match WireType::try_from(key & 0b111).ok()? {
            WireType::Varint => self.varint().map(drop),
            WireType::SixtyFourBit => self.fixed64().map(drop),
            WireType::LengthDelimited => self.bytes().map(drop),
            WireType::ThirtyTwoBit => {
                self.rest = self.rest.get(4..)?;
                Some(())
            }
            WireType::StartGroup | WireType::EndGroup => None,
        }
    }
}

/// The key of every field we write is one byte: their numbers are below 16.
const KEY_LEN: usize = 1;

pub(super) const FIXED64_LEN: usize = KEY_LEN + 8;

pub(super) fn bytes_len(len: usize) -> usize {
    KEY_LEN + encoded_len_varint(len as u64) + len
}

pub(super) fn varint_len(value: u32) -> usize {
    KEY_LEN + encoded_len_varint(u64::from(value))
}

#[inline]
fn put_key(key: u64, out: &mut Vec<u8>) {
    out.push(u8::try_from(key).expect("the keys we write are one byte"));
}

#[inline]
pub(super) fn put_bytes(key: u64, bytes: &[u8], out: &mut Vec<u8>) {
    put_key(key, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[inline]
pub(super) fn put_varint(key: u64, value: u32, out: &mut Vec<u8>) {
    put_key(key, out);
    encode_varint(u64::from(value), out);
}

#[inline]
pub(super) fn put_fixed64(key: u64, value: u64, out: &mut Vec<u8>) {
    put_key(key, out);
    out.extend_from_slice(&value.to_le_bytes());
}
