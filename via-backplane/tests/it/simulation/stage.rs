//! A small stage for scenarios written by hand: a memory, pods on it, and what each of them shows.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::timeout;
use via_backplane::{
    Backplane, Builder, Cell, Engine, Family, Key, Offset, Rules, Waited,
    fault::{Faults, Faulty, Link, Plan},
};
use via_inmem::InMemory;

use super::{
    chance::{self, Dice},
    facts::{Book as _, Noted, Tag, Tally},
    pod::Handle,
};

/// So small that a state of some lines has chunks of its own.
const MAX_CELL: usize = 4_096;
/// How long what is to be dropped is announced.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// How long a pod may take to show what is stored, in the scenario's own time.
const CONVERGES_WITHIN: Duration = Duration::from_secs(60);

/// One memory, and the way to it.
pub(crate) struct Stage {
    pub(crate) memory: InMemory,
    pub(crate) link: Link,
    rules: Rules,
}

/// One pod on it.
pub(crate) struct Actor {
    pub(crate) engine: Engine,
    pub(crate) notes: Handle<Noted>,
    pub(crate) tally: Cell<Tally>,
    pub(crate) faults: Faults,
}

impl Stage {
    /// A pod that follows what it is asked about.
    pub(crate) async fn enter(&self, seed: u64) -> Actor {
        let actor = self.enter_with(seed, Plan::seeded(seed));
        actor.notes.loaded().await;
        actor.tally.loaded().await;
        actor
    }

    /// A pod whose connection has a plan, and that may not have loaded anything yet.
    pub(crate) fn enter_with(&self, seed: u64, plan: Plan) -> Actor {
        self.enter_as(seed, plan, |builder| builder)
    }

    /// A pod that writes snapshots of every four records, and drops what they cover.
    pub(crate) fn enter_saving(&self, seed: u64, plan: Plan) -> Actor {
        let saving = |builder: Builder| {
            builder
                .with_snapshot_interval(4)
                .with_snapshot_pause(Duration::from_millis(10))
                .with_compaction_grace(GRACE)
        };
        self.enter_as(seed, plan, saving)
    }

    pub(crate) fn enter_as(&self, seed: u64, plan: Plan, with: impl FnOnce(Builder) -> Builder) -> Actor {
        let faulty = Faulty::new(Arc::new(self.memory.clone()), plan, &self.link);
        let faults = faulty.faults();
        let builder = Engine::builder(Arc::new(faulty) as Arc<dyn Backplane>)
            .entropy(Dice::new(chance::stream(seed, &[])))
            .rules(self.rules)
            .deterministic();
        let engine = with(builder).start();
        let notes = engine.events("notes").expect("a valid declaration");
        let tally = engine.cell("tally").expect("a valid declaration");
        Actor { engine, notes, tally, faults }
    }

    /// How far the notes were dropped.
    pub(crate) async fn floor(&self) -> Offset {
        let compactor = self.memory.compactor().expect("memory compacts");
        compactor.floor(&Key::of(&self.family())).await.expect("memory answers")
    }

    pub(crate) fn family(&self) -> Family {
        Family::new("notes").expect("a valid name")
    }
}

impl Actor {
    /// Appends without an id. Whether it was acknowledged says nothing about the log.
    pub(crate) async fn append(&self, op: u32) -> bool {
        self.notes.append(Noted { tag: Tag { op, index: 0 } }).await.is_ok()
    }

    /// Appends one after the other, each after the one before was folded here.
    pub(crate) async fn append_all(&self, ops: std::ops::Range<u32>) {
        for op in ops {
            let note = Noted { tag: Tag { op, index: 0 } };
            let position = self.notes.append(note).await.expect("nothing goes wrong with it");
            assert_eq!(self.notes.wait_for(&position, CONVERGES_WITHIN).await, Waited::Reached);
        }
    }

    /// The operations whose notes this pod shows now.
    pub(crate) fn shown(&self) -> Option<Vec<u32>> {
        self.notes.read().map(|view| view.lines().iter().map(|line| line.tag.op).collect())
    }

    pub(crate) async fn count(&self, op: u32) -> bool {
        let counted = self.tally.update(|tally| {
            tally.ops.push(op);
            Ok::<_, ()>(())
        });
        counted.await.is_ok()
    }

    /// The operations whose notes this pod shows, once these are the expected ones, or after a long time.
    pub(crate) async fn shows(&self, expected: &[u32]) -> Result<(), String> {
        let shown =
            || self.notes.read().map(|view| view.lines().iter().map(|line| line.tag.op).collect::<Vec<_>>());
        let mut changes = self.notes.changes();
        let converges = async {
            while shown().as_deref() != Some(expected) {
                changes.changed().await;
            }
        };
        let converged = timeout(CONVERGES_WITHIN, converges).await;
        converged.map_err(|_| format!("the pod shows {:?}, the log holds {expected:?}", shown()))
    }

    pub(crate) fn holds(&self, expected: &[u32]) -> Result<(), String> {
        let held = self.tally.read().map(|tally| tally.ops.clone()).unwrap_or_default();
        if held == expected { Ok(()) } else { Err(format!("the cell holds {held:?}")) }
    }

    pub(crate) async fn leave(self) {
        self.engine.shutdown(Duration::from_secs(5)).await.expect("no task has failed");
        assert_eq!(self.engine.supervisor().tasks(), 0, "{:?}", self.engine.supervisor().names());
    }
}

/// Plays a scenario in its own time.
pub(crate) fn play<F: Future>(rules: Rules, scenario: impl FnOnce(Stage) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let stage = Stage {
        memory: InMemory::builder().seed(1).max_cell(MAX_CELL).silent_compaction().build(),
        link: Link::new(),
        rules,
    };
    runtime.expect("a runtime without a driver for sockets").block_on(scenario(stage))
}
