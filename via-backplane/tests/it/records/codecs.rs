//! What every payload codec promises about bytes from outside.

use std::{collections::BTreeMap, fmt::Debug};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
#[cfg(feature = "bincode")]
use via_backplane::codec::Bincode;
use via_backplane::{
    Codec, DecodeError, EncodeError,
    codec::{Json, MAX_DEPTH, MessagePack},
};

use super::order::{Order, any_order};

/// A type that contains itself, where rmp-serde and bincode do not count levels.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Nest {
    Leaf,
    In(Box<Nest>),
}

impl Nest {
    fn of(levels: usize) -> Self {
        (0..levels).fold(Self::Leaf, |inner, _| Self::In(Box::new(inner)))
    }
}

fn encoded<C: Codec<T>, T>(value: &T) -> Vec<u8> {
    let mut payload = Vec::new();
    C::encode(value, &mut payload).expect("the value can be encoded");
    payload
}

fn round_trips<C: Codec<T>, T: Debug + PartialEq>(value: &T) {
    assert_eq!(&C::decode(&encoded::<C, _>(value)).expect("readable"), value);
}

/// Decodes anything as an order and as a list; the outcome does not matter, coming back does.
fn survives<C: Codec<Order> + Codec<Vec<Nest>>>(bytes: &[u8], order: &[u8]) {
    drop(<C as Codec<Order>>::decode(bytes));
    drop(<C as Codec<Vec<Nest>>>::decode(bytes));
    // An order with some bytes replaced gets further than random bytes.
    let mut damaged = order.to_vec();
    let at = bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>() % damaged.len();
    let end = damaged.len().min(at + bytes.len());
    damaged[at..end].copy_from_slice(&bytes[..end - at]);
    drop(<C as Codec<Order>>::decode(&damaged));
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(order in any_order()) {
        round_trips::<MessagePack, _>(&order);
        round_trips::<Json, _>(&order);
        #[cfg(feature = "bincode")]
        round_trips::<Bincode, _>(&order);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in any::<Vec<u8>>(), order in any_order()) {
        survives::<MessagePack>(&bytes, &encoded::<MessagePack, _>(&order));
        survives::<Json>(&bytes, &encoded::<Json, _>(&order));
        #[cfg(feature = "bincode")]
        survives::<Bincode>(&bytes, &encoded::<Bincode, _>(&order));
    }
}

fn refuses_trailing_bytes<C: Codec<u8> + Codec<Order>>() {
    for extra in [&b"\x00"[..], b"\x01", b"\xc0", b"\xc1", b"\xff", b"1", b"}", b"\xdd\xff\xff\xff\xff"] {
        let number = [encoded::<C, _>(&1_u8), extra.to_vec()].concat();
        // In JSON, a digit after a number is part of the number.
        if !extra.iter().all(u8::is_ascii_digit) {
            let error = <C as Codec<u8>>::decode(&number).expect_err("there is something after the value");
            assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");
        }
        let order = [encoded::<C, _>(&Order::example()), extra.to_vec()].concat();
        let error = <C as Codec<Order>>::decode(&order).expect_err("there is something after the value");
        assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");
    }
}

#[test]
fn bytes_after_the_value_are_refused() {
    refuses_trailing_bytes::<MessagePack>();
    refuses_trailing_bytes::<Json>();
    #[cfg(feature = "bincode")]
    refuses_trailing_bytes::<Bincode>();
}

#[test]
fn a_payload_cannot_overflow_the_stack() {
    let levels = 100_000;
    let message_pack = [b"\x81\xa2In".repeat(levels), b"\xa4Leaf".to_vec()].concat();
    let error = <MessagePack as Codec<Nest>>::decode(&message_pack).expect_err("too deep");
    assert!(matches!(error, DecodeError::TooDeep), "{error:?}");

    let json = [b"{\"In\":".repeat(levels), b"\"Leaf\"".to_vec(), b"}".repeat(levels)].concat();
    let error = <Json as Codec<Nest>>::decode(&json).expect_err("too deep");
    assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");

    #[cfg(feature = "bincode")]
    {
        let error = <Bincode as Codec<Nest>>::decode(&vec![1; levels]).expect_err("too deep");
        assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");
    }
}

