//! One run: a few pods over one memory, what their clients do, and what has to be true of it.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use parking_lot::Mutex;
use rand::{RngExt as _, rngs::SmallRng};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use via_backplane::{
    Family, Rules,
    fault::{Faults, Kind, Link},
};
use via_inmem::InMemory;

use super::{
    chance,
    faults::{Fault, LIVES},
    history::History,
    invariants,
    pod::{FAMILIES, GRACE, Pod},
    trace::Trace,
    witness::{Copied, Witness},
};

pub(crate) const PODS: usize = 3;
pub(crate) const CLIENTS: usize = 4;
/// Operations per client; together more than the five hundred a run has to have.
const OPERATIONS: u32 = 44;
/// How long a run may take, in its own time.
const AT_MOST: Duration = Duration::from_secs(900);

/// What a run is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) fault: Fault,
    pub(crate) rules: Rules,
}

impl Setup {
    /// Whether records are dropped. Where logs and stores are replaced, every other seed keeps them, and so every state
    /// can be told.
    pub(crate) fn compacts(&self) -> bool {
        self.fault != Fault::Replaced || self.seed % 2 == 1
    }
}

/// What came of it.
pub(crate) struct Run {
    pub(crate) trace: Vec<String>,
    pub(crate) violations: Vec<String>,
    pub(crate) fired: Vec<(Kind, u64)>,
    pub(crate) operations: usize,
}

/// What the parts of a run share.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) start: Instant,
    pub(crate) memory: InMemory,
    pub(crate) witness: Arc<Witness>,
    pub(crate) link: Link,
    /// Each pod's present connection.
    connections: Mutex<Vec<Option<Faults>>>,
    pub(crate) history: Mutex<History>,
    trace: Mutex<Trace>,
    violations: Mutex<Vec<String>>,
    fired: Mutex<Vec<(Kind, u64)>>,
    /// Operations left, by client.
    quotas: Mutex<Vec<u32>>,
    done: Mutex<Vec<bool>>,
    finished: Notify,
}

/// A copy of a log, and when it was taken.
struct Older {
    family: Family,
    since: u64,
    copy: Copied,
}

/// Runs a seed to its end, on this thread and in its own time.
pub(crate) fn run(setup: Setup) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without a driver for sockets").block_on(async {
        let world = Arc::new(World::new(setup));
        if timeout(AT_MOST, world.live()).await.is_err() {
            world.violation("the run did not end");
        }
        world.report()
    })
}

impl World {
    fn new(setup: Setup) -> Self {
        let start = Instant::now();
        Self {
            setup,
            start,
            memory: InMemory::builder().seed(setup.seed).silent_compaction().build(),
            witness: Arc::default(),
            link: Link::new(),
            connections: Mutex::new(vec![None; PODS + 1]),
            history: Mutex::default(),
            trace: Mutex::new(Trace::new(start)),
            violations: Mutex::default(),
            fired: Mutex::new(Kind::ALL.map(|kind| (kind, 0)).to_vec()),
            quotas: Mutex::new(vec![OPERATIONS; PODS * CLIENTS]),
            done: Mutex::new(vec![false; PODS * CLIENTS]),
            finished: Notify::new(),
        }
    }

    async fn live(self: &Arc<Self>) {
        let lives = join_all((0..PODS).map(|pod| self.pod_lives(pod)));
        let pods = tokio::select! {
            biased;
            pods = lives => pods,
            () = self.disturb() => unreachable!("disturbances go on for ever"),
        };
        self.link.restore();
        self.connections.lock().iter().flatten().for_each(Faults::resume);
        let pods = self.let_nobody_stop_any_more(pods).await;
        let judge = Pod::start(self, PODS, LIVES);
        if self.setup.fault == Fault::Replaced {
            // A log that was put back looks like one that lags until somebody appends to it.
            judge.append_to_each_family(self).await;
        }
        invariants::check(self, &pods, &judge).await;
        for pod in pods.into_iter().chain([judge]) {
            pod.shut_down(self).await;
        }
    }

    /// A pod lives, crashes and lives again until every client is done.
    async fn pod_lives(self: &Arc<Self>, index: usize) -> Pod {
        let mut rng = chance::stream(self.setup.seed, &[2, index as u64]);
        let mut life = 0;
        loop {
            let pod = Pod::start(self, index, life);
            pod.start_clients(self);
            tokio::select! {
                biased;
                () = pod.stopped() => {}
                () = self.everybody_is_done() => return pod,
            }
            // A pod that has stopped lingers: its tasks that need no backplane go on for a while.
            sleep(Duration::from_millis(rng.random_range(0..200))).await;
            pod.crash(self).await;
            sleep(Duration::from_millis(rng.random_range(1..500))).await;
            life += 1;
        }
    }

