//! The hand-written envelope codec against prost's, which is the referee.

use proptest::prelude::*;
use prost::Message;
use via_backplane::{
    CodecId, Envelope, EnvelopeError, EventId, Offset, RecordId, TraceContext,
    envelope::{Unknown, micros, record_id, system_time},
};

/// `proto/envelope.proto`, as prost reads it.
#[derive(Clone, PartialEq, Message)]
struct Referee {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(fixed64, tag = "2")]
    time: u64,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(uint32, tag = "4")]
    version: u32,
    #[prost(uint32, tag = "5")]
    codec: u32,
    #[prost(bytes = "vec", tag = "6")]
    payload: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "7")]
    trace: Option<Vec<u8>>,
    #[prost(string, optional, tag = "8")]
    trace_state: Option<String>,
    #[prost(string, optional, tag = "9")]
    subject: Option<String>,
}

impl Referee {
    fn example() -> Self {
        Self {
            id: vec![7; 16],
            time: 1,
            name: "counter.added".into(),
            version: 1,
            codec: 1,
            payload: b"\x81\xa2by\x01".into(),
            ..Self::default()
        }
    }

    /// The envelope this is, if it is one.
    fn envelope(&self) -> Option<Envelope<'_>> {
        let trace = match self.trace.as_deref() {
            None => None,
            Some(bytes) => {
                let (trace_id, rest) = bytes.split_first_chunk()?;
                let (span_id, [flags]) = rest.split_first_chunk()? else { return None };
                Some(TraceContext { trace_id: *trace_id, span_id: *span_id, flags: *flags })
            }
        };
        let envelope = Envelope {
            id: EventId(self.id.as_slice().try_into().ok()?),
            time: self.time,
            name: &self.name,
            version: self.version,
            codec: CodecId(self.codec),
            payload: &self.payload,
            trace,
            trace_state: self.trace_state.as_deref(),
            subject: self.subject.as_deref(),
            unknown: Unknown::default(),
        };
        (!envelope.name.is_empty()).then_some(envelope)
    }
}

fn any_referee() -> impl Strategy<Value = Referee> {
    (
        any::<[u8; 16]>(),
        any::<u64>(),
        ".{1,20}",
        any::<(u32, u32)>(),
        prop::collection::vec(any::<u8>(), 0..300),
        any::<Option<[u8; 25]>>(),
        any::<Option<String>>(),
        any::<Option<String>>(),
    )
        .prop_map(|(id, time, name, (version, codec), payload, trace, trace_state, subject)| Referee {
            id: id.to_vec(),
            time,
            name,
            version,
            codec,
            payload,
            trace: trace.map(|trace| trace.to_vec()),
            trace_state,
            subject,
        })
}

/// One encoded field, mostly of a number and a type that an envelope has.
fn any_field() -> impl Strategy<Value = Vec<u8>> {
    let varint = any::<u64>().prop_map(|value| {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(value, &mut bytes);
        (0, bytes)
    });
    let delimited = |bytes: Vec<u8>| {
        let mut field = Vec::new();
        prost::encoding::encode_varint(bytes.len() as u64, &mut field);
        field.extend(bytes);
        (2, field)
    };
    let value = prop_oneof![
        varint,
        any::<[u8; 8]>().prop_map(|bytes| (1, bytes.to_vec())),
        any::<[u8; 16]>().prop_map(move |bytes| delimited(bytes.to_vec())),
        any::<[u8; 25]>().prop_map(move |bytes| delimited(bytes.to_vec())),
        any::<String>().prop_map(move |text| delimited(text.into_bytes())),
        any::<Vec<u8>>().prop_map(delimited),
        any::<[u8; 4]>().prop_map(|bytes| (5, bytes.to_vec())),
    ];
    let by_type = |number: u64, (wire_type, value): (u64, Vec<u8>)| {
        // Half the numbers are moved to one that fits the type, so that most messages get far.
        let number = match (number, wire_type) {
            (0..=20, 0) => 4 + number % 2,
            (0..=20, 1) => 2,
            (0..=20, 2) => [1, 3, 6, 7, 8, 9][number as usize % 6],
            (0..=20, _) => 10 + number,
            (other, _) => other,
        };
        let mut field = Vec::new();
        prost::encoding::encode_varint(number << 3 | wire_type, &mut field);
        field.extend(value);
        field
    };
    (prop_oneof![9 => 0..=20_u64, 1 => 1..=10_u64, 3 => 21..1_u64 << 29], value)
        .prop_map(move |(number, value)| by_type(number, value))
}