#[test]
fn levels_that_are_ignored_count_too() {
    #[derive(Debug, Deserialize, Serialize)]
    struct Empty {}
    // A field this type does not know, with lists in lists in it.
    let payload = [b"\x81\xa1x".to_vec(), b"\x91".repeat(100_000), b"\xc0".to_vec()].concat();
    let error = <MessagePack as Codec<Empty>>::decode(&payload).expect_err("too deep");
    assert!(matches!(error, DecodeError::TooDeep), "{error:?}");
}

#[test]
fn many_values_beside_each_other_are_not_deep() {
    let wide: BTreeMap<String, Vec<Option<Nest>>> =
        (0..500).map(|n| (n.to_string(), vec![None, Some(Nest::of(3)), Some(Nest::Leaf)])).collect();
    round_trips::<MessagePack, _>(&wide);
    round_trips::<Json, _>(&wide);
    #[cfg(feature = "bincode")]
    round_trips::<Bincode, _>(&wide);
}

#[test]
fn what_is_not_too_deep_to_write_is_not_too_deep_to_read() {
    round_trips::<MessagePack, _>(&Nest::of(MAX_DEPTH));
    round_trips::<Json, _>(&Nest::of(MAX_DEPTH));
    #[cfg(feature = "bincode")]
    round_trips::<Bincode, _>(&Nest::of(MAX_DEPTH - 1));
}

fn refuses_to_write<C: Codec<Nest>>() {
    let mut out = b"before".to_vec();
    let error = C::encode(&Nest::of(MAX_DEPTH + 1), &mut out).expect_err("nobody could decode it");
    assert!(matches!(error, EncodeError::TooDeep), "{error:?}");
    assert_eq!(out, b"before");
}

#[test]
fn what_nobody_could_read_is_not_written() {
    refuses_to_write::<MessagePack>();
    refuses_to_write::<Json>();
}

#[test]
fn a_claimed_length_reserves_no_memory() {
    let strings = b"\xdb\xff\xff\xff\xff";
    assert!(<MessagePack as Codec<String>>::decode(strings).is_err());
    let lists = b"\xdd\xff\xff\xff\xff";
    assert!(<MessagePack as Codec<Vec<u64>>>::decode(lists).is_err());
    assert!(<MessagePack as Codec<Vec<()>>>::decode(lists).is_err());
    #[cfg(feature = "bincode")]
    {
        let length = b"\xfd\xff\xff\xff\xff\xff\xff\xff\x0f";
        assert!(<Bincode as Codec<String>>::decode(length).is_err());
        assert!(<Bincode as Codec<Vec<u64>>>::decode(length).is_err());
        // A list of units takes no bytes per element, so its length alone could keep a pod busy for years.
        assert!(<Bincode as Codec<Vec<()>>>::decode(length).is_err());
        assert!(<Bincode as Codec<BTreeMap<(), ()>>>::decode(length).is_err());
        assert_eq!(<Bincode as Codec<Vec<()>>>::decode(&[200]).expect("a short list of units").len(), 200);
    }
}

#[test]
fn a_failed_encode_leaves_the_buffer_as_it_was() {
    let mut out = b"before".to_vec();
    // JSON has no keys but strings, which shows after the brace was written.
    let unspeakable = BTreeMap::from([(vec![1_u8], 1_u8)]);
    let error = <Json as Codec<_>>::encode(&unspeakable, &mut out).expect_err("not JSON");
    assert!(matches!(error, EncodeError::Payload { .. }), "{error:?}");
    assert_eq!(out, b"before");
}

#[test]
fn a_field_can_be_added_without_a_new_version() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        from: String,
        body: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        body: String,
        #[serde(default)]
        urgent: bool,
        reply_to: Option<u64>,
        from: String,
    }
    fn evolves<C: Codec<Old> + Codec<New>>() {
        let old = Old { from: "ada".into(), body: "hello".into() };
        let new = New { body: "hello".into(), urgent: false, reply_to: None, from: "ada".into() };
        assert_eq!(<C as Codec<New>>::decode(&encoded::<C, _>(&old)).expect("the old is readable"), new);
        assert_eq!(<C as Codec<Old>>::decode(&encoded::<C, _>(&new)).expect("the new is readable"), old);
    }
    evolves::<MessagePack>();
    evolves::<Json>();
}