    /// Pods whose plan still has a stop ahead of them are replaced by ones that have none.
    async fn let_nobody_stop_any_more(self: &Arc<Self>, pods: Vec<Pod>) -> Vec<Pod> {
        let mut lasting = Vec::new();
        for pod in pods {
            if self.setup.fault.kinds().contains(&Kind::Stop) && pod.name().life < LIVES {
                let index = pod.name().index;
                pod.crash(self).await;
                lasting.push(Pod::start(self, index, LIVES));
            } else {
                lasting.push(pod);
            }
        }
        lasting
    }

    /// What happens to the backend itself, for as long as it is waited for.
    async fn disturb(&self) {
        let mut rng = chance::stream(self.setup.seed, &[3]);
        let mut copy = None;
        loop {
            sleep(Duration::from_millis(rng.random_range(200..900))).await;
            if self.setup.fault.interrupts() {
                self.trace("backend", "goes away");
                self.link.interrupt();
                sleep(Duration::from_millis(rng.random_range(1..400))).await;
                self.link.restore();
                self.trace("backend", "is back");
            }
            if self.setup.fault.pauses() {
                self.pause_a_pod(&mut rng).await;
            }
            if self.setup.fault == Fault::Replaced {
                self.replace(&mut copy, &mut rng).await;
            }
        }
    }

    /// A pod stands still for so long that records it has not seen are dropped.
    async fn pause_a_pod(&self, rng: &mut SmallRng) {
        let index = rng.random_range(0..PODS);
        let Some(paused) = self.connections.lock()[index].clone() else { return };
        self.trace("pod", format!("{index} stands still"));
        paused.pause();
        sleep(GRACE.mul_f64(rng.random_range(0.5..2.5))).await;
        paused.resume();
        self.trace("pod", format!("{index} goes on"));
    }

    async fn replace(&self, copy: &mut Option<Older>, rng: &mut SmallRng) {
        let name = FAMILIES[rng.random_range(0..FAMILIES.len())];
        let family = Family::new(name).expect("a valid name");
        if rng.random_bool(0.25) {
            self.trace("backend", "recreates the store");
            self.memory.recreate_store();
            return self.history.lock().replace_store();
        }
        match (rng.random_range(0..3), copy.take()) {
            (0, _) => {
                self.trace("backend", format!("recreates {family}"));
                self.witness.recreate_log(&self.memory, &family);
                self.history.lock().replace_log(family, 0);
            }
            (1, Some(older)) => {
                self.trace("backend", format!("restores {}", older.family));
                self.witness.restore_log(&self.memory, &older.family, &older.copy);
                self.history.lock().replace_log(older.family, older.since);
            }
            (_, Some(older)) => *copy = Some(older),
            (_, None) => {
                let since = self.history.lock().now();
                let taken = self.witness.copy_log(&self.memory, &family).await;
                *copy = Some(Older { since, copy: taken, family });
            }
        }
    }

    /// A pod has a new connection.
    pub(crate) fn connect(&self, index: usize, faults: Faults) {
        self.connections.lock()[index] = Some(faults);
    }

    /// Whether a key of this family may be left without a value: its snapshots were lost, or are of a log that was undone,
    /// after records were dropped.
    pub(crate) fn may_halt(&self, family: &Family) -> bool {
        let history = self.history.lock();
        self.setup.compacts() && (history.was_replaced(None) || history.was_replaced(Some(family)))
    }

    /// Takes one of the operations a client has left, if there is one.
    pub(crate) fn take_operation(&self, client: usize) -> bool {
        let mut quotas = self.quotas.lock();
        let has_one = quotas[client] > 0;
        quotas[client] = quotas[client].saturating_sub(1);
        has_one
    }

    /// A client has done its last operation.
    pub(crate) fn client_is_done(&self, client: usize) {
        self.done.lock()[client] = true;
        self.finished.notify_waiters();
    }

    async fn everybody_is_done(&self) {
        loop {
            let finished = self.finished.notified();
            if self.done.lock().iter().all(|done| *done) {
                return;
            }
            finished.await;
        }
    }

    /// A pod's connection is given up: what its plan did is added up.
    pub(crate) fn count(&self, faults: &Faults) {
        self.fired.lock().iter_mut().for_each(|(kind, fired)| *fired += faults.fired(*kind));
    }

    fn report(&self) -> Run {
        let trace = std::mem::replace(&mut *self.trace.lock(), Trace::new(self.start));
        Run {
            trace: trace.into_lines(),
            violations: std::mem::take(&mut *self.violations.lock()),
            fired: self.fired.lock().clone(),
            operations: self.history.lock().attempted,
        }
    }

    pub(crate) fn trace(&self, who: impl std::fmt::Display, what: impl std::fmt::Display) {
        self.trace.lock().add(who, what);
    }

    /// Something is not as it has to be.
    pub(crate) fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        self.trace("VIOLATION", &what);
        self.violations.lock().push(what);
    }
}
