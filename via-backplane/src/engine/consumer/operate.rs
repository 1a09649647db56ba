//! What an operator sees of consumers, and does with them: from any pod, whether or not it runs them.

use std::{fmt, time::Duration};

use super::{
    cell::{ConsumerCell, Needs, Owner},
    on_event::{ConsumerError, cell_of, unread},
    options::StartAt,
    runner::{control_failed, needed},
    succession::retired,
};
use crate::{
    CasError, Family, Head, InvalidKey, Key, ReadRange, Selector,
    engine::{
        Core, Engine,
        control::{Control, ControlError, MAX_CONSUMER_BYTES, Moved, Registered},
        losses::contended,
        owned_cell::{self, Change, ChangeError, Held},
    },
    envelope::{self, Envelope},
    key::check,
};

/// Lost races after which an operator is told to try again.
const MAX_ATTEMPTS: usize = 64;

/// A consumer as it is stored: what all pods agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerState {
    /// The family it is of.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// The instance it is about; `None` if it is about the whole family.
    pub instance: Option<String>,
    /// Whether it runs.
    pub running: Running,
    /// The engine that owns it, if any does: 32 hexadecimal digits, drawn when that engine started.
    pub owner: Option<String>,
    /// Whether that is this one.
    pub is_owned_here: bool,
    /// The number of the last lease.
    pub term: u64,
    /// Every event of it up to here was handled.
    pub committed: Head,
    /// The last event there is.
    pub head: Head,
    /// Offsets between the two: an upper bound of the events it has yet to handle, in a family without instances all but
    /// their number.
    pub lag_events: u64,
    /// How old the first event is that it has not handled, by the clocks of two pods; `None` if there is none.
    pub lag: Option<Duration>,
    /// How often that one has failed, as far as is written down.
    pub attempts: u32,
    /// Why it failed last, as far as is written down.
    pub last_error: Option<String>,
    /// The event, with its version, that it takes a newer binary for; version 0 is any.
    pub needs: Option<(String, u32)>,
}

/// Whether a consumer runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Running {
    /// Some pod runs it, or will.
    Active,
    /// It waits to be resumed.
    Paused,
    /// It takes the place of another one, which commits nothing more once it has ended what it had begun.
    Succeeding {
        /// The other one.
        prior: String,
    },
    /// Another one takes its place, or has.
    Retired {
        /// Who goes on.
        successor: String,
    },
}

/// A consumer by its name, wherever it runs.
///
/// ```
/// # use via_backplane::Engine;
/// # async fn doc(engine: Engine) -> Result<(), Box<dyn std::error::Error>> {
/// let ship = engine.consumer("orders", "ship")?;
/// ship.pause().await?;
/// println!("{} events are waiting", ship.state().await?.lag_events);
/// ship.resume().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct NamedConsumer {
    core: Core,
    family: Family,
    name: String,
}

impl Engine {
    /// The consumer of this name, to look at it and to steer it.
    ///
    /// # Errors
    /// [`InvalidKey`] if either is no name.
    pub fn consumer(&self, family: &str, name: &str) -> Result<NamedConsumer, InvalidKey> {
        let name = check("consumer", name, MAX_CONSUMER_BYTES)?.to_owned();
        Ok(NamedConsumer { core: self.core.clone(), family: Family::new(family)?, name })
    }

