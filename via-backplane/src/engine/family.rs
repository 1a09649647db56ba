//! What the handles of one family and its projector share.

use std::{
    collections::{HashMap, VecDeque},
    marker::PhantomData,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use rapidhash::fast::RandomState;
use tokio::sync::{Notify, watch};

use super::{
    compaction::Candidates,
    losses::Undecodable,
    metrics::OfFamily,
    orders::{self, Inbox, Orders},
    projection::{Halt, Projection},
};
use crate::{Cursor, Epoch, Head, Key, Offset, RecordId};

/// How many records a pod remembers the identity of, to answer whether a position was reached without asking the log.
const RECENT_RECORDS: usize = 1_024;
/// How many skipped records are listed; all are counted.
const LISTED_UNDECODABLE: usize = 1_024;
/// How much of what is wrong with one is listed, in characters.
const LISTED_CAUSE: usize = 256;
/// Instances without a record that handles may hold before those nobody holds any more are forgotten.
const VACANT_INSTANCES: usize = 1_024;

/// One family on this pod.
pub(super) struct Family<E, S> {
    pub(super) name: crate::Family,
    pub(super) progress: watch::Sender<Progress>,
    /// Boxed, because the projector writes it with every batch while appenders read what would lie beside it.
    pub(super) recent: Box<Mutex<Recent>>,
    pub(super) undecodable: Mutex<Skipped>,
    pub(super) metrics: OfFamily,
    instances: RwLock<Instances<S>>,
    wants: Wants<S>,
    /// Records between two snapshots of a key.
    snapshot_interval: AtomicU64,
    /// Where keys are handed in whose older records are no longer needed; unset where none are dropped.
    compaction: OnceLock<Candidates>,
    /// What is asked of the projector.
    pub(super) orders: Orders,
    /// Where it takes that; until it has come for it.
    inbox: Mutex<Option<Inbox>>,
    event: PhantomData<fn(E)>,
}

/// The values that somebody asked for since the projector looked last. A projection is in it once at most.
struct Wants<S> {
    asked: Mutex<Vec<Arc<Projection<S>>>>,
    came: Notify,
}

struct Instances<S> {
    by_key: HashMap<Key, Arc<Projection<S>>, RandomState>,
    /// Sweep when there are this many.
    sweep_at: usize,
    /// Why no key folds any further, those included that nobody has asked for yet.
    halt: Option<Halt>,
}

/// Where a family's projector stands, for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Every record up to here is folded and published.
    pub(super) covered: Cursor,
    /// How often the values were discarded because the log changed under them.
    pub(super) generation: u64,
    /// The projector follows the log: what is loaded now is complete.
    pub(super) live: bool,
}

impl<E, S> Family<E, S> {
    pub(super) fn new(name: crate::Family, snapshot_interval: u64) -> Self {
        let (orders, inbox) = orders::channel();
        Self {
            orders,
            inbox: Mutex::new(Some(inbox)),
            progress: watch::Sender::new(Progress {
                covered: Cursor::begin(Epoch::default()),
                generation: 0,
                live: false,
            }),
            recent: Box::default(),
            undecodable: Mutex::default(),
            metrics: OfFamily::new(&name),
            instances: RwLock::new(Instances {
                by_key: HashMap::default(),
                sweep_at: VACANT_INSTANCES,
                halt: None,
            }),
            snapshot_interval: AtomicU64::new(snapshot_interval),
            compaction: OnceLock::new(),
            wants: Wants { asked: Mutex::default(), came: Notify::new() },
            event: PhantomData,
            name,
        }
    }

    /// Where the family's projector takes what is asked of it; there is one projector.
    pub(super) fn take_inbox(&self) -> Inbox {
        self.inbox.lock().take().expect("a family has one projector")
    }

    pub(super) fn compacts(&self, candidates: Candidates) {
        // Set once, when the family is declared.
        self.compaction.set(candidates).ok();
    }

    /// A key's previous snapshot covers everything below `before`.
    pub(super) fn compact_later(&self, key: &Key, before: Head) {
        if let Some(candidates) = self.compaction.get() {
            // Where there is no room, its next snapshot brings it again.
            candidates.offer(key, before);
        }
    }

    /// How many records of a key are folded between two snapshots of it.
    pub(super) fn snapshot_interval(&self) -> u64 {
        self.snapshot_interval.load(Ordering::Relaxed)
    }

    pub(super) fn set_snapshot_interval(&self, records: u64) {
        self.snapshot_interval.store(records, Ordering::Relaxed);
    }

    /// Asks for a value, unless it is here or on its way.
    pub(super) fn want(&self, projection: &Arc<Projection<S>>) {
        if projection.becomes_wanted() {
            self.wants.asked.lock().push(projection.clone());
            self.wants.came.notify_one();
        }
    }

    /// Waits until some value is asked for. Cancel-safe.
    pub(super) async fn wanted(&self) {
        self.wants.came.notified().await;
    }

    /// What was asked for since the last time.
    pub(super) fn take_wanted(&self) -> Vec<Arc<Projection<S>>> {
        std::mem::take(&mut *self.wants.asked.lock())
    }

