//! Announce, wait, confirm, drop: in this order, whatever happens in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{
    super::{
        ambient::{Monotonic, Simulated},
        bench::Bench,
        map_store::{Counting, Fault, MapStore},
        supervisor::{OnStop, Supervisor},
    },
    *,
};

const GRACE: Duration = Duration::from_secs(60);

fn family() -> Family {
    Family::new("rooms").expect("a valid name")
}

fn room(n: usize) -> Key {
    Key::instance(&family(), n.to_string()).expect("a valid name")
}

fn at(epoch: u128, offset: u64) -> Head {
    Head { epoch: Epoch(epoch), offset: Offset(offset) }
}

/// Manifests, as far as compaction asks them.
#[derive(Default)]
struct Manifests {
    /// What holds a key.
    held: Mutex<BTreeMap<Key, Offset>>,
    failing: Mutex<BTreeSet<Key>>,
    asked: Mutex<Vec<(Key, Offset, Instant)>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Holds for Manifests {
    fn confirm<'a>(
        &'a self,
        key: &'a Key,
        _epoch: Epoch,
        limit: Offset,
    ) -> BoxFuture<'a, Result<Option<Offset>, BoxError>> {
        Box::pin(async move {
            let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
            sleep(Duration::from_millis(10)).await;
            self.at_once.fetch_sub(1, Ordering::Relaxed);
            self.asked.lock().push((key.clone(), limit, Instant::now()));
            if self.failing.lock().contains(key) {
                return Err("the manifest is damaged".into());
            }
            let before = self.held.lock().get(key).map_or(limit, |held| limit.min(*held));
            Ok((before > Offset::BEGIN).then_some(before))
        })
    }
}

struct Stage {
    bench: Arc<Bench>,
    /// Another pod's, of an operator and of consumers.
    control: Control,
    manifests: Arc<Manifests>,
    candidates: Candidates,
    supervisor: Supervisor,
    started: Instant,
}

fn ambient(monotonic: Arc<dyn Monotonic>) -> Ambient {
    Ambient { monotonic, entropy: Arc::new(Counting::from(1)), ..Ambient::system() }
}

fn stage_with(bench: Bench, ambient: Ambient) -> Stage {
    let other = Arc::new(bench.another(|store| store));
    let bench = Arc::new(bench);
    let manifests = Arc::new(Manifests::default());
    let compaction = Compaction::new(bench.clone(), ambient, &family(), manifests.clone(), GRACE);
    let candidates = compaction.candidates();
    let supervisor = Supervisor::new();
    supervisor.spawn("compaction rooms", OnStop::Abort, |_| compaction.run());
    let control = Control::new(other, Arc::new(Counting::from(2)), family());
    Stage { bench, control, manifests, candidates, supervisor, started: Instant::now() }
}

fn stage() -> Stage {
    stage_with(Bench::new(MapStore::new()), ambient(Arc::new(Simulated::default())))
}

impl Stage {
    fn compacted(&self) -> Vec<(Key, Offset)> {
        self.bench.log.compacted()
    }

    /// Returns once so many compactions took place, and says after how long.
    async fn until_compacted(&self, count: usize) -> Duration {
        let patience = Duration::from_secs(3_600);
        let outcome = tokio::time::timeout(patience, self.bench.log.until_compacted(count)).await;
        assert!(outcome.is_ok(), "{:?} after {patience:?}", self.compacted());
        self.started.elapsed()
    }

