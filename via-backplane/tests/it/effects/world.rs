//! One run: three pods, a consumer that all of them would run, and a judge whose connection has no faults. In some runs every pod comes back
//! with a new version of the consumer, which takes the old one's place.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use parking_lot::Mutex;
use rand::{RngExt as _, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use via_backplane::{
    Backplane, ConsumerError, ConsumerRunning, Delivery, Engine, Event, Events, Fold, Offset, Recorded,
    Rules, Standing, Which,
    fault::{Faults, Faulty, Kind, Link, Plan},
};
use via_inmem::InMemory;

use super::ledger::{Ledger, Pod};
use crate::simulation::{
    chance::{self, Dice, SkewedClock},
    trace::Trace,
};

const PODS: u64 = 3;
/// Events that a run appends.
const EVENTS: u64 = 200;
const INSTANCES: u64 = 6;
/// Attempts of an event before it is given up.
const MOST_ATTEMPTS: u32 = 4;
const LEASE: Duration = Duration::from_secs(5);
/// How long what is to be dropped is announced.
const GRACE: Duration = Duration::from_secs(2);
/// Lives of a pod that end by a crash; the next one lasts.
const LIVES: u64 = 2;
/// How long a run may take, in its own time.
const AT_MOST: Duration = Duration::from_secs(1_800);

/// The consumer, and its new version.
const SHIP: &str = "ship";
const SHIP_2: &str = "ship-2";
/// What the new version's terms are told by.
const FIRST_OF_SHIP_2: u64 = 1_000_000;

/// One order; every now and then one that nobody can ship.
#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event(name = "test.placed")]
pub(super) struct Placed {
    number: u64,
    is_broken: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Orders(u64);

impl Fold<Orders> for Placed {
    fn fold(self, orders: &mut Orders, _at: &Recorded) {
        orders.0 += 1;
    }
}

/// What a run is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) seed: u64,
    pub(super) rules: Rules,
    /// Pods come back with a new version.
    pub(super) succeeds: bool,
}

impl Setup {
    /// What a pod runs in this life.
    fn consumer(self, life: u64) -> &'static str {
        if self.succeeds && life > 0 { SHIP_2 } else { SHIP }
    }

    /// What runs in the end.
    fn last(self) -> &'static str {
        self.consumer(LIVES)
    }
}

/// What came of it.
pub(super) struct Run {
    pub(super) trace: Vec<String>,
    pub(super) violations: Vec<String>,
    /// Crashes, pauses and outages.
    pub(super) disturbances: u64,
    pub(super) attempts: usize,
    pub(super) letters: usize,
    /// Both versions were given something.
    pub(super) has_succeeded: bool,
}

struct World {
    setup: Setup,
    memory: InMemory,
    link: Link,
    start: Instant,
    ledger: Arc<Mutex<Ledger>>,
    trace: Arc<Mutex<Trace>>,
    connections: Mutex<Vec<Option<Faults>>>,
    disturbances: Mutex<u64>,
    /// Redriven events come beside the others, and out of order.
    is_redriving: Arc<Mutex<bool>>,
}

/// Runs a seed to its end, on this thread and in its own time.
pub(super) fn run(setup: Setup) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without a driver for sockets").block_on(async {
        let world = World::new(setup);
        let letters = match timeout(AT_MOST, world.live()).await {
            Ok(letters) => letters,
            Err(_) => {
                world.violation("the run did not end");
                0
            }
        };
        let mut ledger = world.ledger.lock();
        ledger.check_terms();
        ledger.check_attempts(MOST_ATTEMPTS);
        let trace = std::mem::replace(&mut *world.trace.lock(), Trace::new(world.start));
        Run {
            trace: trace.into_lines(),
            violations: std::mem::take(&mut ledger.violations),
            disturbances: *world.disturbances.lock(),
            attempts: ledger.len(),
            letters,
            has_succeeded: ledger.has_terms_on_both_sides_of(FIRST_OF_SHIP_2),
        }
    })
}