    /// Forgets a projection that is not loaded, unless somebody holds or watches it.
    pub(super) fn forget(&self, projection: Arc<Projection<S>>) {
        let mut instances = self.instances.write();
        // The map's and this one.
        if Arc::strong_count(&projection) <= 2 && !projection.is_watched() && !projection.is_wanted() {
            instances.by_key.remove(&projection.key);
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.progress.borrow().live
    }

    pub(super) fn publish(&self, covered: Cursor, generation: u64, live: bool) {
        self.progress.send_replace(Progress { covered, generation, live });
    }

    /// Wakes everybody who waits for a value of this family, in the order of the keys: who runs first must not depend
    /// on how a map is hashed, or one seed would not give one trace.
    pub(super) fn wake_all(&self) {
        let mut projections = self.projections();
        projections.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        projections.iter().for_each(|projection| projection.wake());
    }

    /// Halts every key that is not halted yet, and those still to come; answers how many it halted.
    pub(super) fn halt_every_key(&self, halt: &Halt) -> usize {
        let mut instances = self.instances.write();
        instances.halt = Some(halt.clone());
        instances.by_key.values().filter(|projection| projection.halt_unless_halted(halt)).count()
    }

    /// Every projection, in no order.
    pub(super) fn projections(&self) -> Vec<Arc<Projection<S>>> {
        self.instances.read().by_key.values().cloned().collect()
    }
}

impl<E, S> Family<E, S> {
    /// The projection of a key, made if there is none.
    pub(super) fn projection(&self, key: &Key) -> Arc<Projection<S>> {
        if let Some(projection) = self.instances.read().by_key.get(key) {
            return projection.clone();
        }
        let mut instances = self.instances.write();
        if instances.by_key.len() >= instances.sweep_at {
            // A projection without a value, a handle, or anybody who waits for a change is the same as none. One with a
            // value is held by the projector.
            let is_in_use = |projection: &Arc<Projection<S>>| {
                Arc::strong_count(projection) > 1 || projection.is_watched()
            };
            instances.by_key.retain(|_, projection| is_in_use(projection));
            instances.sweep_at = instances.by_key.len() * 2 + VACANT_INSTANCES;
        }
        if let Some(projection) = instances.by_key.get(key) {
            return projection.clone();
        }
        let projection = Arc::new(Projection::new(key.clone(), instances.halt.clone()));
        instances.by_key.insert(key.clone(), projection.clone());
        projection
    }
}

/// The identities of the last records taken from the log.
#[derive(Default)]
pub(super) struct Recent(VecDeque<(Offset, RecordId)>);

impl Recent {
    /// Adds records in offset order; `records` is emptied.
    pub(super) fn extend(&mut self, records: &mut Vec<(Offset, RecordId)>) {
        let keep = RECENT_RECORDS.saturating_sub(records.len());
        let excess = self.0.len().saturating_sub(keep);
        self.0.drain(..excess);
        let skip = records.len().saturating_sub(RECENT_RECORDS);
        self.0.extend(records.drain(..).skip(skip));
    }

    pub(super) fn get(&self, offset: Offset) -> Option<RecordId> {
        let index = self.0.binary_search_by_key(&offset, |(at, _)| *at).ok()?;
        Some(self.0[index].1)
    }
}

/// The records this pod has skipped because they do not decode.
#[derive(Default)]
pub(super) struct Skipped {
    pub(super) listed: VecDeque<Undecodable>,
}

impl Skipped {
    /// Lists a record; `false` if it is listed already.
    pub(super) fn note(&mut self, key: &Key, offset: Offset, cause: &str) -> bool {
        if self.listed.iter().any(|listed| listed.offset == offset && listed.key == *key) {
            return false;
        }
        if self.listed.len() == LISTED_UNDECODABLE {
            self.listed.pop_front();
        }
        let cause = cause.chars().take(LISTED_CAUSE).collect();
        self.listed.push_back(Undecodable { key: key.clone(), offset, cause });
        true
    }

    /// Lists a record no longer: its loss was accepted, or it was folded after all.
    pub(super) fn forget(&mut self, key: &Key, offset: Offset) {
        self.listed.retain(|listed| listed.offset != offset || listed.key != *key);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn an_instance_is_forgotten_only_when_nobody_holds_or_watches_it() {
        let family = Family::<(), u32>::new(crate::Family::new("rooms").expect("a valid name"), 64);
        let room = |n: usize| Key::instance(&family.name, n.to_string()).expect("a valid name");
        let held = family.projection(&room(0));
        let mut watched = family.projection(&room(1)).changes();
        for n in 2..3 * VACANT_INSTANCES {
            family.projection(&room(n));
        }
        assert!(family.projections().len() <= VACANT_INSTANCES + 2, "vacant instances are not kept");
        assert!(Arc::ptr_eq(&held, &family.projection(&room(0))));
        family.projection(&room(1)).wake();
        assert_eq!(watched.changed().now_or_never(), Some(true), "who watches an instance hears of it");
    }

    #[test]
    fn recent_keeps_the_last_records_and_finds_them() {
        let mut recent = Recent::default();
        let record = |n: u64| (Offset(n * 2), RecordId([n as u8; 16]));
        for page in 0..5 {
            let mut records = (page * 600..(page + 1) * 600).map(record).collect();
            recent.extend(&mut records);
            assert!(records.is_empty());
        }
        assert_eq!(recent.0.len(), RECENT_RECORDS);
        assert_eq!(recent.get(Offset(2999 * 2)), Some(record(2999).1));
        assert_eq!(recent.get(Offset(2999 * 2 - 1)), None);
        assert_eq!(recent.get(Offset(10)), None);
        let mut many = (3_000..6_000).map(record).collect();
        recent.extend(&mut many);
        assert_eq!((recent.0.len(), recent.0[0].0), (RECENT_RECORDS, Offset((6_000 - 1_024) * 2)));
    }
}
