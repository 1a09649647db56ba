//! Registering a consumer, and starting it.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::watch;

use super::{
    attempt::{Handler, Spare},
    cell::{ConsumerCell, Owner},
    dead::{DeadLetter, DeadLetters},
    delivery::Delivery,
    lease::Place,
    operate::{control_of, keep_from, refused},
    options::{MAX_COMMIT_RECORDS, MAX_CONCURRENCY, Options, SHORTEST_LEASE, StartAt},
    runner::{Runner, needed},
    standing::{Board, Progress, Standing},
    succession::{retire, retired},
};
use crate::{
    BackendError, BoxError, Cursor, Event, Expected, Family, InvalidKey, Key, Offset, RegisterError, Retry,
    Selector,
    engine::{
        Core,
        control::{Control, MAX_CONSUMERS, Registered},
        losses::{as_backend, contended},
        metrics::OfConsumer,
        owned_cell::{self, ChangeError, OwnedError},
        retry::Delays,
        supervisor::OnStop,
    },
    internal_cell,
    key::check,
};

/// The longest name of a consumer, in bytes.
const MAX_NAME_BYTES: usize = 96;
/// Lost races after which a registration gives up.
const MAX_ATTEMPTS: usize = 16;

/// A side effect of events, about to be registered: await it.
///
/// # Guarantees
///
/// - The handler runs for every event, at least once: it runs again where it failed, and where a pod died before what it did was written
///   down. [`Delivery::idempotency_key`] makes repeating harmless.
/// - Of all pods of the app, one commits at a time. When it dies another one takes over, within the [`lease`](Self::lease) and a
///   tenth of it; when it is shut down, at once. For as long as a pod that was paused does not know that it was deposed, two handlers may
///   overlap: [`Delivery::term`] tells them apart. Once it knows, it drops the handlers that it runs.
/// - Events come in the order of the log. With a [`concurrency`](Self::concurrency) above one, those of one key do.
/// - An event that cannot be handled is tried for ever, and holds up those after it: `via_consumer_attempts` and one warning tell. With
///   [`max_attempts`](Self::max_attempts) it is given up then, and kept among the [dead letters](crate::Engine::dead_letters).
/// - What it has not handled is not compacted, whether or not any pod runs it, until it is
///   [forgotten](super::NamedConsumer::forget).
///
/// Handlers run in the consumer's own task. One that computes for long belongs on a thread of its own
/// ([`Supervisor::offload`](crate::Supervisor::offload)): whatever keeps the task from running keeps it from renewing the lease.
#[must_use = "a consumer is registered when this is awaited"]
pub struct OnEvent<E> {
    core: Core,
    selector: Selector,
    name: String,
    handler: Handler<E>,
    options: Options,
}

/// A consumer that this pod runs, or would run if no other did.
///
/// Dropping it changes nothing: the consumer runs for as long as the engine does.
pub struct Consumer {
    name: String,
    follow: watch::Receiver<Progress>,
}

/// Why a consumer could not be registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// The name is empty or too long.
    #[error("this is no name for a consumer")]
    InvalidName(#[from] InvalidKey),
    /// This pod runs a consumer of this name.
    #[error("`{name}` of `{family}` runs on this pod already: give one of them another name")]
    NameTaken {
        /// The family.
        family: Family,
        /// The name.
        name: String,
    },
    /// The family that dead letters are in is used for something else.
    #[error("a name of via's own is in use")]
    Reserved(#[source] RegisterError),
    /// Nobody has registered a consumer of this name.
    #[error("nobody has registered a consumer `{name}` of `{family}`")]
    Unknown {
        /// The family.
        family: Family,
        /// The name.
        name: String,
    },
    /// The name belongs to a consumer of other records of the family.
    #[error("`{name}` consumes {}, not {}: give it another name", of(.family, .registered.as_deref()), of(.family, .wanted.as_deref()))]
    OtherRecords {
        /// The family.
        family: Family,
        /// The name.
        name: String,
        /// The instance it is registered for; `None` if for the whole family.
        registered: Option<String>,
        /// The instance that is wanted.
        wanted: Option<String>,
    },
    /// Another consumer has taken this one's place.
    #[error("`{name}` of `{family}` was retired: `{successor}` goes on in its place")]
    Retired {
        /// The family.
        family: Family,
        /// The name.
        name: String,
        /// Who goes on.
        successor: String,
    },
    /// It waits to take another consumer's place, and begins where that one ends.
    #[error(
        "`{name}` of `{family}` is about to take the place of `{prior}`: it is told where to go on once it runs"
    )]
    Succeeding {
        /// The family.
        family: Family,
        /// The name.
        name: String,
        /// Whose place it takes.
        prior: String,
    },
    /// Records below may be gone, so it cannot begin where it was told to.
    #[error("records of `{family}` below {lowest} may be gone: the lowest offset to start at is {lowest}")]
    BelowCeiling {
        /// The family.
        family: Family,
        /// The lowest offset possible.
        lowest: Offset,
    },
    /// Nobody knows any more what was announced to be dropped.
    #[error("the control cell of `{family}` is gone: call `engine.rebuild_control(\"{family}\")`")]
    ControlLost {
        /// The family.
        family: Family,
    },
    /// The family has as many consumers as it can have.
    #[error("`{family}` has {MAX_CONSUMERS} consumers: forget one that is not needed any more")]
    Full {
        /// The family.
        family: Family,
    },
    /// The backplane failed.
    #[error("the backplane could not be asked or told")]
    Backend(#[source] BackendError),
}