impl World {
    fn new(setup: Setup) -> Self {
        let start = Instant::now();
        Self {
            setup,
            memory: InMemory::builder().seed(setup.seed).silent_compaction().build(),
            link: Link::new(),
            start,
            ledger: Arc::default(),
            trace: Arc::new(Mutex::new(Trace::new(start))),
            connections: Mutex::new(vec![None; PODS as usize]),
            disturbances: Mutex::default(),
            is_redriving: Arc::default(),
        }
    }

    /// Answers how many dead letters there were.
    async fn live(&self) -> usize {
        let judge = self.engine(Arc::new(self.memory.clone()), 99, 0);
        let orders = judge.events::<Placed, Orders>("orders").expect("a valid declaration");
        let written = tokio::select! {
            biased;
            written = async { tokio::join!(self.write(&orders), join_all((0..PODS).map(|pod| self.pod_lives(pod)))) } => written,
            () = self.disturb() => unreachable!("disturbances go on for ever"),
            () = self.watch(&judge) => unreachable!("the judge watches for ever"),
        };
        let ((offsets, broken), pods) = written;
        self.link.restore();
        self.connections.lock().iter().flatten().for_each(Faults::resume);
        self.is_handled_up_to(&judge, &offsets).await;
        let letters = self.judge_letters(&judge, &offsets, &broken).await;
        for (pod, engine) in pods {
            self.trace(pod, "shuts down");
            if let Err(fault) = engine.shutdown(Duration::from_secs(5)).await {
                self.violation(format!("{pod}: {fault}"));
            }
            self.assert_no_task_is_left(pod, &engine);
        }
        self.is_taken_over_and_left(&judge, &orders).await;
        judge.shutdown(Duration::from_secs(5)).await.expect("no task failed");
        letters
    }

    /// Whoever comes when all are gone takes the consumer over, and leaves it to nobody.
    async fn is_taken_over_and_left(&self, judge: &Engine, orders: &Events<Placed, Orders>) {
        let pod = Pod { index: 99, life: 1 };
        let engine = self.engine(Arc::new(self.memory.clone()), pod.index, pod.life);
        let same =
            engine.events::<Placed, Orders>(orders.key().family().as_str()).expect("a valid declaration");
        let name = self.setup.last();
        let consumer =
            same.on_event(name, self.handler(pod, name)).lease(LEASE).await.expect("nothing is in its way");
        let owns = consumer.stands(|standing| matches!(standing, Standing::Owning { .. }));
        if timeout(LEASE * 3 / 2, owns).await.is_err() {
            self.violation("nobody takes over what was left");
        }
        engine.shutdown(Duration::from_secs(5)).await.expect("no task failed");
        match judge.consumer("orders", name).expect("valid names").state().await {
            Ok(state) if state.owner.is_none() && state.running == ConsumerRunning::Active => {}
            other => self.violation(format!("after every pod has left: {other:?}")),
        }
    }

    fn engine(&self, backplane: Arc<dyn Backplane>, pod: u64, life: u64) -> Engine {
        let purpose = |what: u64| chance::stream(self.setup.seed, &[what, pod, life]);
        let skew = Duration::from_millis(purpose(4).random_range(0..5_000));
        Engine::builder(backplane)
            .with_snapshot_interval(8)
            .with_snapshot_pause(Duration::from_millis(200))
            .with_compaction_grace(GRACE)
            .clock(SkewedClock::new(self.start, skew))
            .entropy(Dice::new(purpose(5)))
            .rules(self.setup.rules)
            .deterministic()
            .start()
    }