    /// The consumers of a family, by name, whichever pods run them.
    ///
    /// # Errors
    /// [`ConsumerError`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn consumers_of(&self, family: &str) -> Result<Vec<ConsumerState>, ConsumerError> {
        let family = Family::new(family)?;
        let pins = control_of(&self.core, &family).pins().await.map_err(refused)?;
        let mut states = Vec::new();
        for (name, ..) in pins {
            let named = NamedConsumer { core: self.core.clone(), family: family.clone(), name };
            match named.state().await {
                Ok(state) => states.push(state),
                // A pin that is somebody else's.
                Err(ConsumerError::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(states)
    }

    /// The consumers of every family that is declared on this engine, by family and name.
    ///
    /// # Errors
    /// As [`consumers_of`](Self::consumers_of).
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn consumers(&self) -> Result<Vec<ConsumerState>, ConsumerError> {
        let mut states = Vec::new();
        for family in self.core.registry.names() {
            states.extend(self.consumers_of(&family).await?);
        }
        Ok(states)
    }
}

impl NamedConsumer {
    /// How it stands.
    ///
    /// # Errors
    /// [`ConsumerError::Unknown`] if nobody has registered it; else the other variants.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn state(&self) -> Result<ConsumerState, ConsumerError> {
        let cell = self.load().await?.value;
        let selector = self.selector(&cell)?;
        let log = self.core.backplane.log();
        let head = log.head(&selector).await.map_err(ConsumerError::Backend)?;
        let committed = cell.committed();
        let (mut lag_events, mut lag, mut attempts) = (0, None, 0);
        if committed.epoch == head.epoch {
            lag_events = head.offset.0.saturating_sub(committed.offset.0);
            let range = ReadRange { after: committed.offset, up_to: head.offset, limit: 1 };
            let first = log.read(&selector, range).await.map_err(ConsumerError::Backend)?;
            if let Some(first) = first.iter().next() {
                attempts = cell.attempts(first.offset, true);
                let now = self.core.ambient.clock.now();
                let age =
                    |envelope: Envelope<'_>| now.duration_since(envelope::system_time(envelope.time)).ok();
                lag = Some(Envelope::decode(first.bytes).ok().and_then(age).unwrap_or_default());
            }
        }
        let running = match (cell.retired_by(), cell.waits_for()) {
            (Some(successor), _) => Running::Retired { successor: successor.to_owned() },
            (None, Some(prior)) => Running::Succeeding { prior: prior.to_owned() },
            (None, None) if cell.paused => Running::Paused,
            (None, None) => Running::Active,
        };
        Ok(ConsumerState {
            family: self.family.clone(),
            name: self.name.clone(),
            instance: cell.instance().map(str::to_owned),
            running,
            owner: cell.owner_text(),
            is_owned_here: cell.is_owned_by(&Owner::of(self.core.id)),
            term: cell.term,
            committed: committed.head(),
            head,
            lag_events,
            lag,
            attempts,
            last_error: cell.error().map(str::to_owned),
            needs: cell.needs.as_ref().map(|Needs { name, version }| (name.clone(), *version)),
        })
    }

    /// Has no pod run it until it is [resumed](Self::resume). Its owner hears of it in a moment, or when it renews its lease; handlers
    /// that were begun by then end.
    ///
    /// # Errors
    /// [`ConsumerError`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the write under way. Call it again.
    pub async fn pause(&self) -> Result<(), ConsumerError> {
        self.change(|cell| cell.paused = true).await
    }

    /// Has it run again.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    ///
    /// # Cancel safety
    /// As [`pause`](Self::pause).
    pub async fn resume(&self) -> Result<(), ConsumerError> {
        self.change(|cell| cell.paused = false).await
    }

    /// Has it go on from somewhere else in the present log: events are handled again, or skipped.
    ///
    /// What was begun ends, and is not committed. A consumer that stands still because its log was replaced goes on.
    ///
    /// # Errors
    /// [`ConsumerError::BelowCeiling`], which names the lowest offset possible, if events from there on may be gone;
    /// [`ConsumerError::Succeeding`] while it waits to take another one's place; else as [`pause`](Self::pause).
    ///
    /// # Cancel safety
    /// As [`pause`](Self::pause).
    pub async fn seek(&self, to: StartAt) -> Result<(), ConsumerError> {
        let cell = self.load().await?.value;
        if let Some(prior) = cell.waits_for() {
            let (family, name, prior) = (self.family.clone(), self.name.clone(), prior.to_owned());
            return Err(ConsumerError::Succeeding { family, name, prior });
        }
        let control = control_of(&self.core, &self.family);
        let head = control.head().await.map_err(ConsumerError::Backend)?;
        let target = to.cursor(head);
        // Before and after: until the cell says so, its owner may move the pin on.
        keep_from(&control, &self.name, cell.instance(), needed(&target)).await?;
        self.change(|cell| cell.seek(target)).await?;
        keep_from(&control, &self.name, cell.instance(), needed(&target)).await?;
        tracing::warn!(family = %self.family, consumer = %self.name, after = %target.offset, "a consumer was told where to go on");
        Ok(())
    }

    /// Forgets it: what it alone needed may be dropped, and a pod that registers the name begins anew. Answers whether it was there.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    ///
    /// # Cancel safety
    /// As [`pause`](Self::pause).
    pub async fn forget(&self) -> Result<bool, ConsumerError> {
        let key = cell_of(&self.family, &self.name);
        let store = self.core.backplane.store();
        let mut was_there = false;
        for attempt in 0.. {
            // Whatever its bytes are: one that is damaged can be forgotten.
            let Some(found) = store.load(&key).await.map_err(ConsumerError::Backend)? else { break };
            was_there = true;
            match store.delete(&key, found.rev).await {
                Ok(()) => break,
                Err(CasError::Backend(error)) => return Err(ConsumerError::Backend(error)),
                Err(_) if attempt < MAX_ATTEMPTS => {}
                Err(_) => return Err(ConsumerError::Backend(contended())),
            }
        }
        let was_pinned = control_of(&self.core, &self.family).forget(&self.name).await.map_err(refused)?;
        Ok(was_there || was_pinned)
    }

    async fn load(&self) -> Result<Held<ConsumerCell>, ConsumerError> {
        let key = cell_of(&self.family, &self.name);
        let found = owned_cell::load(self.core.backplane.store(), &key).await.map_err(unread)?;
        found.ok_or_else(|| self.unknown())
    }

    fn unknown(&self) -> ConsumerError {
        ConsumerError::Unknown { family: self.family.clone(), name: self.name.clone() }
    }

    fn selector(&self, cell: &ConsumerCell) -> Result<Selector, InvalidKey> {
        Ok(match cell.instance() {
            Some(instance) => Selector::Key(Key::instance(&self.family, instance)?),
            None => Selector::Family(self.family.clone()),
        })
    }

    /// Each edit may be made again on its own effect.
    async fn change(&self, edit: impl Fn(&mut ConsumerCell)) -> Result<(), ConsumerError> {
        let (store, entropy) = (self.core.backplane.store(), &*self.core.ambient.entropy);
        let key = cell_of(&self.family, &self.name);
        let edited = |held: Option<&Held<ConsumerCell>>| {
            let mut value = held.ok_or_else(|| self.unknown())?.value.clone();
            if let Some(successor) = value.retired_by() {
                return Err(retired(&self.family, &self.name, successor));
            }
            edit(&mut value);
            Ok(Change::Put(value))
        };
        match owned_cell::change(store, entropy, &key, edited).await {
            Ok(_) => Ok(()),
            Err(ChangeError::Rejected(error)) => Err(error),
            Err(ChangeError::Contended) => Err(ConsumerError::Backend(contended())),
            Err(ChangeError::Cell(error)) => Err(unread(error)),
        }
    }
}

impl fmt::Debug for NamedConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NamedConsumer({}/{})", self.family, self.name)
    }
}