fn of(family: &Family, instance: Option<&str>) -> String {
    match instance {
        Some(instance) => format!("`{family}/{instance}`"),
        None => format!("all of `{family}`"),
    }
}

impl ConsumerError {
    /// Whether repeating the call is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            // A registration that is made again finds its own.
            Self::Backend(error) if error.retry() == Retry::MayDuplicate => Retry::Safe,
            Self::Backend(error) => error.retry(),
            Self::Succeeding { .. } => Retry::Safe,
            _ => Retry::Never,
        }
    }
}

impl<E: Event> OnEvent<E> {
    pub(in crate::engine) fn new<H, Fut, Failure>(
        core: Core,
        selector: Selector,
        name: String,
        handler: H,
    ) -> Self
    where
        H: Fn(Delivery<E>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
        Failure: Into<BoxError>,
    {
        let handler = move |delivery, spare: &mut Spare| {
            spare.begin(handler(delivery).map(|outcome| outcome.map_err(Into::into)))
        };
        Self { core, selector, name, handler: Arc::new(handler), options: Options::default() }
    }

    /// Where it begins if it was never registered: with the first event there ever was, unless set. One that was goes on where it
    /// stood.
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.options.start_at = start;
        self
    }

    /// Takes the place of another consumer of these events, for a new version of an effect. That one is retired when this one is
    /// registered for the first time: from then on a pod that still registers it is refused.
    ///
    /// Its owner begins nothing more once it hears of that, in a moment or when it renews its lease, commits what it has handled, and
    /// leaves; this one begins after that. Nothing is skipped, and what was under way on an owner that went without a word may be handled by
    /// both. Where there is no such consumer, that is an error.
    pub fn successor_of(mut self, prior: impl Into<String>) -> Self {
        self.options.successor_of = Some(prior.into());
        self
    }

    /// How long to wait before a failed attempt is made again: a random part of `base`, which doubles with every failure up to `max`.
    /// 10 milliseconds and 30 seconds unless set.
    pub fn retry_backoff(mut self, base: Duration, max: Duration) -> Self {
        (self.options.retry_base, self.options.retry_max) = (base, max.max(base));
        self
    }

