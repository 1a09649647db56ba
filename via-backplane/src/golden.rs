//! Golden files for your own tests: "what is stored still decodes to this".
//!
//! A log and its snapshots outlive every version of the program, and nothing but a test with old bytes shows whether
//! today's types still read them. These helpers keep such bytes beside your tests, with what they decode to as text:
//!
//! ```no_run
//! # use serde::{Deserialize, Serialize};
//! # use via_backplane::{Event, golden};
//! #[derive(Debug, Serialize, Deserialize, Event)]
//! #[event(name = "chat.posted")]
//! struct Posted { from: String, body: String }
//!
//! // In a test:
//! golden::events::<Posted>("tests/golden/chat.posted")
//!     .example("plain", &Posted { from: "ada".into(), body: "hello".into() })
//!     .check();
//! ```
//!
//! `VIA_GOLDEN=new cargo test` writes what is missing: the record of an example, and the text of a record. Commit both.
//! From then on, *every* record in the directory has to decode, and to what the text beside it says. When the type
//! changes, its old records stay and are what the new type is tested with; a new version asks for a record of its own.
//! `VIA_GOLDEN=accept` rewrites texts that are no longer right, for you to read in the difference before you commit it.
//! Records are never rewritten, just as a log is not.
//!
//! This module is part of every build and costs nothing where it is not called, so that a test finds it without a
//! feature.

mod difference;
mod dir;

use std::{any::type_name, fmt::Debug, marker::PhantomData, path::Path};

use serde::{Serialize, de::DeserializeOwned};

use self::dir::{Dir, Mode};
use crate::{Codec, CodecId, Event, EventId, Fold, codec::MessagePack, envelope::Envelope, fold};

/// The bytes of a stored event: a whole record, as a log holds it.
const RECORD: &str = "record";
/// The bytes of a stored state.
const SNAPSHOT: &str = "snapshot";

/// Checks that stored events still decode; `dir` is theirs alone, and relative to the package's directory.
///
/// Records of a real log may be put there too, under any name that ends in `.record`.
#[must_use = "nothing is checked before `check`"]
pub fn events<E: Event + Debug>(dir: impl AsRef<Path>) -> Events<E> {
    Events { dir: Dir::new(dir.as_ref()), event: PhantomData }
}

/// Checks that snapshots of a state still are, or migrate to, what they should; `dir` as for [`events`].
///
/// `E` is the event whose fold makes the state: the version is the fold's. A snapshot's file is called
/// `v<version>-<label>.snapshot`.
#[must_use = "nothing is checked before `check`"]
pub fn states<E, S>(dir: impl AsRef<Path>) -> States<E, S>
where
    E: Fold<S>,
    S: Serialize + DeserializeOwned + Debug,
{
    States { dir: Dir::new(dir.as_ref()), fold: PhantomData }
}

/// The golden records of an event, from [`events`].
#[derive(Debug)]
#[must_use = "nothing is checked before `check`"]
pub struct Events<E> {
    dir: Dir,
    event: PhantomData<fn() -> E>,
}

impl<E: Event + Debug> Events<E> {
    /// A record there has to be: of `E`, or of an older version of it, in that version's type.
    ///
    /// The label tells examples of a version apart, and is part of a file's name. A file that is there stays as it is,
    /// whatever the example is by now: another example needs another label.
    ///
    /// # Panics
    /// If the example is another event's or a newer version's, cannot be encoded, or the label is no file name.
    pub fn example<V: Event>(mut self, label: &str, example: &V) -> Self {
        assert!(
            V::NAME == E::NAME && V::VERSION <= E::VERSION,
            "`{}` version {} is no version of `{}` up to {}",
            V::NAME,
            V::VERSION,
            E::NAME,
            E::VERSION
        );
        let mut payload = Vec::new();
        if let Err(error) = example.encode(&mut payload) {
            panic!("the example `{label}` cannot be encoded: {error:?}");
        }
        let envelope = Envelope {
            // The same in every run, and plainly nobody's.
            id: EventId([0xee; 16]),
            time: 0,
            name: V::NAME,
            version: V::VERSION,
            codec: V::CODEC,
            payload: &payload,
            trace: None,
            trace_state: None,
            subject: None,
            unknown: Default::default(),
        };
        let mut record = Vec::new();
        envelope.encode(&mut record);
        self.dir.expect(V::VERSION, label, RECORD, record);
        self
    }

