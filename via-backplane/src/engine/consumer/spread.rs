//! Spreading consumers over pods.
//!
//! Every pod says, three times per lease and in a cell that ends by itself, which consumers it would run and which of them it does. One
//! that runs at least two more than another pod gives up what that one would run, and stays away from it until it had its chance. Nothing
//! rests on it but the spread: whoever runs a consumer is decided by the consumer's own cell alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::cell::full_name;
use crate::{
    BackendError, BoxError, CellKey, CellSelector, Change, ErrorKind, Expected, Family, Ttl,
    engine::{
        Core,
        owned_cell::{self, Held, Owned, Put},
        supervisor::{OnStop, Stop},
        tail::{Tail, silent_end},
    },
    internal_cell,
};

/// How often a pod is heard of while its presence lasts.
const BEATS: u32 = 3;
/// How much longer a pod waits for what nobody holds, for each consumer that it runs already.
const MODESTY: Duration = Duration::from_millis(10);
/// The most it waits.
const MOST_MODESTY: Duration = Duration::from_millis(200);

/// What a pod says of itself; see `proto/consumer.proto`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Presence {
    /// What it would run, sorted.
    #[prost(string, repeated, tag = "2")]
    registered: Vec<String>,
    /// What it runs.
    #[prost(string, repeated, tag = "3")]
    owned: Vec<String>,
}

impl Owned for Presence {
    const FORMAT: u32 = 1;
}

/// The consumers of this pod: of each there is one.
#[derive(Default)]
pub(in crate::engine) struct Seats {
    seats: Mutex<BTreeMap<String, Arc<Seat>>>,
    owned: Arc<AtomicUsize>,
    /// This pod has come to run another number of them.
    changed: Arc<Notify>,
}

/// A consumer's seat on this pod.
pub(super) struct Seat {
    name: String,
    lease: Duration,
    state: Mutex<State>,
    asked: Notify,
    /// How many consumers this pod runs.
    owned: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    is_owned: bool,
    is_asked: bool,
    /// It lags and does not get on.
    is_stuck: bool,
}

impl Seats {
    /// A seat for this consumer, unless it has one.
    pub(super) fn take(
        &self,
        core: &Core,
        family: &Family,
        name: &str,
        lease: Duration,
    ) -> Option<Arc<Seat>> {
        let mut seats = self.seats.lock();
        let is_first = seats.is_empty();
        let full_name = full_name(family, name);
        if seats.contains_key(&full_name) {
            return None;
        }
        let (state, asked) = (Mutex::default(), Notify::new());
        let (owned, changed) = (self.owned.clone(), self.changed.clone());
        let seat = Arc::new(Seat { name: format!("{family}/{name}"), lease, state, asked, owned, changed });
        seats.insert(full_name, seat.clone());
        drop(seats);
        if is_first {
            let spread = Spread::new(core.clone());
            core.supervisor.spawn("spread consumers", OnStop::Drain, |stop| spread.run(stop));
        }
        Some(seat)
    }

    pub(super) fn leave(&self, family: &Family, name: &str) {
        self.seats.lock().remove(&full_name(family, name));
    }

    /// How many consumers this pod runs.
    pub(super) fn owned(&self) -> Arc<AtomicUsize> {
        self.owned.clone()
    }

    fn presence(&self) -> Presence {
        let seats = self.seats.lock();
        let owned = seats.iter().filter(|(_, seat)| seat.state.lock().is_owned);
        Presence {
            owned: owned.map(|(name, _)| name.clone()).collect(),
            registered: seats.keys().cloned().collect(),
        }
    }

    /// Those that lag and do not get on, as far as this pod knows.
    pub(in crate::engine) fn stuck(&self) -> Vec<String> {
        let seats = self.seats.lock();
        let is_stuck = |(_, seat): &(&String, &Arc<Seat>)| seat.state.lock().is_stuck;
        seats.iter().filter(is_stuck).map(|(_, seat)| seat.name().to_owned()).collect()
    }