pub(super) fn control_of(core: &Core, family: &Family) -> Control {
    let (backplane, entropy) = (core.backplane.clone(), core.ambient.entropy.clone());
    Control::new(backplane, entropy, family.clone()).under(core.ambient.rules())
}

/// Has everything at or above an offset kept for a consumer, from now on.
pub(super) async fn keep_from(
    control: &Control,
    name: &str,
    instance: Option<&str>,
    wanted: Head,
) -> Result<(), ConsumerError> {
    let family = || control.family().clone();
    let below = |lowest| Err(ConsumerError::BelowCeiling { family: family(), lowest });
    match control.register(name, instance, wanted).await.map_err(refused)? {
        Registered::Pinned(pin) if pin.epoch == wanted.epoch && pin.offset <= wanted.offset => Ok(()),
        Registered::BelowCeiling { lowest } => below(lowest),
        Registered::Pinned(_) => match control.move_to(name, wanted).await.map_err(refused)? {
            Moved::BelowCeiling { lowest } => below(lowest),
            Moved::Pinned(_) | Moved::OtherEpoch(_) => Ok(()),
            // Forgotten a moment ago: whoever forgot it has the last word.
            Moved::Unregistered => Err(ConsumerError::Unknown { family: family(), name: name.to_owned() }),
        },
    }
}

/// What a control cell refuses.
pub(super) fn refused(error: ControlError) -> ConsumerError {
    match error {
        ControlError::Lost { family } => ConsumerError::ControlLost { family },
        ControlError::Full { family } => ConsumerError::Full { family },
        ControlError::InvalidName(error) => ConsumerError::InvalidName(error),
        other => ConsumerError::Backend(control_failed(other)),
    }
}
