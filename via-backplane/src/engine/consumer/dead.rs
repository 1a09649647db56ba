//! What a consumer has given up, for those who look after it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::{
    cell::full_name,
    letters::{Burial, FAMILY, Happened, Letter, Letters, MAX_LETTERS, Place, Raw, key_of},
    on_event::ConsumerError,
};
use crate::{
    BoxError, DecodeError, EventId, Family, Head, Key, RegisterError, Retry,
    engine::{Changes, Core, DecideError, Engine, Events},
    envelope::{self, Envelope, EnvelopeError},
    error::described,
};

/// How long telling somebody of an event that is given up may take, and writing it down.
pub(super) const GIVE_UP_WITHIN: Duration = Duration::from_secs(30);
/// The most letters that one event of the log names: a request for more is several.
const MAX_NAMED: usize = 1_000;

/// An event that a consumer has given up, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Whose event it is.
    pub key: Key,
    /// Where it stands, in which epoch: what names the letter.
    pub at: Head,
    /// Which event it is; `None` if its bytes are no envelope.
    pub id: Option<EventId>,
    /// The record, as the log held it.
    pub record: Bytes,
    /// How often it was attempted, before it was given up last.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub cause: String,
    /// When the first attempt failed that is known of, and the last: by the clock of the pods that gave it up.
    pub first_failed: SystemTime,
    /// See `first_failed`.
    pub last_failed: SystemTime,
    /// How often it was wanted again.
    pub redriven: u32,
    /// It is to be handled again, and was not yet.
    pub is_wanted: bool,
}

/// Why a letter cannot be read as an event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnreadableLetter {
    /// The bytes are no record.
    #[error("the bytes are no record")]
    Envelope(#[from] EnvelopeError),
    /// It is another event.
    #[error("it is the event `{name}`")]
    OtherEvent {
        /// Its name.
        name: String,
    },
    /// The payload is not the event.
    #[error("the payload does not decode")]
    Payload(#[from] DecodeError),
}

impl UnreadableLetter {
    /// Whether reading it again, in this binary, is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

impl DeadLetter {
    /// The event, if this binary can read it.
    ///
    /// # Errors
    /// [`UnreadableLetter`].
    pub fn event<E: crate::Event>(&self) -> Result<E, UnreadableLetter> {
        let envelope = Envelope::decode(&self.record)?;
        if envelope.name != E::NAME {
            return Err(UnreadableLetter::OtherEvent { name: envelope.name.to_owned() });
        }
        Ok(E::decode(envelope.version, envelope.codec, envelope.payload)?)
    }

    fn of(family: &Family, letter: &Letter) -> Option<Self> {
        let burial = &letter.burial;
        Some(Self {
            key: key_of(family, burial).ok()?,
            at: Head { epoch: burial.place.epoch(), offset: burial.place.offset },
            id: Envelope::decode(&burial.record.0).ok().map(|envelope| envelope.id),
            record: burial.record.0.clone(),
            attempts: burial.attempts,
            cause: burial.cause.clone(),
            first_failed: envelope::system_time(burial.first_failed),
            last_failed: envelope::system_time(burial.last_failed),
            redriven: letter.wanted,
            is_wanted: letter.is_wanted,
        })
    }
}

/// Which of a consumer's dead letters are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Which {
    /// This one, by [`DeadLetter::at`].
    One(Head),
    /// The oldest so many, by their offsets.
    First(usize),
    /// All there are.
    All,
    /// Those that failed last before this.
    FailedBefore(SystemTime),
}

/// The dead letters of one consumer.
///
/// ```
/// # use via_backplane::{Engine, Which};
/// # async fn doc(engine: Engine) -> Result<(), Box<dyn std::error::Error>> {
/// let letters = engine.dead_letters("orders", "ship")?;
/// for letter in letters.list().await {
///     println!("{} at {}: {}", letter.key, letter.at.offset, letter.cause);
/// }
/// letters.redrive(Which::First(10)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DeadLetters {
    of: Family,
    consumer: Arc<str>,
    state: Events<Happened, Letters>,
}

impl Engine {
    /// The events that a consumer has given up.
    ///
    /// # Errors
    /// [`ConsumerError::InvalidName`] if either is no name.
    pub fn dead_letters(&self, family: &str, consumer: &str) -> Result<DeadLetters, ConsumerError> {
        DeadLetters::new(&self.core, &Family::new(family)?, consumer)
    }
}

