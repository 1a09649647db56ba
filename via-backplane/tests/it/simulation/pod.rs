//! One pod: an engine over its own connection, its handles, and the clients that use them.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::RngExt as _;
use via_backplane::{
    Backplane, Cell, Engine, Events, OnStop,
    fault::{Faults, Faulty, Plan},
};

use super::{
    chance::{self, Dice, SkewedClock},
    facts::{Fact, Noted, Tally, Traded},
    workload::Client,
    world::{CLIENTS, PODS, World},
};

pub(crate) type Handle<E> = Events<E, <E as Fact>::Book>;

/// The families of the simulated app: the first two hold notes, the last one stocks.
pub(crate) const FAMILIES: [&str; 3] = ["notes", "talk", "stock"];
/// How long what is to be dropped is announced: G of PROTOCOL §2, short beside a run.
pub(crate) const GRACE: Duration = Duration::from_millis(1_500);
/// Records of a key between two snapshots, and the least time: every key has several in a run.
const SNAPSHOTS: (u64, Duration) = (6, Duration::from_millis(100));
/// Instances a pod keeps: fewer than there are, so that some are always on their way in or out.
const RESIDENT: usize = 4;
/// How long a shutdown may take.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A pod, from its start to its crash or shutdown.
pub(crate) struct Pod {
    name: Name,
    engine: Engine,
    faults: Faults,
    pub(crate) states: Arc<States>,
}

/// Which pod, and which of its lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    pub(crate) index: usize,
    pub(crate) life: u64,
}

/// A pod's handles, and what its readers have seen.
pub(crate) struct States {
    pub(crate) engine: Engine,
    pub(crate) notes: Vec<Handle<Noted>>,
    pub(crate) stocks: Vec<Handle<Traded>>,
    pub(crate) tally: Cell<Tally>,
    pub(crate) theme: Cell<u32>,
    pub(crate) seen: Mutex<Seen>,
    /// At most one client waits for a family's progress at a time: tokio wakes those who wait for one `watch` in an
    /// order it draws itself, and a seed would no longer decide who comes first.
    pub(crate) waiting: [tokio::sync::Mutex<()>; FAMILIES.len()],
}

/// The last thing readers of this pod saw of each value.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) books: BTreeMap<String, (u64, usize, u64)>,
    pub(crate) cells: BTreeMap<String, (u64, usize)>,
}

impl Pod {
    /// Starts an engine. The pod after the last one has a connection without faults: it is the judge.
    pub(crate) fn start(world: &Arc<World>, index: usize, life: u64) -> Self {
        let setup = world.setup;
        let name = Name { index, life };
        let purpose = |what: u64| chance::stream(setup.seed, &[what, index as u64, life]);
        let plan =
            if index == PODS { Plan::none() } else { setup.fault.plan(setup.seed, index as u64, life) };
        let faulty = Faulty::new(Arc::new(world.witness.over(&world.memory)), plan, &world.link);
        let faults = faulty.faults();
        world.connect(index, faults.clone());
        let skew = Duration::from_millis(purpose(4).random_range(0..5_000));
        let mut builder = Engine::builder(Arc::new(faulty) as Arc<dyn Backplane>)
            .with_snapshot_interval(SNAPSHOTS.0)
            .with_snapshot_pause(SNAPSHOTS.1)
            .with_compaction_grace(GRACE)
            .with_resident_instances(RESIDENT)
            .clock(SkewedClock::new(world.start, skew))
            .entropy(Dice::new(purpose(5)))
            .rules(setup.rules)
            .deterministic();
        if !setup.compacts() {
            builder = builder.keep_history();
        }
        let engine = builder.start();
        world.trace(name, "starts");
        Self { name, states: Arc::new(States::of(&engine)), engine, faults }
    }

    pub(crate) fn start_clients(&self, world: &Arc<World>) {
        for number in 0..CLIENTS {
            let client = Client::new(world.clone(), self.states.clone(), self.name, number);
            self.engine.supervisor().spawn(format!("client {number}"), OnStop::Abort, |_| client.run());
        }
    }

    pub(crate) async fn append_to_each_family(&self, world: &Arc<World>) {
        let mut client = Client::new(world.clone(), self.states.clone(), self.name, 0);
        for notes in &self.states.notes {
            client.append_to(notes.clone()).await;
        }
        client.restock(self.states.stocks[0].clone()).await;
    }

    pub(crate) fn name(&self) -> Name {
        self.name
    }

    /// Answers once the pod's plan has stopped it.
    pub(crate) async fn stopped(&self) {
        self.faults.stopped().await;
    }

    /// Drops every task where it is.
    pub(crate) async fn crash(self, world: &World) {
        world.trace(self.name, "crashes");
        self.engine.supervisor().kill().await;
        self.assert_no_task_is_left(world, "a crash");
        world.count(&self.faults);
    }

    pub(crate) async fn shut_down(self, world: &World) {
        world.trace(self.name, "shuts down");
        if let Err(fault) = self.engine.shutdown(SHUTDOWN).await {
            world.violation(format!("{}: {fault}", self.name));
        }
        self.assert_no_task_is_left(world, "shutdown");
        world.count(&self.faults);
    }

    fn assert_no_task_is_left(&self, world: &World, after: &str) {
        let supervisor = self.engine.supervisor();
        if supervisor.tasks() > 0 {
            world.violation(format!("{}: tasks left after {after}: {:?}", self.name, supervisor.names()));
        }
    }
}

impl States {
    fn of(engine: &Engine) -> Self {
        let [notes, talk, stock] = FAMILIES;
        let notes = engine.events::<Noted, _>(notes).expect("a valid declaration");
        let talk = engine.events::<Noted, _>(talk).expect("a valid declaration");
        let stock = engine.events::<Traded, _>(stock).expect("a valid declaration");
        let instance = |name: &str| notes.instance(name).expect("a valid name");
        Self {
            notes: ["a", "b", "c", "d", "e"].map(instance).into_iter().chain([notes.clone(), talk]).collect(),
            stocks: ["x", "y"].map(|name| stock.instance(name).expect("a valid name")).into(),
            tally: engine.cell("tally").expect("a valid declaration"),
            theme: engine.cell("theme").expect("a valid declaration"),
            engine: engine.clone(),
            seen: Mutex::default(),
            waiting: Default::default(),
        }
    }

    /// A cell that is declared only when somebody needs it: on most pods, long after the watch began.
    pub(crate) fn late_tally(&self) -> Cell<Tally> {
        self.engine.cell("late").expect("a valid declaration")
    }

    pub(crate) fn turn_to_wait(&self, family: &str) -> &tokio::sync::Mutex<()> {
        let index = FAMILIES.iter().position(|name| *name == family).expect("a family of this app");
        &self.waiting[index]
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}.{}", self.index, self.life)
    }
}
