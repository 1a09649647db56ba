//! Side effects of a component's events.

use std::{
    any::{TypeId, type_name},
    future::IntoFuture as _,
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use via_backplane::{
    BoxError, Consumer, ConsumerError, DeadLetter, Delivery, Event, Fold, FoldState, Key, OnEvent, StartAt,
};

use crate::{Result, Setup, StateAppEvents};

/// A side effect that a component sets up; its methods say how it runs.
///
/// It is registered before the app serves its first request, which an error of it keeps from starting. [`OnEvent`] says what is
/// promised.
pub struct Effect<'a, E: Event> {
    effects: &'a mut Effects,
    on_event: Option<OnEvent<E>>,
    identity: Identity,
}

/// What tells that two components mean the same effect: a component that is mounted twice sets it up twice.
#[derive(Clone, PartialEq, Eq)]
struct Identity {
    key: Key,
    name: String,
    handler: TypeId,
    handler_name: &'static str,
}

/// The effects that components have set up, to be registered.
#[derive(Default)]
pub(crate) struct Effects(Vec<(Identity, BoxFuture<'static, Registered>)>);

type Registered = std::result::Result<Consumer, ConsumerError>;

#[derive(Debug, thiserror::Error)]
enum BadEffect {
    #[error(
        "the effect `{name}` of `{key}` is {first} and {second}: give one of them another name, or set up the same handler"
    )]
    Twice { name: String, key: Key, first: &'static str, second: &'static str },
    #[error("the effect `{name}` of `{key}` cannot be registered")]
    Refused { name: String, key: Key, source: ConsumerError },
}

impl Effects {
    fn add(&mut self, identity: Identity, registers: BoxFuture<'static, Registered>) {
        if self.0.iter().all(|(known, _)| *known != identity) {
            self.0.push((identity, registers));
        }
    }

    pub(crate) fn append(&mut self, other: &mut Self) {
        other.0.drain(..).for_each(|(identity, registers)| self.add(identity, registers));
    }

    /// Registers them, one after the other.
    pub(crate) async fn register(self) -> Result<()> {
        let mut done: Vec<Identity> = Vec::new();
        for (identity, registers) in self.0 {
            let Identity { key, name, .. } = identity.clone();
            if let Some(first) = done.iter().find(|known| known.key == key && known.name == name) {
                let (first, second) = (first.handler_name, identity.handler_name);
                return Err(BadEffect::Twice { name, key, first, second }.into());
            }
            registers.await.map_err(|source| BadEffect::Refused { name, key, source })?;
            done.push(identity);
        }
        Ok(())
    }
}

impl Setup<'_> {
    /// Runs a side effect for every event of a state, on one pod at a time and at least once.
    ///
    /// The name says which effect it is, to all pods and for as long as there is the log: a pod that comes back under it goes on where
    /// the last one stood. For a family with instances it is about all of them.
    ///
    /// ```
    /// use via::prelude::*;
    ///
    /// #[derive(Clone, Serialize, Deserialize, Event)]
    /// #[event(name = "order.placed")]
    /// struct Placed {
    ///     article: String,
    /// }
    ///
    /// impl Fold<u64> for Placed {
    ///     fn fold(self, placed: &mut u64, _at: &Recorded) {
    ///         *placed += 1;
    ///     }
    /// }
    ///
    /// async fn ship(order: Delivery<Placed>) -> Result<(), std::io::Error> {
    ///     println!("shipping {} as {}", order.event.article, order.idempotency_key());
    ///     Ok(())
    /// }
    ///
    /// #[derive(State)]
    /// struct Shop {
    ///     orders: StateAppEvents<Placed, u64>,
    /// }
    ///
    /// impl Component for Shop {
    ///     type Action = ();
    ///
    ///     fn setup(&self, setup: &mut Setup<'_>) {
    ///         setup.on_event("ship", &self.orders, ship).max_attempts(10);
    ///     }
    ///
    ///     async fn act(&self, _cx: &Cx, _: ()) -> via::Result<()> {
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn on_event<E, S, H, Fut, Failure>(
        &mut self,
        name: &str,
        of: &StateAppEvents<E, S>,
        handler: H,
    ) -> Effect<'_, E>
    where
        E: Event + Fold<S>,
        S: FoldState,
        H: Fn(Delivery<E>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), Failure>> + Send + 'static,
        Failure: Into<BoxError>,
    {
        let identity = Identity {
            key: of.events().key().clone(),
            name: name.to_owned(),
            handler: TypeId::of::<H>(),
            handler_name: type_name::<H>(),
        };
        let on_event = Some(of.events().on_event(name, handler));
        Effect { effects: &mut self.effects, on_event, identity }
    }
}

/// The same method of [`OnEvent`].
macro_rules! as_on_event {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*);)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $($argument: $type),*) -> Self {
            self.on_event = self.on_event.take().map(|on_event| on_event.$name($($argument),*));
            self
        }
    )*};
}

impl<E: Event> Effect<'_, E> {
    as_on_event! {
        /// Where it begins if it was never registered; see [`OnEvent::start_at`].
        start_at(start: StartAt);
        /// How long to wait before a failed attempt is made again; see [`OnEvent::retry_backoff`].
        retry_backoff(base: Duration, max: Duration);
        /// Gives an event up after so many attempts; see [`OnEvent::max_attempts`].
        max_attempts(attempts: u32);
        /// Drops a dead letter so long after its last failure; see [`OnEvent::expire_letters`].
        expire_letters(after: Duration);
        /// How long a handler may take; see [`OnEvent::handler_timeout`].
        handler_timeout(at_most: Duration);
        /// How many handlers run at a time; see [`OnEvent::concurrency`].
        concurrency(handlers: usize);
        /// How often what was handled is written down; see [`OnEvent::commit_every`].
        commit_every(events: usize, time: Duration);
        /// How long a pod that has died keeps others from taking over; see [`OnEvent::lease`].
        lease(lasts: Duration);
    }

    /// Takes the place of another effect of the same state; see [`OnEvent::successor_of`].
    pub fn successor_of(mut self, prior: &str) -> Self {
        self.on_event = self.on_event.take().map(|on_event| on_event.successor_of(prior));
        self
    }

    /// Tells somebody of every event that is given up; see [`OnEvent::dead_letter`].
    pub fn dead_letter<Sink, Fut, Failure>(mut self, sink: Sink) -> Self
    where
        Sink: Fn(DeadLetter) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), Failure>> + Send + 'static,
        Failure: Into<BoxError>,
    {
        self.on_event = self.on_event.take().map(|on_event| on_event.dead_letter(sink));
        self
    }
}

impl<E: Event> Drop for Effect<'_, E> {
    fn drop(&mut self) {
        if let Some(on_event) = self.on_event.take() {
            self.effects.add(self.identity.clone(), async move { on_event.into_future().await }.boxed());
        }
    }
}