impl DeadLetters {
    pub(in crate::engine) fn new(core: &Core, of: &Family, consumer: &str) -> Result<Self, ConsumerError> {
        let engine = Engine { core: core.clone() };
        let all = engine.events::<Happened, Letters>(FAMILY).map_err(|error| match error {
            RegisterError::InvalidKey { source, .. } => ConsumerError::InvalidName(source),
            other => ConsumerError::Reserved(other),
        })?;
        let state = all.instance(full_name(of, consumer))?;
        Ok(Self { of: of.clone(), consumer: consumer.into(), state })
    }

    /// Every letter there is, by where its event stands; as far as this pod has folded.
    ///
    /// # Cancel safety
    /// Cancel-safe. While the backplane is away and nothing was loaded yet it waits, so put a timeout around it.
    pub async fn list(&self) -> Vec<DeadLetter> {
        let letters = self.state.loaded().await;
        letters.iter().filter_map(|letter| DeadLetter::of(&self.of, letter)).collect()
    }

    /// What [`list`](Self::list) answers, or `None` if the letters are not loaded yet (loading has begun). Never waits.
    #[must_use]
    pub fn read(&self) -> Option<Vec<DeadLetter>> {
        let letters = self.state.read()?;
        Some(letters.iter().filter_map(|letter| DeadLetter::of(&self.of, letter)).collect())
    }

    /// Tells when letters come, change or go, or are loaded, which this asks for.
    #[must_use]
    pub fn changes(&self) -> Changes {
        self.state.changes()
    }

    /// One letter, by where its event stands.
    ///
    /// # Cancel safety
    /// As [`list`](Self::list).
    pub async fn show(&self, at: Head) -> Option<DeadLetter> {
        let letters = self.state.loaded().await;
        DeadLetter::of(&self.of, letters.get(Place::new(at.epoch, at.offset))?)
    }

    /// Has letters handled again, by the consumer's own handler, under the same event id and counting attempts anew; answers how many.
    ///
    /// Whoever runs the consumer does it, one after the other and beside what it handles anyway. A letter is gone once it was handled;
    /// one that fails as often as the consumer's [`max_attempts`](super::OnEvent::max_attempts) is dead again. Letters that are wanted
    /// already are not wanted twice.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the request under way. Call it again.
    pub async fn redrive(&self, which: Which) -> Result<usize, DeadLetterError> {
        self.request(which, |letter| !letter.is_wanted, |places| Happened::Wanted { places }).await
    }

    /// Drops letters: nobody handles their events any more. Answers how many.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    ///
    /// # Cancel safety
    /// As [`redrive`](Self::redrive).
    pub async fn drop_letters(&self, which: Which) -> Result<usize, DeadLetterError> {
        self.request(which, |_| true, |places| Happened::Dropped { places }).await
    }

    /// Drops those that failed last before this, and that nobody wants handled again; answers how many.
    pub(super) async fn expire(&self, before: SystemTime) -> Result<usize, DeadLetterError> {
        let (which, is_left) = (Which::FailedBefore(before), |letter: &Letter| !letter.is_wanted);
        // This is asked every few seconds, and there is seldom one.
        if !self.state.read().is_some_and(|letters| which.of(&letters).any(is_left)) {
            return Ok(0);
        }
        self.request(which, is_left, |places| Happened::Dropped { places }).await
    }

    async fn request(
        &self,
        which: Which,
        wanted: impl Fn(&Letter) -> bool,
        ask: impl Fn(Vec<Place>) -> Happened,
    ) -> Result<usize, DeadLetterError> {
        let mut count = 0;
        let decided = self.state.decide(|letters| {
            let places: Vec<_> =
                which.of(letters).filter(|letter| wanted(letter)).map(|letter| letter.burial.place).collect();
            count = places.len();
            let most = letters_at_once(self.state.core.backplane.limits().max_batch);
            let requests = places.chunks(MAX_NAMED).take(most).map(|places| ask(places.to_vec()));
            Ok::<_, std::convert::Infallible>(requests.collect())
        });
        decided.await.map_err(DeadLetterError::of)?;
        Ok(count)
    }

    /// The state, for whoever follows it.
    pub(super) fn state(&self) -> &Events<Happened, Letters> {
        &self.state
    }

    /// Gives an event up, unless that was done before.
    pub(super) async fn bury(&self, burial: Burial) -> Result<(), DeadLetterError> {
        let decided = self.state.decide(|letters| {
            if letters.knows(&burial) {
                return Ok(Vec::new());
            }
            let is_new = letters.get(burial.place).is_none();
            if is_new && !letters.has_room(burial.record.0.len()) {
                return Err(Full);
            }
            Ok(vec![Happened::Buried(burial.clone())])
        });
        match decided.await {
            Ok(_) => Ok(()),
            Err(DecideError::Rejected(Full)) => {
                Err(DeadLetterError::Full { family: self.of.clone(), consumer: self.consumer.to_string() })
            }
            Err(error) => Err(DeadLetterError::of(error)),
        }
    }