    /// Appends events, some of which nobody can handle.
    async fn write(&self, orders: &Events<Placed, Orders>) -> (Vec<Offset>, BTreeSet<Offset>) {
        let mut rng = chance::stream(self.setup.seed, &[1]);
        let (mut offsets, mut broken) = (Vec::new(), BTreeSet::new());
        let mut burst = 0;
        for number in 0..EVENTS {
            // In bursts, so that an owner that is cut off has something left to begin.
            if burst == 0 {
                burst = rng.random_range(1..40);
                sleep(Duration::from_millis(rng.random_range(500..8_000))).await;
            }
            burst -= 1;
            let instance = orders.instance(format!("{}", rng.random_range(0..INSTANCES))).expect("valid");
            let is_broken = rng.random_bool(0.02);
            let position =
                instance.append(Placed { number, is_broken }).await.expect("nothing is in its way");
            offsets.push(position.cursor.offset);
            if is_broken {
                broken.insert(position.cursor.offset);
            }
        }
        (offsets, broken)
    }

    /// A pod lives, crashes and lives again; the last life is answered.
    async fn pod_lives(&self, index: u64) -> (Pod, Engine) {
        let mut rng = chance::stream(self.setup.seed, &[2, index]);
        for life in 0.. {
            let pod = Pod { index, life };
            let (engine, faults) = self.start(pod).await;
            if life == LIVES {
                return (pod, engine);
            }
            // Between any two awaits, or, one time in four, by a stop that hands over.
            sleep(Duration::from_millis(rng.random_range(1_000..30_000))).await;
            if rng.random_bool(0.25) {
                self.trace(pod, "shuts down");
                engine.shutdown(Duration::from_secs(5)).await.expect("no task failed");
            } else {
                *self.disturbances.lock() += 1;
                faults.stop();
                timeout(Duration::from_secs(5), faults.stopped()).await.ok(); // One that is idle takes no step.
                sleep(Duration::from_millis(rng.random_range(0..200))).await;
                self.trace(pod, "crashes");
                engine.supervisor().kill().await;
            }
            self.assert_no_task_is_left(pod, &engine);
            sleep(Duration::from_millis(rng.random_range(1..3_000))).await;
        }
        unreachable!("lives are counted")
    }

    async fn start(&self, pod: Pod) -> (Engine, Faults) {
        let mut rng = chance::stream(self.setup.seed, &[3, pod.index, pod.life]);
        let plan = Plan::seeded(rng.random())
            .odds(Kind::Delay, 0.2)
            .max_delay(Duration::from_millis(150))
            .max_staleness(GRACE / 4)
            .odds(Kind::LostAck, 0.04)
            .odds(Kind::LostRequest, 0.02)
            .odds(Kind::LateCommit, 0.02)
            .odds(Kind::Refused, 0.04)
            .odds(Kind::Disconnect, 0.02)
            .odds(Kind::StaleLoad, 0.15);
        let faulty = Faulty::new(Arc::new(self.memory.clone()), plan, &self.link);
        let faults = faulty.faults();
        self.connections.lock()[pod.index as usize] = Some(faults.clone());
        let engine = self.engine(Arc::new(faulty), pod.index, pod.life);
        self.trace(pod, "starts");
        let orders = engine.events::<Placed, Orders>("orders").expect("a valid declaration");
        let concurrency = [1, 1, 3][rng.random_range(0..3_usize)];
        let commit = rng.random_range(1..20_usize);
        let name = self.setup.consumer(pod.life);
        loop {
            let mut on_event = orders
                .on_event(name, self.handler(pod, name))
                .lease(LEASE)
                .max_attempts(MOST_ATTEMPTS)
                .handler_timeout(Duration::from_secs(2))
                .retry_backoff(Duration::from_millis(10), Duration::from_secs(1))
                .commit_every(commit, Duration::from_millis(100))
                .concurrency(concurrency);
            if name == SHIP_2 {
                on_event = on_event.successor_of(SHIP);
            }
            match on_event.await {
                Ok(_) => return (engine, faults),
                Err(ConsumerError::Retired { .. }) if self.setup.succeeds && name == SHIP => {
                    self.trace(pod, "is too old");
                    return (engine, faults);
                }
                // No pod of the old version has come to register it yet.
                Err(ConsumerError::Unknown { .. }) if name == SHIP_2 => self.trace(pod, "is early"),
                Err(error) => self.trace(pod, format!("is not registered: {error}")),
            }
            sleep(Duration::from_millis(rng.random_range(10..200))).await;
        }
    }

