//! Pods that contend for one consumer, under time that is paused.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{
    Cursor, Epoch, Offset, RecordId, Retry,
    engine::{
        ambient::Simulated,
        bench::Bench,
        map_store::{Counting, Fault, MapStore},
        supervisor::{OnStop, Supervisor},
    },
    internal_cell,
};

const LASTS: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(100_000);

fn cursor(offset: u64) -> Cursor {
    Cursor { epoch: Epoch(1), offset: Offset(offset), id: RecordId([offset as u8; 16]) }
}

/// The pods' common clock, so that what they say of their leases can be compared.
fn ambient(pod: u64) -> Ambient {
    Ambient {
        monotonic: Arc::new(Simulated::default()),
        entropy: Arc::new(Counting::from(pod)),
        ..Ambient::system()
    }
}

struct Pod {
    bench: Arc<Bench>,
    place: Place,
}

impl Pod {
    fn on(bench: Bench, pod: u64, ambient: Ambient) -> Self {
        let bench = Arc::new(bench);
        let place = Place {
            backplane: bench.clone(),
            ambient,
            key: internal_cell(&["consumers", "orders", "ship"]),
            owner: Owner::of(u128::from(pod)),
            lasts: LASTS,
            spread: 10,
            owned: Arc::default(),
        };
        // Every pod's clock begins with the test's.
        place.now();
        Self { bench, place }
    }

    async fn takes(&self) -> Lease {
        let taken = self.place.contend(ConsumerCell::is_active);
        timeout(PATIENCE, taken).await.expect("it is taken").expect("there is a consumer")
    }
}

/// So many pods, numbered from 1, and a consumer that nobody holds.
async fn pods<const N: usize>() -> [Pod; N] {
    pods_in(ambient).await
}

async fn pods_in<const N: usize>(ambient: impl Fn(u64) -> Ambient) -> [Pod; N] {
    let first = Bench::new(MapStore::new());
    let pods = std::array::from_fn(|at| {
        let number = at as u64 + 1;
        Pod::on(first.another(|store| store), number, ambient(number))
    });
    create(&pods[0]).await;
    pods
}