fn number_of(mut field: &[u8]) -> u64 {
    prost::encoding::decode_varint(&mut field).expect("a field has a key") >> 3
}

fn encoded(envelope: &Envelope<'_>) -> Vec<u8> {
    let mut record = Vec::new();
    envelope.encode(&mut record);
    assert_eq!(record.len(), envelope.encoded_len());
    assert_eq!(record.len(), record.capacity(), "the buffer is sized exactly");
    record
}

proptest! {
    #[test]
    fn it_writes_what_prost_writes(referee in any_referee()) {
        let envelope = referee.envelope().expect("a valid envelope");
        let record = encoded(&envelope);
        prop_assert_eq!(&record, &referee.encode_to_vec());
        prop_assert_eq!(Envelope::decode(&record), Ok(envelope));
        prop_assert_eq!(record_id(&record), RecordId::from(envelope.id));
    }

    #[test]
    fn it_reads_what_prost_reads(
        start in any_referee(),
        fields in prop::collection::vec(any_field(), 0..8),
    ) {
        let mut record = start.encode_to_vec();
        record.extend(fields.concat());
        let referee = Referee::decode(&record[..]);
        match Envelope::decode(&record) {
            Ok(envelope) => {
                let referee = referee.expect("prost reads what we read");
                let known = Envelope { unknown: Unknown::default(), ..envelope };
                prop_assert_eq!(Some(known), referee.envelope());
                let unknown: Vec<&[u8]> =
                    fields.iter().map(|field| &field[..]).filter(|field| number_of(field) > 9).collect();
                prop_assert_eq!(envelope.unknown.fields().collect::<Vec<_>>(), unknown.clone());
                prop_assert_eq!(encoded(&envelope), [referee.encode_to_vec(), unknown.concat()].concat());
            }
            Err(_) => prop_assert!(!referee.is_ok_and(|it| it.envelope().is_some())),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>(), cut in any::<prop::sample::Index>()) {
        // A record that was cut off or has a byte changed gets further than random bytes.
        let record = Referee { subject: Some("ada".into()), ..Referee::example() }.encode_to_vec();
        let at = cut.index(record.len());
        let mut changed = record.clone();
        changed[at] = bytes.first().copied().unwrap_or(0xff);
        for bytes in [&bytes, &record[..at], &changed] {
            let id = record_id(bytes);
            if let Ok(envelope) = Envelope::decode(bytes) {
                prop_assert!(Referee::decode(bytes).is_ok(), "{envelope:?}");
                prop_assert_eq!(id, RecordId::from(envelope.id));
            }
        }
    }
}

#[test]
fn the_proto_file_is_what_the_referee_reads() {
    let proto = include_str!("../../../proto/envelope.proto");
    let fields: Vec<&str> =
        proto.lines().map(str::trim).filter(|line| !line.starts_with("//") && line.contains(" = ")).collect();
    assert_eq!(
        fields,
        [
            "syntax = \"proto3\";",
            "bytes id = 1;",
            "fixed64 time = 2;",
            "string name = 3;",
            "uint32 version = 4;",
            "uint32 codec = 5;",
            "bytes payload = 6;",
            "optional bytes trace = 7;",
            "optional string trace_state = 8;",
            "optional string subject = 9;",
        ]
    );
}

#[test]
fn fields_of_a_later_version_survive_to_the_byte() {
    let mut record = Referee::example().encode_to_vec();
    // Field 15, a string; field 100, a varint in more bytes than it needs; field 15 once more.
    record.extend(b"\x7a\x05later\xa0\x06\x81\x80\x00\x7a\x00");
    let envelope = Envelope::decode(&record).expect("a valid record");
    assert_eq!(envelope.unknown.fields().count(), 3);
    assert_eq!(encoded(&envelope), record);
}

#[test]
fn the_last_of_a_repeated_field_counts() {
    let mut record = Referee { id: b"short".into(), ..Referee::example() }.encode_to_vec();
    record.extend(Referee { id: vec![9; 16], name: "last".into(), ..Referee::default() }.encode_to_vec());
    let envelope = Envelope::decode(&record).expect("a valid record");
    assert_eq!((envelope.id, envelope.name), (EventId([9; 16]), "last"));
    assert_eq!(record_id(&record), RecordId([9; 16]));
}

#[test]
fn an_error_says_what_is_wrong() {
    let decode = |referee: Referee| {
        Envelope::decode(&referee.encode_to_vec()).map(drop).expect_err("an invalid envelope")
    };
    let example = Referee::example;
    assert_eq!(decode(Referee { id: vec![], ..example() }), EnvelopeError::Missing { field: "id" });
    assert_eq!(
        decode(Referee { name: String::new(), ..example() }),
        EnvelopeError::Missing { field: "name" }
    );
    assert_eq!(
        decode(Referee { id: vec![1; 15], ..example() }),
        EnvelopeError::Length { field: "id", len: 15, expected: 16 }
    );
    assert_eq!(
        decode(Referee { trace: Some(vec![]), ..example() }),
        EnvelopeError::Length { field: "trace", len: 0, expected: 25 }
    );

    let with = |field: &[u8]| {
        let record = [&example().encode_to_vec(), field].concat();
        Envelope::decode(&record).map(drop).expect_err("an invalid envelope")
    };
    assert!(matches!(with(b"\x1a\x01\xff"), EnvelopeError::Utf8 { field: "name", .. }));
    assert_eq!(with(b"\x08\x01"), EnvelopeError::WireType { field: 1 });
    assert_eq!(with(b"\x0a\x10cut off"), EnvelopeError::Malformed);
    assert_eq!(with(b"\x00\x00"), EnvelopeError::Malformed, "there is no field 0");
    assert_eq!(with(b"\x53\x54"), EnvelopeError::Malformed, "an empty group, field 10");
}

#[test]
fn a_record_without_an_id_is_known_by_its_digest() {
    // The first 16 bytes of BLAKE3 of nothing, from its specification's test vectors.
    let digest = 0xaf13_49b9_f5f9_a1a6_a040_4dea_36dc_c949_u128;
    assert_eq!(record_id(b""), RecordId(digest.to_be_bytes()));
    assert_ne!(record_id(b"not a record"), record_id(b"nor is this"));
    // Whatever else is wrong, the id is enough: every binary has to give a record the same identity.
    let nameless = Referee { name: String::new(), ..Referee::example() }.encode_to_vec();
    assert_eq!(record_id(&nameless), RecordId([7; 16]));
}

#[test]
fn time_is_whole_microseconds_since_1970() {
    let time = system_time(1_764_000_000_123_456);
    assert_eq!(micros(time), 1_764_000_000_123_456);
    assert_eq!(micros(system_time(0) - std::time::Duration::from_secs(1)), 0);
    let record = Referee { time: 5, ..Referee::example() }.encode_to_vec();
    let recorded = Envelope::decode(&record).expect("a valid record").recorded(Offset(3));
    assert_eq!((recorded.offset(), recorded.id()), (Offset(3), EventId([7; 16])));
    assert_eq!(recorded.time(), system_time(5));
}