    /// Decodes every record in the directory, and compares.
    ///
    /// # Panics
    /// If a record does not decode, decodes to something else than the text beside it says, or is missing. The message
    /// says what to do in each case.
    pub fn check(self) {
        self.dir.check(Mode::of_environment(), RECORD, Self::read);
    }

    fn read(_name: &str, record: &[u8]) -> dir::Reading {
        let mut reading = dir::Reading::of(record);
        let envelope = match Envelope::decode(record) {
            Ok(envelope) => envelope,
            Err(error) => return reading.fails(&error, "it is not a record of a log: was the file changed?"),
        };
        reading.what = format!("`{}` version {}, {}", envelope.name, envelope.version, envelope.codec);
        reading.reader = format!("`{}` version {} ({})", E::NAME, E::VERSION, type_name::<E>());
        reading.stored = envelope.payload.to_vec();
        if envelope.name != E::NAME {
            return reading
                .fails_plainly("it is another event's record", "give each event a directory of its own");
        }
        match E::decode(envelope.version, envelope.codec, envelope.payload) {
            Ok(event) => reading.reads(&event),
            Err(error) => reading.fails(
                &error,
                "every pod would skip such records, or halt at them. Keep the old type as it was, give the new shape a \
                 version of its own (`#[event(version = …, upcast = …)]`), and say by `From` what the old one means today; \
                 a field that was only added may have `#[serde(default)]` instead",
            ),
        }
    }
}

/// The golden snapshots of a state, from [`states`].
#[derive(Debug)]
#[must_use = "nothing is checked before `check`"]
pub struct States<E, S> {
    dir: Dir,
    fold: PhantomData<fn() -> (E, S)>,
}

impl<E, S> States<E, S>
where
    E: Fold<S>,
    S: Serialize + DeserializeOwned + Debug,
{
    /// A snapshot of the present version there has to be.
    ///
    /// # Panics
    /// If the example cannot be encoded, or the label is no file name.
    pub fn example(self, label: &str, example: &S) -> Self {
        self.older(E::STATE_VERSION, label, example)
    }

    /// A snapshot of an older version there has to be, in that version's type.
    ///
    /// # Panics
    /// As [`example`](Self::example), and if the version is newer than the present one.
    pub fn older<V: Serialize + DeserializeOwned>(mut self, version: u32, label: &str, example: &V) -> Self {
        assert!(
            (1..=E::STATE_VERSION).contains(&version),
            "version {version} of a state that is at version {}",
            E::STATE_VERSION
        );
        let mut snapshot = Vec::new();
        if let Err(error) = MessagePack::encode(example, &mut snapshot) {
            panic!("the example `{label}` cannot be encoded: {error:?}");
        }
        self.dir.expect(version, label, SNAPSHOT, snapshot);
        self
    }

    /// Restores every snapshot in the directory, and compares.
    ///
    /// # Panics
    /// As [`Events::check`].
    pub fn check(self) {
        self.dir.check(Mode::of_environment(), SNAPSHOT, Self::read);
    }

    fn read(name: &str, snapshot: &[u8]) -> dir::Reading {
        let mut reading = dir::Reading::of(snapshot);
        reading.reader = format!("version {} ({})", E::STATE_VERSION, type_name::<S>());
        let Some(version) = dir::version(name) else {
            return reading
                .fails_plainly("its name does not say its version", "call it `v<version>-<label>.snapshot`");
        };
        reading.what = format!("a state of version {version}");
        match fold::restore::<E, S>(version, CodecId::MESSAGE_PACK, snapshot) {
            Ok(state) => reading.reads(&state),
            Err(error) => reading.fails(
                &error,
                "a compacted key with such a snapshot would halt. Keep the old type as it was, raise the version, and list \
                 the old one: `#[state(version = …, migrate(1 = …))]`",
            ),
        }
    }
}

#[cfg(test)]
mod tests;
