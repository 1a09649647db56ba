//! `#[derive(Event)]`, as users write it.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};
use via_backplane::{CodecId, DecodeError, Event, EventId, Fold, Offset, Recorded, envelope::system_time};

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(name = "counter.added")]
struct Added {
    by: i64,
}

impl Fold<i64> for Added {
    fn fold(self, count: &mut i64, _at: &Recorded) {
        *count += self.by;
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(name = "chat.changed", version = 3, codec = "json")]
enum Changed {
    Posted { body: String },
    Cleared,
}

fn survives<E: Event + Debug + PartialEq>(event: &E) {
    let mut payload = Vec::new();
    event.encode(&mut payload).expect("the event can be encoded");
    assert_eq!(&E::decode(E::VERSION, E::CODEC, &payload).expect("the event is readable"), event);
}

#[test]
fn what_is_not_said_has_a_default() {
    assert_eq!((Added::NAME, Added::VERSION, Added::CODEC), ("counter.added", 1, CodecId::MESSAGE_PACK));
    survives(&Added { by: -5 });
}

#[test]
fn what_is_said_holds() {
    assert_eq!((Changed::NAME, Changed::VERSION, Changed::CODEC), ("chat.changed", 3, CodecId::JSON));
    survives(&Changed::Posted { body: "hello".into() });
    survives(&Changed::Cleared);
}

#[test]
fn another_version_or_codec_is_an_error_that_says_so() {
    let decode = |version, codec| Changed::decode(version, codec, b"\"Cleared\"");
    assert!(matches!(decode(3, CodecId::JSON), Ok(Changed::Cleared)));
    let error = decode(4, CodecId::BINCODE).expect_err("a newer version");
    assert!(matches!(error, DecodeError::Newer { version: 4, known: 3 }), "{error:?}");
    let error = decode(2, CodecId::JSON).expect_err("an older version");
    assert!(matches!(error, DecodeError::NoUpcaster { version: 2, current: 3 }), "{error:?}");
    let error = decode(3, CodecId(9)).expect_err("another codec");
    assert!(matches!(error, DecodeError::ForeignCodec { codec: CodecId(9), .. }), "{error:?}");
    assert_eq!(error.to_string(), "the payload is codec 9, the event type reads json");
}

#[test]
fn an_event_folds_like_a_function_is_called() {
    let mut count = 40;
    Added { by: 2 }.fold(&mut count, &Recorded::new(Offset(1), EventId([0; 16]), system_time(0)));
    assert_eq!(count, 42);
}

#[cfg(feature = "bincode")]
#[test]
fn bincode_is_a_codec_like_the_others() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
    #[event(name = "sensor.read", codec = "bincode")]
    struct Read(u8, Option<i16>);
    assert_eq!(Read::CODEC, CodecId::BINCODE);
    survives(&Read(1, Some(-300)));
}

#[cfg(feature = "prost")]
#[test]
fn a_prost_message_is_an_event() {
    #[derive(Clone, PartialEq, prost::Message, Event)]
    #[event(name = "chat.joined", codec = "protobuf")]
    struct Joined {
        #[prost(string, tag = "1")]
        who: String,
    }
    assert_eq!(Joined::CODEC, CodecId::PROTOBUF);
    survives(&Joined { who: "ada".into() });
}

mod hygiene {
    //! The macros mean the standard library's names, whatever a user's module calls its own.
    #![expect(dead_code, reason = "only their names matter")]

    struct Vec;
    struct Result;
    struct Codec;
    struct String;
    struct From;
    struct Ok;
    mod core {}
    mod std {}

    #[derive(serde::Serialize, serde::Deserialize, via_backplane::Event)]
    #[event(name = "hygiene.checked", codec = "json")]
    struct CheckedV1 {
        codec: u8,
    }

    #[derive(serde::Serialize, serde::Deserialize, via_backplane::Event)]
    #[event(name = "hygiene.checked", version = 2, upcast = CheckedV1)]
    struct Checked {
        codec: u16,
    }

    impl ::core::convert::From<CheckedV1> for Checked {
        fn from(old: CheckedV1) -> Self {
            Self { codec: old.codec.into() }
        }
    }

    #[via_backplane::state(version = 2, migrate(1 = CheckedV1))]
    impl via_backplane::Fold<Checked> for CheckedV1 {
        fn fold(self, state: &mut Checked, _at: &via_backplane::Recorded) {
            state.codec = self.codec.into();
        }
    }
}