    /// Fails now and then, in every way a handler can.
    fn handler(
        &self,
        pod: Pod,
        name: &'static str,
    ) -> impl Fn(Delivery<Placed>) -> futures_util::future::BoxFuture<'static, Result<(), String>>
    + Send
    + Sync
    + use<> {
        let seed = self.setup.seed;
        let (ledger, trace, redriving) = (self.ledger.clone(), self.trace.clone(), self.is_redriving.clone());
        move |delivery: Delivery<Placed>| {
            let Delivery { offset, attempt, .. } = delivery;
            // Whatever the new version begins comes after everything that the old one does.
            let term = if name == SHIP_2 { delivery.term + FIRST_OF_SHIP_2 } else { delivery.term };
            let mut rng = chance::stream(seed, &[6, term, offset.0, u64::from(attempt)]);
            let (ledger, trace) = (ledger.clone(), trace.clone());
            let is_redriven = *redriving.lock();
            Box::pin(async move {
                ledger.lock().begins(pod, &delivery, term, Instant::now(), is_redriven);
                trace.lock().add(pod, format!("begins {offset} in term {term}, attempt {attempt}"));
                let mut run = Attempt { ledger, pod, delivery, is_handled: false };
                let handled = handle(&run.delivery, is_redriven, &mut rng).await;
                run.is_handled = handled.is_ok();
                trace.lock().add(pod, format!("ends {offset}: {handled:?}"));
                handled
            })
        }
    }

    /// What happens to the backend and to pods, for as long as it is waited for.
    async fn disturb(&self) {
        let mut rng = chance::stream(self.setup.seed, &[7]);
        loop {
            sleep(Duration::from_millis(rng.random_range(2_000..12_000))).await;
            *self.disturbances.lock() += 1;
            if rng.random_bool(0.3) {
                self.trace("backend", "goes away");
                self.link.interrupt();
                sleep(Duration::from_millis(rng.random_range(1..8_000))).await;
                self.link.restore();
                self.trace("backend", "is back");
                continue;
            }
            self.pause_a_pod(&mut rng).await;
        }
    }

    async fn pause_a_pod(&self, rng: &mut SmallRng) {
        let index = rng.random_range(0..PODS);
        let Some(paused) = self.connections.lock()[index as usize].clone() else { return };
        self.trace("pod", format!("{index} is cut off"));
        paused.pause();
        sleep(LEASE.mul_f64(rng.random_range(0.2..3.0))).await;
        paused.resume();
        self.trace("pod", format!("{index} goes on"));
    }

    /// Looks at what is committed, over and over: nothing of it may be without an outcome.
    async fn watch(&self, judge: &Engine) {
        let of = |name| judge.consumer("orders", name).expect("valid names");
        let (mut named, mut last) = (of(SHIP), SHIP);
        let log = self.memory.log();
        let orders = judge.events::<Placed, Orders>("orders").expect("a valid declaration");
        let selector = via_backplane::Selector::Family(orders.key().family().clone());
        let mut seen = Offset::BEGIN;
        loop {
            sleep(Duration::from_millis(250)).await;
            let Ok(state) = named.state().await else { continue };
            let committed = state.committed.offset;
            if last == SHIP
                && matches!(of(SHIP_2).state().await, Ok(new) if new.running == ConsumerRunning::Active)
            {
                (named, last) = (of(SHIP_2), SHIP_2);
                continue;
            }
            if committed < seen {
                self.violation(format!("what is committed went back from {seen} to {committed}"));
            }
            let range = via_backplane::ReadRange { after: seen, up_to: committed, limit: 1_000 };
            let passed = log.read(&selector, range).await.expect("memory answers");
            let known = self.dead(judge).await;
            for record in passed.iter() {
                if !self.ledger.lock().is_handled(record.offset) && !known.contains(&record.offset) {
                    self.violation(format!(
                        "{} is committed, and was neither handled nor given up",
                        record.offset
                    ));
                }
            }
            seen = committed;
        }
    }