async fn create(pod: &Pod) {
    let (store, entropy) = (pod.bench.store(), &*pod.place.ambient.entropy);
    let of = crate::Selector::Family(crate::Family::new("orders").expect("a valid name"));
    let cell = ConsumerCell::new(&of, cursor(10));
    let created = owned_cell::put_at(store, entropy, &pod.place.key, Expected::Absent, cell).await;
    assert!(matches!(created, Ok(Put::Written(_))), "{created:?}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_holds_is_taken_at_once() {
    let [one] = pods().await;
    let begun = Instant::now();
    let lease = one.takes().await;
    assert_eq!((begun.elapsed(), lease.cell().term), (Duration::ZERO, 1));
    assert_eq!(lease.cell().committed(), cursor(10));
    let late = lease.begins_until() - lease.renews_at();
    assert!(late.abs_diff(LASTS / 3) < Duration::from_millis(1), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn what_its_owner_left_without_a_word_is_taken_after_a_lease_and_one_look() {
    let [one, two] = pods().await;
    let left = one.takes().await;
    let begun = Instant::now();
    let mut lease = two.takes().await;
    assert!((LASTS..=LASTS + LOOK).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!((lease.cell().term, lease.cell().attempts(Offset(11), true)), (2, 1));
    lease.write(|cell| cell.commit(cursor(11))).await.expect("it holds it");
    drop(left);
}

#[tokio::test(start_paused = true)]
async fn an_owner_keeps_it_for_as_long_as_it_was_told_whatever_others_would() {
    let [mut one, two] = pods().await;
    one.place.lasts = LASTS * 3;
    let left = one.takes().await;
    let begun = Instant::now();
    let lease = two.takes().await;
    assert!((LASTS * 3..=LASTS * 3 + LOOK).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!((lease.cell().term, lease.cell().lease()), (2, LASTS), "from now on it is the other one's");
    drop(left);
}

#[tokio::test(start_paused = true)]
async fn what_is_renewed_is_never_taken() {
    let [one, two] = pods().await;
    let mut lease = one.takes().await;
    let renews = async {
        for _ in 0..1_000 {
            sleep(LASTS / 3).await;
            lease.write(|_| {}).await.expect("nobody takes it");
        }
    };
    tokio::select! {
        () = renews => {}
        _ = two.place.contend(ConsumerCell::is_active) => panic!("it was taken from an owner that renews"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_zombies_commit_is_refused_and_it_knows() {
    let [one, two] = pods().await;
    let mut zombie = one.takes().await;
    sleep(LASTS * 10).await;
    // Nobody was there to take it, so it goes on.
    zombie.write(|cell| cell.commit(cursor(11))).await.expect("nobody has taken it");
    let mut lease = two.takes().await;
    let refused = zombie.write(|cell| cell.commit(cursor(12))).await;
    assert!(matches!(refused, Err(Lost::Deposed)), "{refused:?}");
    lease.write(|cell| cell.commit(cursor(12))).await.expect("it holds it");
    assert_eq!(lease.cell().committed(), cursor(12));
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_taken_with_the_next_look() {
    let [one, two] = pods().await;
    let mut lease = one.takes().await;
    let gives_up = async {
        sleep(Duration::from_secs(5)).await;
        lease.write(ConsumerCell::release).await.expect("it holds it");
        Instant::now()
    };
    let (given_up, next) = tokio::join!(gives_up, two.takes());
    assert!(given_up.elapsed() <= LOOK, "{:?}", given_up.elapsed());
    assert_eq!(next.cell().attempts(Offset(11), true), 0, "nobody died");
}

#[tokio::test(start_paused = true)]
async fn who_was_too_late_to_take_it_hears_at_once_that_it_is_given_up() {
    let first = Bench::new(MapStore::new());
    let one = Pod::on(first.another(|store| store), 1, ambient(1));
    create(&one).await;
    // Between its look, which finds it free, and its write.
    let two = Pod::on(first.another(|store| store.script(1, Fault::Pause)), 2, ambient(2));
    let owns = async {
        two.bench.store.paused().await;
        let mut lease = one.takes().await;
        two.bench.store.resume();
        tokio::task::yield_now().await;
        lease.write(ConsumerCell::release).await.expect("it holds it");
        Instant::now()
    };
    let (given_up, next) = tokio::join!(owns, two.takes());
    assert_eq!(next.cell().term, 2);
    assert!(given_up.elapsed() <= SHORTEST_REST * 2, "{:?}", given_up.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_could_not_look_for_a_moment_hears_at_once_that_it_is_given_up() {
    let first = Bench::new(MapStore::new());
    let one = Pod::on(first.another(|store| store), 1, ambient(1));
    create(&one).await;
    let mut lease = one.takes().await;
    let two = Pod::on(first.another(|store| store.script(0, Fault::Fail)), 2, ambient(2));
    let owns = async {
        tokio::task::yield_now().await;
        lease.write(ConsumerCell::release).await.expect("it holds it");
        Instant::now()
    };
    let (next, given_up) = tokio::join!(two.takes(), owns);
    assert_eq!(next.cell().term, 2);
    assert!(given_up.elapsed() <= SHORTEST_REST * 2, "{:?}", given_up.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_owner_keeps_what_somebody_else_has_changed() {
    let [one, two] = pods().await;
    let mut lease = one.takes().await;
    let held = two.place.load().await.expect("it answers").expect("it is there");
    let mut paused = held.value.clone();
    paused.paused = true;
    assert!(matches!(two.place.put(&held, paused).await, Ok(Put::Written(_))));
    let before = lease.renews_at();
    let told = lease.write(|cell| cell.commit(cursor(11))).await;
    assert!(matches!(told, Err(Lost::Changed)), "{told:?}");
    assert!(lease.cell().paused && lease.cell().committed() == cursor(10), "what is there decides");
    assert_eq!(lease.renews_at(), before, "and renews nothing");
    lease.write(ConsumerCell::release).await.expect("it holds it");
    sleep(LASTS).await;
    let nobody = timeout(LASTS * 5, two.place.contend(ConsumerCell::is_active)).await;
    assert!(nobody.is_err(), "a paused consumer is run by nobody");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_consumer_is_nobodys() {
    let [one, two] = pods().await;
    let mut lease = one.takes().await;
    one.bench.store.remove(&one.place.key);
    let refused = lease.write(|_| {}).await;
    assert!(matches!(refused, Err(Lost::Deposed)), "{refused:?}");
    assert!(two.place.contend(ConsumerCell::is_active).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_is_found() {
    for fault in [Fault::LoseAck, Fault::LoseRequest] {
        let first = Bench::new(MapStore::new());
        let pod = Pod::on(first.another(|store| store.script(3, fault)), 1, ambient(1));
        create(&pod).await;
        let mut lease = pod.takes().await;
        lease.write(|cell| cell.commit(cursor(11))).await.expect("it finds out");
        assert_eq!(lease.cell().committed(), cursor(11));
        lease.write(|_| {}).await.expect("and goes on from there");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_takes_nothing_and_nothing_is_lost() {
    let [one] = pods().await;
    let mut lease = one.takes().await;
    one.bench.store.always(Some(Fault::Fail));
    let failed = lease.write(|cell| cell.commit(cursor(11))).await;
    let Err(Lost::Unreached(error)) = failed else { panic!("{failed:?}") };
    assert_eq!((error.retry(), lease.cell().committed()), (Retry::Safe, cursor(10)));
    one.bench.store.always(None);
    lease.write(|cell| cell.commit(cursor(11))).await.expect("it holds it");
    assert_eq!(lease.cell().committed(), cursor(11));
}

/// The store is away for longer than a lease, and back: whether the owner, which renews at once, still holds it.
async fn outlives_an_outage(ambient: impl Fn(u64) -> Ambient) -> bool {
    let [one, two] = pods_in(ambient).await;
    let mut lease = one.takes().await;
    let contends = two.place.contend(ConsumerCell::is_active);
    let owns = async {
        for _ in 0..3 {
            sleep(LASTS / 3).await;
            lease.write(|_| {}).await.expect("nobody takes it");
        }
        // The other one sees the last of them.
        sleep(LOOK * 2).await;
        one.bench.store.always(Some(Fault::Fail));
        two.bench.store.always(Some(Fault::Fail));
        sleep(LASTS * 3).await;
        two.bench.store.always(None);
        // The owner is a moment later.
        sleep(LOOK * 2).await;
        one.bench.store.always(None);
        lease.write(|_| {}).await.is_ok()
    };
    tokio::select! {
        biased;
        _ = contends => false,
        holds = owns => holds,
    }
}

#[tokio::test(start_paused = true)]
async fn only_time_between_looks_that_were_answered_counts() {
    assert!(outlives_an_outage(ambient).await, "nobody could renew meanwhile");
}

/// An owner renews while its successor is about to take what it has timed: whether the owner keeps it.
async fn renews_in_the_last_moment(ambient: impl Fn(u64) -> Ambient) -> bool {
    let first = Bench::new(MapStore::new());
    let one = Pod::on(first.another(|store| store), 1, ambient(1));
    create(&one).await;
    let mut lease = one.takes().await;
    // What follows the look that finds it still for long enough is slow.
    let two = Pod::on(first.another(|store| store.script(11, Fault::Pause)), 2, ambient(2));
    let owns = async {
        two.bench.store.paused().await;
        lease.write(|_| {}).await.expect("nobody has taken it yet");
        two.bench.store.resume();
        sleep(LOOK / 2).await;
        lease.write(|_| {}).await.is_ok()
    };
    tokio::select! {
        biased;
        holds = owns => holds,
        _ = async { let _taken = two.takes().await; std::future::pending::<()>().await } => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_is_what_was_timed() {
    assert!(renews_in_the_last_moment(ambient).await, "it has renewed");
}

#[cfg(feature = "testing")]
mod without_its_rules {
    use super::{super::super::super::ambient::Rules, *};

    fn under(rules: Rules) -> impl Fn(u64) -> Ambient {
        move |pod| Ambient { rules, ..ambient(pod) }
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_loses_its_consumer_while_nobody_can_renew() {
        let off = Rules { count_answered_looks: false, ..Rules::ALL };
        assert!(!outlives_an_outage(under(off)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_renews_loses_its_consumer() {
        let off = Rules { take_what_was_timed: false, ..Rules::ALL };
        assert!(!renews_in_the_last_moment(under(off)).await);
    }
}

/// Who may begin attempts until when, in the order of the terms.
#[derive(Default)]
struct Tenures(Mutex<Vec<(u64, Duration, Duration)>>);

impl Tenures {
    /// Since when is before it was taken: when it was looked at.
    fn note(&self, lease: &Lease) {
        let (term, until, since) = (lease.cell().term, lease.begins_until(), lease.renewed);
        let mut all = self.0.lock();
        match all.iter_mut().find(|(known, ..)| *known == term) {
            Some(found) => found.2 = until,
            None => all.push((term, since, until)),
        }
    }
}

impl Tenures {
    fn ends(&self, term: u64, now: Duration) {
        let mut all = self.0.lock();
        all.iter_mut().filter(|(known, ..)| *known == term).for_each(|found| found.2 = found.2.min(now));
    }
}

/// A number below a bound, of a sequence that its seed decides (SplitMix64).
struct Dice(AtomicU64);

impl Dice {
    fn below(&self, bound: u64) -> u64 {
        let mut number = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % bound
    }
}

/// A pod that takes, renews, stands still, leaves, dies and comes back, on a store that fails now and then.
async fn lives(pod: Pod, tenures: Arc<Tenures>, dice: Dice) {
    let mut last = 0;
    for _ in 0..40 {
        let faulty = match dice.below(8) {
            0 => Some(Fault::Fail),
            1 => Some(Fault::LoseAck),
            2 => Some(Fault::Lag),
            _ => None,
        };
        pod.bench.store.always(faulty);
        let Ok(taken) = timeout(LASTS * 2, pod.place.contend(ConsumerCell::is_active)).await else {
            continue;
        };
        let mut lease = taken.expect("there is a consumer");
        tenures.note(&lease);
        // What it held itself it does not hold twice: its lives follow each other.
        let term = std::mem::replace(&mut last, lease.cell().term);
        if term + 1 == last {
            tenures.ends(term, lease.renewed);
        }
        for _ in 0..dice.below(12) {
            let stands_still = if dice.below(10) == 0 { LASTS * 2 } else { Duration::ZERO };
            sleep(LASTS / 3 + stands_still).await;
            match lease.write(|_| {}).await {
                Ok(()) => tenures.note(&lease),
                Err(Lost::Deposed) => break,
                Err(_) => {}
            }
        }
        if dice.below(2) == 0 {
            // Who gives it up begins nothing any more, whatever comes of the write.
            tenures.ends(lease.cell().term, pod.place.now());
            lease.write(ConsumerCell::release).await.ok();
        }
    }
}

#[test]
fn no_two_owners_may_begin_anything_at_the_same_time() {
    for seed in 0..300 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let tenures = runtime.expect("a runtime").block_on(async {
            let pods = pods::<3>().await;
            let (tenures, supervisor) = (Arc::new(Tenures::default()), Supervisor::new());
            for (at, pod) in pods.into_iter().enumerate() {
                let dice = Dice(AtomicU64::new(seed * 1_000 + at as u64));
                let tenures = tenures.clone();
                supervisor.spawn("pod", OnStop::Drain, |_| async move {
                    lives(pod, tenures, dice).await;
                    Ok(())
                });
            }
            supervisor.stop(PATIENCE).await.expect("no pod failed");
            tenures
        });
        let mut all = std::mem::take(&mut *tenures.0.lock());
        all.sort_unstable_by_key(|(term, ..)| *term);
        assert!(all.len() > 10, "seed {seed}: {} tenures", all.len());
        for pair in all.windows(2) {
            let [(before, _, until), (after, since, _)] = pair else { unreachable!("they are pairs") };
            assert!(
                until <= since,
                "seed {seed}: term {before} until {until:?}, term {after} from {since:?}"
            );
        }
    }
}