    /// The owner of this term is about to handle a letter again.
    pub(super) async fn begin(&self, place: Place, term: u64) -> Result<(), DeadLetterError> {
        let decided = self.state.decide(|letters| {
            let is_news =
                letters.get(place).is_some_and(|letter| letter.is_wanted && letter.begun != Some(term));
            Ok::<_, std::convert::Infallible>(if is_news {
                vec![Happened::Begun { place, term }]
            } else {
                vec![]
            })
        });
        decided.await.map(drop).map_err(DeadLetterError::of)
    }

    /// A letter was handled after all.
    pub(super) async fn settle(&self, place: Place) -> Result<(), DeadLetterError> {
        let decided = self.state.decide(|letters| {
            let is_there = letters.get(place).is_some();
            Ok::<_, std::convert::Infallible>(if is_there {
                vec![Happened::Handled { place }]
            } else {
                vec![]
            })
        });
        decided.await.map(drop).map_err(DeadLetterError::of)
    }
}

/// How many requests fit into one append.
fn letters_at_once(max_batch: usize) -> usize {
    max_batch.clamp(1, MAX_LETTERS.div_ceil(MAX_NAMED))
}

impl Which {
    fn of(self, letters: &Letters) -> Box<dyn Iterator<Item = &Letter> + '_> {
        match self {
            Self::One(at) => Box::new(letters.get(Place::new(at.epoch, at.offset)).into_iter()),
            Self::First(most) => Box::new(letters.iter().take(most)),
            Self::All => Box::new(letters.iter()),
            Self::FailedBefore(time) => {
                let before = envelope::micros(time);
                Box::new(letters.iter().filter(move |letter| letter.burial.last_failed < before))
            }
        }
    }
}

#[derive(Debug)]
struct Full;

/// Why nothing became of a request about dead letters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// The consumer has as many dead letters as are kept.
    #[error("`{consumer}` of `{family}` has all the dead letters that are kept: redrive or drop some")]
    Full {
        /// The consumer's family.
        family: Family,
        /// Its name.
        consumer: String,
    },
    /// The log of dead letters could not be read or written.
    #[error("the dead letters could not be read or written")]
    Log {
        /// Whether repeating is right.
        retry: Retry,
        /// What failed.
        source: BoxError,
    },
}

impl DeadLetterError {
    /// Whether repeating the call is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Full { .. } => Retry::Never,
            // What was requested before is not requested twice.
            Self::Log { retry: Retry::MayDuplicate, .. } => Retry::Safe,
            Self::Log { retry, .. } => *retry,
        }
    }

    fn of<R: fmt::Debug + Send + Sync + 'static>(error: DecideError<R>) -> Self {
        Self::Log { retry: error.retry(), source: Box::new(error) }
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeadLetters({}/{})", self.of, self.consumer)
    }
}

/// What is told of an event before it is written to the dead letters.
pub(super) type Sink = Arc<dyn Fn(DeadLetter) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// What becomes of an event that is given up: a sink of the user's own is told first, then it is written to the log.
pub(super) async fn give_up(
    letters: &DeadLetters,
    sink: Option<&Sink>,
    burial: Burial,
) -> Result<(), String> {
    if let Some(sink) = sink {
        let letter = Letter { wanted: burial.wanted, is_wanted: false, begun: None, burial: burial.clone() };
        let Some(letter) = DeadLetter::of(&letters.of, &letter) else { return Err("no such key".to_owned()) };
        let told = timeout(GIVE_UP_WITHIN, sink(letter)).await;
        let told = told.map_err(|_| format!("the dead-letter sink did not end within {GIVE_UP_WITHIN:?}"))?;
        told.map_err(|error| format!("the dead-letter sink failed: {}", described(&*error)))?;
    }
    match timeout(GIVE_UP_WITHIN, letters.bury(burial)).await {
        Ok(buried) => buried.map_err(|error| described(&error)),
        Err(_) => Err(format!("the dead letters were not written within {GIVE_UP_WITHIN:?}")),
    }
}

/// A record that is given up.
pub(super) fn raw(record: &[u8]) -> Raw {
    Raw(Bytes::copy_from_slice(record))
}