    /// What either version has given up.
    async fn dead(&self, judge: &Engine) -> BTreeSet<Offset> {
        let mut dead = BTreeSet::new();
        for name in [SHIP, self.setup.last()] {
            let letters = judge.dead_letters("orders", name).expect("valid names").list().await;
            dead.extend(letters.iter().map(|letter| letter.at.offset));
        }
        dead
    }

    /// Waits until everything is committed.
    async fn is_handled_up_to(&self, judge: &Engine, offsets: &[Offset]) {
        let named = judge.consumer("orders", self.setup.last()).expect("valid names");
        let last = *offsets.last().expect("there are events");
        let deadline = Instant::now() + Duration::from_secs(600);
        loop {
            match named.state().await {
                Ok(state) if state.committed.offset >= last => return,
                Ok(_) | Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(250)).await,
                other => return self.violation(format!("it does not come to its end: {other:?}")),
            }
        }
    }

    /// What was given up is what cannot be handled; handled again, it is dead again, and the rest is handled.
    async fn judge_letters(&self, judge: &Engine, offsets: &[Offset], broken: &BTreeSet<Offset>) -> usize {
        // Nobody runs the old version any more, so that its own letters stay.
        let letters = judge.dead_letters("orders", self.setup.last()).expect("valid names");
        sleep(Duration::from_secs(1)).await;
        let dead = self.dead(judge).await;
        for offset in offsets {
            let is_handled = self.ledger.lock().is_handled(*offset);
            if !is_handled && !dead.contains(offset) {
                self.violation(format!("{offset} was neither handled nor given up"));
            }
            if broken.contains(offset) && !dead.contains(offset) {
                self.violation(format!("{offset} cannot be handled, and is not among the dead letters"));
            }
        }
        *self.is_redriving.lock() = true;
        let own = letters.list().await.len();
        let wanted = letters.redrive(Which::All).await.expect("nothing is in its way");
        if wanted != own {
            self.violation(format!("{wanted} letters are wanted again of {own}"));
        }
        let deadline = Instant::now() + Duration::from_secs(600);
        loop {
            let left: BTreeSet<_> = letters.list().await.iter().map(|letter| letter.at.offset).collect();
            let waits = letters.list().await.iter().any(|letter| letter.is_wanted);
            if !waits && left.is_subset(broken) {
                break;
            }
            if Instant::now() > deadline {
                self.violation(format!("redriven letters are left: {left:?}"));
                break;
            }
            sleep(Duration::from_millis(250)).await;
        }
        dead.len()
    }

    fn assert_no_task_is_left(&self, pod: Pod, engine: &Engine) {
        let supervisor = engine.supervisor();
        if supervisor.tasks() > 0 {
            self.violation(format!("{pod}: tasks left: {:?}", supervisor.names()));
        }
    }

    fn trace(&self, who: impl std::fmt::Display, what: impl std::fmt::Display) {
        self.trace.lock().add(who, what);
    }

    fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        self.trace("VIOLATION", &what);
        self.ledger.lock().violations.push(what);
    }
}

/// One run of a handler, which ends when it is dropped, too.
struct Attempt {
    ledger: Arc<Mutex<Ledger>>,
    pod: Pod,
    delivery: Delivery<Placed>,
    is_handled: bool,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.ledger.lock().ends(self.pod, &self.delivery, self.is_handled);
    }
}

async fn handle(delivery: &Delivery<Placed>, is_redriven: bool, rng: &mut SmallRng) -> Result<(), String> {
    if rng.random_bool(0.5) {
        sleep(Duration::from_millis(rng.random_range(1..600))).await;
    }
    if delivery.event.is_broken {
        return Err("it is broken".to_owned());
    }
    match rng.random_range(0..100) {
        _ if is_redriven => Ok(()),
        0..10 => Err("refused".to_owned()),
        10 => {
            std::future::pending::<()>().await;
            Ok(())
        }
        _ => Ok(()),
    }
}