    async fn ceiling(&self) -> Option<Head> {
        self.control.ceiling().await.expect("readable")
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_was_announced_for_the_grace_period() {
    let stage = stage();
    stage.candidates.offer(&room(1), at(1, 40));
    stage.candidates.offer(&room(2), at(1, 70));
    sleep(Duration::from_secs(59)).await;
    assert_eq!(stage.ceiling().await, Some(at(1, 70)), "it is announced at once");
    assert_eq!(stage.compacted(), [], "and nothing is dropped");
    let waited = stage.until_compacted(2).await;
    assert!((GRACE..GRACE + Duration::from_secs(1)).contains(&waited), "{waited:?}");
    assert_eq!(stage.compacted(), [(room(1), Offset(40)), (room(2), Offset(70))]);
    // What has been public for long enough is waited for no more.
    stage.candidates.offer(&room(3), at(1, 60));
    let waited = stage.until_compacted(3).await;
    assert!(waited < GRACE + Duration::from_secs(2), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_successor_waits_anew() {
    let first = stage();
    first.candidates.offer(&room(1), at(1, 40));
    sleep(Duration::from_secs(50)).await;
    first.supervisor.stop(Duration::ZERO).await.expect("no task failed");
    assert_eq!(first.ceiling().await, Some(at(1, 40)));
    let second = stage_with(first.bench.another(|store| store), ambient(Arc::new(Simulated::default())));
    second.candidates.offer(&room(1), at(1, 40));
    let waited = second.until_compacted(1).await;
    assert!(waited >= GRACE, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_any_length_ends_in_a_confirmation() {
    // The pod is paused while it waits. Meanwhile the cell is lost, and a consumer that starts makes another.
    let stage = stage();
    stage.candidates.offer(&room(1), at(1, 40));
    sleep(Duration::from_secs(1)).await;
    stage.bench.store.remove(&crate::internal_cell(&["control", "rooms"]));
    stage.control.register("ship", None, at(1, 10)).await.expect("registered");
    tokio::time::advance(Duration::from_secs(3_600)).await;
    stage.until_compacted(1).await;
    assert_eq!(stage.compacted(), [(room(1), Offset(10))], "the wait was for another cell");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_behind_the_runtimes_is_waited_for() {
    /// Stands still for its first readings.
    #[derive(Default)]
    struct Lazy {
        runtime: Simulated,
        goes: AtomicBool,
    }
    impl Monotonic for Lazy {
        fn now(&self) -> Duration {
            if self.goes.load(Ordering::Relaxed) { self.runtime.now() } else { Duration::ZERO }
        }
    }
    let clock = Arc::new(Lazy::default());
    let stage = stage_with(Bench::new(MapStore::new()), ambient(clock.clone()));
    stage.candidates.offer(&room(1), at(1, 40));
    sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.compacted(), []);
    clock.goes.store(true, Ordering::Relaxed);
    stage.until_compacted(1).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_dropped_that_a_consumer_needs_until_it_has_moved_on() {
    let stage = stage();
    stage.control.register("ship", None, at(1, 30)).await.expect("registered");
    stage.candidates.offer(&room(1), at(1, 80));
    stage.until_compacted(1).await;
    assert_eq!(stage.compacted(), [(room(1), Offset(30))]);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.compacted().len(), 1, "what has nothing to gain is left alone");
    assert_eq!(stage.manifests.asked.lock().len(), 1);
    // The key need not come again: it is remembered that it could let go of more.
    stage.control.advance("ship", at(1, 50)).await.expect("moved");
    stage.until_compacted(2).await;
    stage.control.forget("ship").await.expect("forgotten");
    stage.until_compacted(3).await;
    let limits: Vec<_> = stage.compacted().iter().map(|(_, before)| before.0).collect();
    assert_eq!(limits, [30, 50, 80]);
    assert!(stage.candidates.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_consumer_of_an_instance_needs_keeps_no_other_instance() {
    let stage = stage();
    stage.control.register("watch", Some("1"), at(1, 30)).await.expect("registered");
    for n in 1..=2 {
        stage.candidates.offer(&room(n), at(1, 80));
    }
    stage.until_compacted(2).await;
    assert_eq!(stage.compacted(), [(room(1), Offset(30)), (room(2), Offset(80))]);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.compacted().len(), 2, "what has nothing to gain is left alone");
    stage.control.advance("watch", at(1, 50)).await.expect("moved");
    stage.until_compacted(3).await;
    stage.control.forget("watch").await.expect("forgotten");
    stage.until_compacted(4).await;
    let limits: Vec<_> = stage.compacted().iter().map(|(_, before)| before.0).collect();
    assert_eq!(limits, [30, 80, 50, 80]);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_compacted_as_far_as_its_manifest_lets() {
    let stage = stage();
    stage.manifests.held.lock().extend([(room(1), Offset(15)), (room(2), Offset::BEGIN)]);
    for n in 1..=3 {
        stage.candidates.offer(&room(n), at(1, 50));
    }
    stage.until_compacted(2).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.compacted(), [(room(1), Offset(15)), (room(3), Offset(50))]);
    assert!(stage.candidates.is_empty(), "a key that is held comes again when it is let go");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_head_is_announced() {
    let stage = stage();
    stage.candidates.offer(&room(1), at(1, 101));
    stage.until_compacted(1).await;
    assert_eq!(stage.ceiling().await, Some(at(1, 100)), "a consumer can still start at the head");
    assert!(stage.candidates.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_fails_is_tried_again_and_stops_no_sibling() {
    let stage = stage();
    stage.manifests.failing.lock().insert(room(1));
    stage.bench.log.fail(&[room(2)]);
    for n in 0..20 {
        stage.candidates.offer(&room(n), at(1, 50));
    }
    let waited = stage.until_compacted(18).await;
    assert!(waited < GRACE + Duration::from_secs(1), "{waited:?}");
    sleep(Duration::from_secs(600)).await;
    let attempts = stage.manifests.asked.lock().iter().filter(|(key, ..)| *key == room(1)).count();
    assert!((10..40).contains(&attempts), "{attempts} in ten minutes");
    stage.manifests.failing.lock().clear();
    stage.bench.log.fail(&[]);
    stage.until_compacted(20).await;
    let keys: BTreeSet<_> = stage.compacted().into_iter().collect();
    assert_eq!(keys.len(), 20, "each once: {:?}", stage.compacted());
}

#[tokio::test(start_paused = true)]
async fn few_keys_are_compacted_at_once() {
    let stage = stage();
    for n in 0..100 {
        stage.candidates.offer(&room(n), at(1, 50));
    }
    stage.until_compacted(100).await;
    assert_eq!(stage.manifests.most_at_once.load(Ordering::Relaxed), CONCURRENCY);
}

#[tokio::test(start_paused = true)]
async fn keys_that_come_all_the_time_do_not_put_off_the_others() {
    let stage = stage();
    stage.bench.log.set_head(1_000_000);
    for n in 0..200 {
        stage.candidates.offer(&room(n % 7), at(1, 100 + n as u64));
        sleep(Duration::from_secs(1)).await;
    }
    // One announcement per grace period, each of the most that was wished until then.
    let times: BTreeSet<_> =
        stage.manifests.asked.lock().iter().map(|(_, _, at)| (*at - stage.started).as_secs()).collect();
    assert!(times.iter().any(|at| *at <= 61) && times.len() >= 3, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_wished_of_another_log_is_nobodys_wish() {
    let stage = stage();
    stage.candidates.offer(&room(1), at(1, 40));
    sleep(Duration::from_secs(30)).await;
    // The log is replaced while the ceiling is waited for; nobody has told the control cell.
    stage.bench.log.recreate(2, 90);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.compacted(), []);
    assert!(stage.candidates.is_empty());
    stage.candidates.offer(&room(1), at(2, 20));
    stage.until_compacted(1).await;
    assert_eq!((stage.compacted(), stage.ceiling().await), (vec![(room(1), Offset(20))], Some(at(2, 20))));
}

#[tokio::test(start_paused = true)]
async fn a_lost_control_cell_halts_compaction_until_it_is_rebuilt() {
    let stage = stage();
    stage.bench.log.set_floor(&room(9), 5);
    stage.candidates.offer(&room(1), at(1, 40));
    sleep(Duration::from_secs(600)).await;
    assert_eq!((stage.compacted(), stage.ceiling().await), (vec![], None));
    stage.control.rebuild().await.expect("rebuilt");
    stage.until_compacted(1).await;
    assert_eq!(stage.compacted(), [(room(1), Offset(40))], "it goes on by itself");
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_is_lost_while_it_is_waited_for_is_noticed_before_anything_is_dropped() {
    let stage = stage();
    stage.candidates.offer(&room(1), at(1, 40));
    sleep(Duration::from_secs(59)).await;
    stage.bench.store.remove(&crate::internal_cell(&["control", "rooms"]));
    // Somebody else announces as much at once, and waits as well.
    stage.control.raise(at(1, 40)).await.expect("raised");
    let waited = stage.until_compacted(1).await;
    assert!(waited >= GRACE * 2, "announced anew, and waited for anew: {waited:?}");
    assert_eq!(stage.ceiling().await, Some(at(1, 40)));
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_store_at_any_call_drops_nothing_early_and_is_survived() {
    for fault in [Fault::LoseAck, Fault::LoseRequest, Fault::Fail, Fault::Lag] {
        for call in 0..8 {
            let bench = Bench::new(MapStore::new().script(call, fault));
            let stage = stage_with(bench, ambient(Arc::new(Simulated::default())));
            stage.candidates.offer(&room(1), at(1, 40));
            let waited = stage.until_compacted(1).await;
            assert!(waited >= GRACE, "{fault:?} at {call}: {waited:?}");
            stage.candidates.offer(&room(2), at(1, 30));
            stage.until_compacted(2).await;
            assert_eq!(stage.compacted(), [(room(1), Offset(40)), (room(2), Offset(30))]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_backplane() {
    let stage = stage();
    stage.bench.close().await;
    stage.candidates.offer(&room(1), at(1, 40));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.supervisor.tasks(), 0, "{:?}", stage.supervisor.names());
}

#[cfg(feature = "testing")]
mod without_its_rules {
    use super::{super::super::ambient::Rules, *};

    fn stage(rules: Rules) -> Stage {
        let ambient = Ambient { rules, ..ambient(Arc::new(Simulated::default())) };
        stage_with(Bench::new(MapStore::new()), ambient)
    }

    #[tokio::test(start_paused = true)]
    async fn records_are_dropped_before_anybody_could_know() {
        let stage = stage(Rules { announce_ceiling: false, ..Rules::ALL });
        stage.candidates.offer(&room(1), at(1, 40));
        let waited = stage.until_compacted(1).await;
        assert!(waited < Duration::from_secs(1), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn records_are_dropped_that_a_consumer_needs() {
        let stage = stage(Rules { confirm_by_cas: false, ..Rules::ALL });
        stage.candidates.offer(&room(1), at(1, 40));
        sleep(Duration::from_secs(59)).await;
        stage.bench.store.remove(&crate::internal_cell(&["control", "rooms"]));
        stage.control.register("ship", None, at(1, 10)).await.expect("registered");
        stage.until_compacted(1).await;
        assert_eq!(stage.compacted(), [(room(1), Offset(40))]);
    }
}