    /// Gives an event up after so many attempts, and goes on with the next: it is written to the
    /// [dead letters](crate::Engine::dead_letters). Never, unless set; zero is one.
    ///
    /// A timeout, a panic and the death of a pod are attempts. An event whose bytes do not decode is given up whatever is set.
    /// If it cannot be written down, it is not given up.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.options.max_attempts = NonZeroU32::new(attempts.max(1));
        self
    }

    /// Tells somebody of every event that is given up, before it is written to the dead letters. While that fails, the consumer stands
    /// still. It may be told of one event more than once.
    pub fn dead_letter<S, Fut, Failure>(mut self, sink: S) -> Self
    where
        S: Fn(DeadLetter) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
        Failure: Into<BoxError>,
    {
        let sink = move |letter| sink(letter).map(|outcome| outcome.map_err(Into::into)).boxed();
        self.options.sink = Some(Arc::new(sink));
        self
    }

    /// Drops a dead letter so long after its last failure; never, unless set. One that is to be handled again is not dropped.
    ///
    /// The owner looks every few seconds, and tells of what it drops in the log and in `via_consumer_expired_total`. Times are by the pods' own
    /// clocks: one that is ahead drops letters that much too early.
    pub fn expire_letters(mut self, after: Duration) -> Self {
        self.options.letters_last = Some(after);
        self
    }

    /// How long a handler may take; 30 seconds unless set. One that takes longer is dropped, which counts as a failure.
    pub fn handler_timeout(mut self, at_most: Duration) -> Self {
        self.options.handler_timeout = at_most;
        self
    }

    /// How many handlers run at a time; one unless set, at most 256. Events of one key are handled one after the other all the same.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.options.concurrency = handlers.clamp(1, MAX_CONCURRENCY);
        self
    }

    /// How often what was handled is written down: after so many events, at most 384, or so long after the first of them. 256 and 100
    /// milliseconds unless set.
    ///
    /// What was not written down is handled again after a crash. `commit_every(1, …)` writes after every event, and handles no next one
    /// before unless it runs several at once.
    pub fn commit_every(mut self, events: usize, time: Duration) -> Self {
        (self.options.commit_records, self.options.commit_time) = (events.clamp(1, MAX_COMMIT_RECORDS), time);
        self
    }

    /// How long a pod that has died keeps others from taking over; 20 seconds unless set, at least one. Pods that disagree wait for the
    /// longer one.
    ///
    /// A store that elects a leader is silent for some seconds, and an owner that cannot renew for two thirds of the lease begins nothing
    /// more.
    pub fn lease(mut self, lasts: Duration) -> Self {
        self.options.lease = lasts.max(SHORTEST_LEASE);
        self
    }

    async fn start(self) -> Result<Consumer, ConsumerError>
    where
        E: Event,
    {
        let Self { core, selector, name, handler, options } = self;
        check("consumer", &name, MAX_NAME_BYTES)?;
        let family = selector.family().clone();
        let Some(seat) = core.consumers.take(&core, &family, &name, options.lease) else {
            return Err(ConsumerError::NameTaken { family, name });
        };
        let place = Place {
            backplane: core.backplane.clone(),
            ambient: core.ambient.clone(),
            key: cell_of(&family, &name),
            owner: Owner::of(core.id),
            lasts: options.lease,
            spread: u32::try_from(options.spread()).unwrap_or(u32::MAX),
            owned: core.consumers.owned(),
        };
        let letters = match DeadLetters::new(&core, &family, &name) {
            Ok(letters) => letters,
            Err(error) => {
                core.consumers.leave(&family, &name);
                return Err(error);
            }
        };
        let control = control_of(&core, &family);
        let registration =
            Registration { core: &core, place: &place, control: &control, selector: &selector, name: &name };
        if let Err(error) = registration.register(&options).await {
            core.consumers.leave(&family, &name);
            return Err(error);
        }
        let board = Arc::new(Board::new());
        let follow = board.follow();
        let metrics = OfConsumer::new(&family, &name);
        let task = format!("consumer {family}/{name}");
        let runner = Runner {
            core: core.clone(),
            place,
            control,
            selector,
            name: name.as_str().into(),
            options,
            handler,
            board,
            metrics,
            letters,
            seat,
        };
        core.supervisor.spawn(task, OnStop::Drain, |stop| runner.run(stop));
        Ok(Consumer { name, follow })
    }
}

impl<E: Event> IntoFuture for OnEvent<E> {
    type Output = Result<Consumer, ConsumerError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.start().boxed()
    }
}

impl<E> fmt::Debug for OnEvent<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnEvent").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The cell of a consumer.
pub(super) fn cell_of(family: &Family, name: &str) -> crate::CellKey {
    internal_cell(&["consumers", family.as_str(), name])
}

/// Making a consumer known to all pods.
#[derive(Clone, Copy)]
struct Registration<'a> {
    core: &'a Core,
    place: &'a Place,
    control: &'a Control,
    selector: &'a Selector,
    name: &'a str,
}