    fn ask(&self, name: &str) {
        if let Some(seat) = self.seats.lock().get(name) {
            seat.state.lock().is_asked = true;
            seat.asked.notify_one();
        }
    }

    /// The shortest lease of all: how long a pod is believed to be there.
    fn lease(&self) -> Duration {
        self.seats.lock().values().map(|seat| seat.lease).min().unwrap_or(Duration::from_secs(20))
    }
}

impl Seat {
    pub(super) fn owns(&self, is_owned: bool) {
        let before = {
            let mut state = self.state.lock();
            state.is_asked &= is_owned;
            std::mem::replace(&mut state.is_owned, is_owned)
        };
        match (before, is_owned) {
            (false, true) => self.owned.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.owned.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
        self.changed.notify_one();
    }

    /// The family's name and its own, as people read them.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Says whether it lags and does not get on.
    pub(super) fn is_stuck(&self, is_stuck: bool) {
        self.state.lock().is_stuck = is_stuck;
    }

    /// Answers once another pod should run it.
    pub(super) async fn asked(&self) {
        while !self.state.lock().is_asked {
            self.asked.notified().await;
        }
    }

    /// For how long this pod stays away from what it has given up.
    pub(super) fn stays_away_for(&self) -> Duration {
        self.lease / BEATS
    }
}

/// How much longer a pod that runs so many waits for what nobody holds.
pub(super) fn modesty(owned: &AtomicUsize) -> Duration {
    let owned = u32::try_from(owned.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
    MODESTY.saturating_mul(owned).min(MOST_MODESTY)
}

/// What this pod should give up, so that no other one that would run it runs two fewer.
fn plan(mine: &Presence, others: &[&Presence]) -> Vec<String> {
    let mut load = mine.owned.len();
    let mut loads: Vec<_> = others.iter().map(|other| other.owned.len()).collect();
    let mut gives_up = Vec::new();
    for name in &mine.owned {
        let would_run = |at: &usize| others[*at].registered.binary_search(name).is_ok();
        let Some(least) = (0..others.len()).filter(would_run).min_by_key(|at| loads[*at]) else { continue };
        if loads[least] + 2 <= load {
            load -= 1;
            loads[least] += 1;
            gives_up.push(name.clone());
        }
    }
    gives_up
}

/// The task that says and hears which pod runs what.
struct Spread {
    core: Core,
    cell: CellKey,
    said: Option<Held<Presence>>,
    /// Other pods, and when each was heard of last.
    others: BTreeMap<CellKey, (Presence, Duration)>,
    /// What the replay under way has brought.
    replayed: BTreeSet<CellKey>,
}

impl Spread {
    fn new(core: Core) -> Self {
        let cell = internal_cell(&["pods", &format!("{:032x}", core.id)]);
        Self { core, cell, said: None, others: BTreeMap::new(), replayed: BTreeSet::new() }
    }

    async fn run(mut self, stop: Stop) -> Result<(), BoxError> {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
        // The others need not wait until it ends by itself.
        if let Some(said) = self.said {
            self.core.backplane.store().delete(&self.cell, said.rev).await.ok();
        }
        Ok(())
    }

    async fn follow(&mut self) {
        let mut tail = Tail::new(&self.core, "pods".to_owned());
        loop {
            let error = self.watch(&mut tail).await;
            tail.ended();
            if error.kind() == ErrorKind::Closed {
                return;
            }
            tail.wait_after(&error).await;
        }
    }

    async fn watch(&mut self, tail: &mut Tail) -> BackendError {
        let core = self.core.clone();
        let below = CellSelector::Below(internal_cell(&["pods"]));
        let mut changes = match core.backplane.store().watch(&below).await {
            Ok(changes) => changes,
            Err(error) => return error,
        };
        tail.opened();
        let mut beat = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            tokio::select! {
                biased;
                change = changes.next() => {
                    match change.unwrap_or_else(|| Err(silent_end())) {
                        Ok(change) => self.hear(change).await,
                        Err(error) => return error,
                    }
                }
                // What others know should not be older than it must be, or they give up too much.
                () = core.consumers.changed.notified() => self.say().await,
                () = &mut beat => {
                    tail.settled();
                    self.say().await;
                    self.judge();
                    beat.set(tokio::time::sleep(core.consumers.lease() / BEATS));
                }
            }
        }
    }

    async fn hear(&mut self, change: Change) {
        match change {
            Change::Begin => self.replayed.clear(),
            Change::End => {
                let replayed = std::mem::take(&mut self.replayed);
                self.others.retain(|key, _| replayed.contains(key));
            }
            Change::Gone { key, .. } => {
                self.others.remove(&key);
            }
            Change::Put { key, .. } if key == self.cell => {}
            Change::Put { key, bytes, .. } => {
                let presence = match bytes {
                    Some(bytes) => owned_cell::unseal(&key, &bytes).ok(),
                    None => {
                        let loaded = owned_cell::load(self.core.backplane.store(), &key).await;
                        loaded.ok().flatten().map(|held: Held<Presence>| held.value)
                    }
                };
                self.replayed.insert(key.clone());
                // What cannot be read is of a binary that knows more; it counts for nothing.
                if let Some(presence) = presence {
                    self.others.insert(key, (presence, self.core.ambient.monotonic.now()));
                }
            }
        }
    }

    async fn say(&mut self) {
        let presence = self.core.consumers.presence();
        let (store, entropy) = (self.core.backplane.store(), &*self.core.ambient.entropy);
        let expected = self.said.as_ref().map_or(Expected::Absent, |said| Expected::At(said.rev));
        let ttl = Ttl::For(self.core.consumers.lease());
        match owned_cell::put_for(store, entropy, &self.cell, expected, presence, ttl).await {
            Ok(Put::Written(held)) => self.said = Some(held),
            // It has ended by itself, or an earlier write landed after all: what is there is written over the next time.
            Ok(Put::Conflict) | Err(_) => {
                self.said = owned_cell::load(store, &self.cell).await.ok().flatten();
            }
        }
    }

    /// Has consumers given up that another pod should run.
    fn judge(&mut self) {
        let (now, lasts) = (self.core.ambient.monotonic.now(), self.core.consumers.lease());
        self.others.retain(|_, (_, heard)| now.saturating_sub(*heard) <= lasts);
        let others: Vec<_> = self.others.values().map(|(presence, _)| presence).collect();
        for name in plan(&self.core.consumers.presence(), &others) {
            self.core.consumers.ask(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(registered: &str, owned: &str) -> Presence {
        let names = |text: &str| text.chars().map(String::from).collect();
        Presence { registered: names(registered), owned: names(owned) }
    }

    #[test]
    fn what_is_spread_evenly_stays_where_it_is() {
        let (mine, other) = (presence("abc", "ab"), presence("abc", "c"));
        assert_eq!(plan(&mine, &[&other]), Vec::<String>::new());
        assert_eq!(plan(&mine, &[]), Vec::<String>::new());
        assert_eq!(plan(&presence("a", "a"), &[&presence("a", "")]), Vec::<String>::new());
    }

    #[test]
    fn as_much_is_given_up_as_makes_it_even() {
        let (mine, idle) = (presence("abcdef", "abcdef"), presence("abcdef", ""));
        assert_eq!(plan(&mine, &[&idle]).len(), 3);
        assert_eq!(plan(&mine, &[&idle, &idle]).len(), 4);
    }

    #[test]
    fn nothing_is_given_up_that_nobody_else_would_run() {
        let mine = presence("abcdef", "abcdef");
        assert_eq!(plan(&mine, &[&presence("f", "")]), ["f"]);
        assert_eq!(plan(&mine, &[&presence("xyz", "")]), Vec::<String>::new());
    }
}
