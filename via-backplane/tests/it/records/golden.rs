//! The bytes in `tests/golden` are what logs hold: an encoding that changes makes them unreadable.
//!
//! `VIA_WRITE_GOLDEN=1 cargo test -p via-backplane --all-features golden` writes missing ones, and overwrites those that
//! are there. Only do the latter before a first release.

use std::fmt::Debug;

use via_backplane::{
    Codec, CodecId, Envelope, EventId, TraceContext,
    codec::{Json, MessagePack},
    envelope::Unknown,
};

use super::order::Order;
use crate::golden_file::{check, hex_dump};

fn minimal() -> Envelope<'static> {
    Envelope {
        id: EventId(0x0193_6b2f_8a40_7000_8000_0000_0000_0001_u128.to_be_bytes()),
        time: 1_764_000_000_123_456,
        name: "counter.added",
        version: 1,
        codec: CodecId::MESSAGE_PACK,
        payload: b"\x81\xa2by\x01",
        trace: None,
        trace_state: None,
        subject: None,
        unknown: Unknown::default(),
    }
}

fn full() -> Envelope<'static> {
    Envelope {
        version: 300,
        trace: TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        trace_state: Some("vendor=value"),
        subject: Some("user/42"),
        ..minimal()
    }
}

#[test]
fn golden_envelopes() {
    for (name, envelope) in [("envelope-minimal", minimal()), ("envelope-full", full())] {
        let mut record = Vec::new();
        envelope.encode(&mut record);
        check(name, &record, &envelope);
    }
}

#[test]
fn golden_envelope_of_a_later_version() {
    let mut record = Vec::new();
    full().encode(&mut record);
    record.extend(b"\x7a\x05later\xa0\x06\x01");
    let envelope = Envelope::decode(&record).expect("a valid record");
    let mut again = Vec::new();
    envelope.encode(&mut again);
    check("envelope-later-version", &again, &envelope);
}

#[test]
fn the_wire_format_page_shows_the_golden_envelope() {
    let page = include_str!("../../../../docs/wire-format.md");
    let (_, example) = page.split_once("```text\n").expect("the page has an example");
    let (example, _) = example.split_once("```").expect("the example ends");
    let mut bytes = Vec::new();
    for line in example.lines() {
        let hex = line.split("   ").next().unwrap_or_default();
        bytes.extend(hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("two digits")));
    }
    let mut record = Vec::new();
    minimal().encode(&mut record);
    assert_eq!(hex_dump(&bytes), hex_dump(&record));
}

fn check_codec<C, T>(name: &str, value: &T)
where
    C: Codec<T>,
    T: Debug + PartialEq,
{
    let mut payload = Vec::new();
    C::encode(value, &mut payload).expect("the example can be encoded");
    check(name, &payload, value);
    assert_eq!(&C::decode(&payload).expect("the golden bytes are readable"), value);
}

#[test]
fn golden_messagepack() {
    check_codec::<MessagePack, _>("payload-messagepack", &Order::example());
}

#[test]
fn golden_json() {
    check_codec::<Json, _>("payload-json", &Order::example());
}

#[cfg(feature = "bincode")]
#[test]
fn golden_bincode() {
    check_codec::<via_backplane::codec::Bincode, _>("payload-bincode", &Order::example());
}

#[cfg(feature = "prost")]
#[test]
fn golden_protobuf() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Posted {
        #[prost(string, tag = "1")]
        from: String,
        #[prost(sint64, optional, tag = "2")]
        balance: Option<i64>,
        #[prost(uint32, repeated, tag = "3")]
        rooms: Vec<u32>,
    }
    let posted = Posted { from: "ada".into(), balance: Some(-2), rooms: vec![1, 300] };
    check_codec::<via_backplane::codec::Protobuf, _>("payload-protobuf", &posted);
}