impl Registration<'_> {
    /// First its pin and then its cell: from the first moment it is there, nothing it needs is dropped.
    async fn register(&self, options: &Options) -> Result<(), ConsumerError> {
        let mut delays = self.delays();
        for _ in 0..MAX_ATTEMPTS {
            if let Some(found) = self.place.load().await.map_err(unread)? {
                self.judge(&found.value)?;
                return match found.value.waits_for() {
                    Some(prior) => retire(self.place, self.selector.family(), prior, self.name).await,
                    None => Ok(()),
                };
            }
            let cell = match &options.successor_of {
                Some(prior) => {
                    let start = self.prior(prior).await?.committed();
                    keep_from(self.control, self.name, instance_of(self.selector), needed(&start)).await?;
                    ConsumerCell::new(self.selector, start).waiting_for(prior)
                }
                None => ConsumerCell::new(self.selector, self.pin(options.start_at).await?),
            };
            let (store, entropy) = (self.core.backplane.store(), &*self.core.ambient.entropy);
            match owned_cell::put_at(store, entropy, &self.place.key, Expected::Absent, cell).await {
                // What is there is looked at, whoever wrote it: this pod, or another one that was faster.
                Ok(_) | Err(OwnedError::Unknown(_)) => {}
                Err(error) => return Err(unread(error)),
            }
            delays.wait().await;
        }
        Err(ConsumerError::Backend(contended()))
    }

    fn delays(&self) -> Delays {
        Delays::new(Duration::from_millis(1), Duration::from_millis(250), self.core.ambient.seed())
    }

    /// The cell of the consumer whose place this one takes.
    async fn prior(&self, prior: &str) -> Result<ConsumerCell, ConsumerError> {
        let family = self.selector.family();
        check("consumer", prior, MAX_NAME_BYTES)?;
        let found =
            owned_cell::load::<ConsumerCell>(self.core.backplane.store(), &cell_of(family, prior)).await;
        let found = found.map_err(unread)?;
        let unknown = || ConsumerError::Unknown { family: family.clone(), name: prior.to_owned() };
        let cell = found.ok_or_else(unknown)?.value;
        Registration { name: prior, ..*self }.judge_records(&cell)?;
        match cell.retired_by() {
            Some(other) if other != self.name => Err(retired(family, prior, other)),
            _ => Ok(cell),
        }
    }

    /// Whether a consumer that is there is the one that was meant.
    fn judge(&self, cell: &ConsumerCell) -> Result<(), ConsumerError> {
        match cell.retired_by() {
            Some(successor) => Err(retired(self.selector.family(), self.name, successor)),
            None => self.judge_records(cell),
        }
    }

    fn judge_records(&self, cell: &ConsumerCell) -> Result<(), ConsumerError> {
        if cell.is_of(self.selector) {
            return Ok(());
        }
        let wanted = instance_of(self.selector).map(str::to_owned);
        let (family, name) = (self.selector.family().clone(), self.name.to_owned());
        Err(ConsumerError::OtherRecords {
            family,
            name,
            registered: cell.instance().map(str::to_owned),
            wanted,
        })
    }

    /// Pins where it begins; answers that.
    async fn pin(&self, start_at: StartAt) -> Result<Cursor, ConsumerError> {
        let head = self.control.head().await.map_err(ConsumerError::Backend)?;
        let start = start_at.cursor(head);
        match self.control.register(self.name, instance_of(self.selector), needed(&start)).await {
            // One that was pinned and has no cell was about to be registered by a pod that died: it begins where that wanted.
            Ok(Registered::Pinned(pin)) => {
                Ok(Cursor { epoch: pin.epoch, offset: Offset(pin.offset.0.saturating_sub(1)), ..start })
            }
            Ok(Registered::BelowCeiling { lowest }) => {
                Err(ConsumerError::BelowCeiling { family: self.selector.family().clone(), lowest })
            }
            Err(error) => Err(refused(error)),
        }
    }
}

pub(super) fn unchanged(error: ChangeError<ConsumerError>) -> ConsumerError {
    match error {
        ChangeError::Rejected(error) => error,
        ChangeError::Contended => ConsumerError::Backend(contended()),
        ChangeError::Cell(error) => unread(error),
    }
}

pub(super) fn unread(error: OwnedError) -> ConsumerError {
    ConsumerError::Backend(as_backend(error))
}

impl Consumer {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it stands on this pod.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.follow.borrow().standing.clone()
    }

    /// Every event up to here was handled, and that is written down: as far as this pod knows, which learns of it when it runs the
    /// consumer itself.
    #[must_use]
    pub fn committed(&self) -> Offset {
        self.follow.borrow().committed
    }

    /// Waits until it stands on this pod as `wanted` says, or has ended.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn stands(&self, wanted: impl Fn(&Standing) -> bool) -> Standing {
        let mut follow = self.follow.clone();
        let reached = follow.wait_for(|now| now.standing == Standing::Ended || wanted(&now.standing)).await;
        reached.map_or(Standing::Ended, |now| now.standing.clone())
    }

    /// Waits until this pod has committed up to an offset; `false` if it has ended before.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn commits(&self, offset: Offset) -> bool {
        let mut follow = self.follow.clone();
        let is_there = |now: &Progress| now.committed >= offset;
        let reached = follow.wait_for(|now| now.standing == Standing::Ended || is_there(now)).await;
        reached.is_ok_and(|now| is_there(&now))
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("name", &self.name).field("now", &*self.follow.borrow()).finish()
    }
}

/// The instance that it is about; `None` if it is about the whole family.
fn instance_of(selector: &Selector) -> Option<&str> {
    match selector {
        Selector::Key(key) => key.instance_name(),
        Selector::Family(_) => None,
    }
}

/// What a handle means: a family's own, all of it; an instance's, that instance.
pub(in crate::engine) fn selector_of(key: &Key) -> Selector {
    match key.instance_name() {
        None => Selector::Family(key.family().clone()),
        Some(_) => Selector::Key(key.clone()),
    }
}
