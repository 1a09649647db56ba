//! Whatever is appended, saved, dropped, restarted, upgraded and paused in whatever order: every pod ends at the pure fold of the
//! whole history.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use via_backplane::{
    Backplane, Engine, Event, Events, Fold, Recorded, Rules,
    fault::{Faults, Faulty, Link, Plan},
    state,
};
use via_inmem::InMemory;

const PATIENCE: Duration = Duration::from_secs(600);
const GRACE: Duration = Duration::from_millis(20);
const INSTANCES: usize = 3;
const PODS: usize = 2;

/// What the first version of the app appends, and what it makes of it.
#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "history.added")]
struct AddedV1 {
    by: u64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct SumsV1(Vec<u64>);

impl Fold<SumsV1> for AddedV1 {
    fn fold(self, sums: &mut SumsV1, _at: &Recorded) {
        sums.0.push(self.by);
    }
}

/// What the second version does.
#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "history.added", version = 2, upcast = AddedV1)]
struct Added {
    amount: u64,
    unit: String,
}

impl From<AddedV1> for Added {
    fn from(AddedV1 { by }: AddedV1) -> Self {
        Self { amount: by, unit: String::new() }
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Sums {
    amounts: Vec<u64>,
}

impl From<SumsV1> for Sums {
    fn from(SumsV1(amounts): SumsV1) -> Self {
        Self { amounts }
    }
}

#[state(version = 2, migrate(1 = SumsV1))]
impl Fold<Sums> for Added {
    fn fold(self, sums: &mut Sums, _at: &Recorded) {
        sums.amounts.push(self.amount);
    }
}

#[derive(Debug, Clone, Copy)]
enum Version {
    Old,
    New,
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        pod: usize,
        instance: usize,
        records: u64,
    },
    Read {
        pod: usize,
        instance: usize,
    },
    /// Time for snapshots, and where it is long enough, for what they cover to be dropped.
    Rest(u64),
    Pause(usize),
    Resume(usize),
    /// The pod crashes and starts again, as this version.
    Restart(usize, Version),
}

fn any_step() -> impl Strategy<Value = Step> {
    let version = prop_oneof![Just(Version::Old), Just(Version::New)];
    prop_oneof![
        5 => (0..PODS, 0..INSTANCES, 1..4_u64)
            .prop_map(|(pod, instance, records)| Step::Append { pod, instance, records }),
        2 => (0..PODS, 0..INSTANCES).prop_map(|(pod, instance)| Step::Read { pod, instance }),
        4 => (1..80_u64).prop_map(Step::Rest),
        1 => (0..PODS).prop_map(Step::Pause),
        1 => (0..PODS).prop_map(Step::Resume),
        2 => (0..PODS, version).prop_map(|(pod, version)| Step::Restart(pod, version)),
    ]
}

enum Handles {
    Old(Vec<Events<AddedV1, SumsV1>>),
    New(Vec<Events<Added, Sums>>),
}

struct Pod {
    engine: Engine,
    faults: Faults,
    handles: Handles,
    is_paused: bool,
}

impl Pod {
    fn start(memory: &InMemory, version: Version) -> Self {
        let faulty = Faulty::new(Arc::new(memory.clone()), Plan::seeded(1), &Link::new());
        let faults = faulty.faults();
        let engine = Engine::builder(Arc::new(faulty) as Arc<dyn Backplane>)
            .with_snapshot_interval(2)
            .with_snapshot_pause(Duration::from_millis(1))
            .with_compaction_grace(GRACE)
            .with_resident_instances(2)
            .rules(Rules::ALL)
            .deterministic()
            .start();
        let handles = match version {
            Version::Old => Handles::Old(instances(&engine)),
            Version::New => Handles::New(instances(&engine)),
        };
        Self { engine, faults, handles, is_paused: false }
    }

    async fn append(&self, instance: usize, amounts: std::ops::Range<u64>) {
        match &self.handles {
            Handles::Old(sums) => {
                sums[instance].append_batch(amounts.map(|by| AddedV1 { by })).await.expect("memory takes it");
            }
            Handles::New(sums) => {
                let added = amounts.map(|amount| Added { amount, unit: "m".to_owned() });
                sums[instance].append_batch(added).await.expect("memory takes it");
            }
        }
    }

    fn read(&self, instance: usize) -> Option<Vec<u64>> {
        match &self.handles {
            Handles::Old(sums) => sums[instance].read().map(|sums| sums.0.clone()),
            Handles::New(sums) => sums[instance].read().map(|sums| sums.amounts.clone()),
        }
    }
}

fn instances<E: Event + Fold<S>, S: via_backplane::FoldState>(engine: &Engine) -> Vec<Events<E, S>> {
    let family = engine.events::<E, S>("sums").expect("a valid declaration");
    (0..INSTANCES).map(|n| family.instance(n.to_string()).expect("a valid name")).collect()
}

async fn play(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let memory = InMemory::builder().seed(1).silent_compaction().build();
    let mut pods: Vec<_> = (0..PODS).map(|_| Pod::start(&memory, Version::Old)).collect();
    let mut history = vec![Vec::new(); INSTANCES];
    let mut next = 0;
    for step in steps {
        match step {
            Step::Append { pod, .. } if pods[pod].is_paused => {}
            Step::Append { pod, instance, records } => {
                pods[pod].append(instance, next..next + records).await;
                history[instance].extend(next..next + records);
                next += records;
            }
            Step::Read { pod, instance } => {
                if let Some(shown) = pods[pod].read(instance) {
                    prop_assert!(
                        history[instance].starts_with(&shown),
                        "{shown:?} of {:?}",
                        history[instance]
                    );
                }
            }
            Step::Rest(millis) => sleep(Duration::from_millis(millis)).await,
            Step::Pause(pod) => {
                pods[pod].is_paused = true;
                pods[pod].faults.pause();
            }
            Step::Resume(pod) => {
                pods[pod].is_paused = false;
                pods[pod].faults.resume();
            }
            Step::Restart(pod, version) => {
                pods[pod].engine.supervisor().kill().await;
                pods[pod] = Pod::start(&memory, version);
            }
        }
    }
    for pod in &mut pods {
        if let Handles::Old(_) = pod.handles {
            pod.engine.supervisor().kill().await;
            *pod = Pod::start(&memory, Version::New);
        }
        pod.faults.resume();
    }
    pods.push(Pod::start(&memory, Version::New));
    for (number, pod) in pods.iter().enumerate() {
        let Handles::New(sums) = &pod.handles else { unreachable!("every pod is new by now") };
        for (sums, history) in sums.iter().zip(&history) {
            let mut changes = sums.changes();
            let ends = async {
                while sums.read().is_none_or(|sums| sums.amounts != *history) {
                    changes.changed().await;
                }
            };
            let ended = timeout(PATIENCE, ends).await;
            let (shown, status) = (sums.read(), sums.status());
            prop_assert!(
                ended.is_ok(),
                "pod {number} shows {:?}, the history of {} is {history:?}: {status:?}",
                shown.map(|sums| sums.amounts.clone()),
                sums.key(),
            );
        }
    }
    for pod in &pods {
        pod.engine.supervisor().kill().await;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_pod_ends_at_the_fold_of_the_whole_history(steps in prop::collection::vec(any_step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime without a driver for sockets").block_on(play(steps))?;
    }
}
