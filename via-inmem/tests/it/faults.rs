//! The fault wrapper does what its plan says, the same way for the same seed, and counts it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use via_backplane::{
    Append, AppendError, AppendId, Backplane, CasError, CellKey, CellSelector, Entries, Entry, ErrorKind,
    Expected, Family, Key, Offset, ReadRange, Resume, Rev, Selector, Ttl,
    fault::{Faults, Faulty, Fired, Kind, Link, Plan},
};
use via_inmem::InMemory;

fn family() -> Family {
    Family::new("posts").expect("a valid name")
}

fn cell() -> CellKey {
    CellKey::new(["app", "theme"]).expect("a valid path")
}

fn wrap(memory: &InMemory, plan: Plan) -> (Faulty, Faults) {
    let pod = Faulty::new(Arc::new(memory.clone()), plan, &Link::new());
    let faults = pod.faults();
    (pod, faults)
}

fn append(text: impl Into<Bytes>) -> Append {
    Append::new(Entries::One(Entry { key: Key::of(&family()), record: text.into() }))
}

async fn texts(backplane: &dyn Backplane) -> Vec<String> {
    let all = ReadRange { after: Offset::BEGIN, up_to: Offset(u64::MAX), limit: usize::MAX };
    let batch = backplane.log().read(&Selector::Family(family()), all).await.expect("read");
    batch.iter().map(|record| String::from_utf8_lossy(record.bytes).into_owned()).collect()
}

/// A pod that does a little of everything, and shrugs at whatever goes wrong.
async fn work(pod: &Faulty, rounds: usize) {
    let selector = Selector::Family(family());
    let mut tail = None;
    let mut rev = None;
    for round in 0..rounds {
        pod.log().append(append(round.to_string())).await.ok(); // What fails is the point.
        pod.log().head(&selector).await.ok();
        let expected = rev.map_or(Expected::Absent, Expected::At);
        pod.store().cas(&cell(), expected, round.to_string().into(), Ttl::Forever).await.ok();
        if let Ok(loaded) = pod.store().load(&cell()).await {
            rev = loaded.map(|value| value.rev);
        }
        if tail.is_none() {
            tail = pod.log().subscribe(&selector, Resume::After(Offset::BEGIN)).await.ok();
        }
        if let Some(stream) = &mut tail
            && stream.next().now_or_never().is_some_and(|item| item.is_none_or(|item| item.is_err()))
        {
            tail = None;
        }
    }
}

fn everything(seed: u64) -> Plan {
    let odds = [
        (Kind::Delay, 0.2),
        (Kind::LostAck, 0.1),
        (Kind::Refused, 0.1),
        (Kind::LostRequest, 0.1),
        (Kind::LateCommit, 0.1),
        (Kind::Disconnect, 0.2),
        (Kind::StaleLoad, 0.3),
    ];
    odds.into_iter().fold(Plan::seeded(seed), |plan, (kind, odds)| plan.odds(kind, odds))
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_trace_and_another_seed_another() {
    let trace = |seed| async move {
        let memory = InMemory::builder().seed(1).build();
        let (pod, faults) = wrap(&memory, everything(seed));
        work(&pod, 100).await;
        (faults.trace(), faults.steps(), texts(&memory).await)
    };
    let first = trace(7).await;
    assert_eq!(first, trace(7).await);
    assert_ne!(first, trace(8).await);
    for kind in Kind::ALL {
        let planned = !matches!(kind, Kind::Stop | Kind::Interrupt | Kind::Pause);
        assert_eq!(first.0.iter().any(|fired: &Fired| fired.kind == kind), planned, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_planned_does_nothing() {
    for plan in [Plan::none(), Plan::seeded(3)] {
        let memory = InMemory::new();
        let (pod, faults) = wrap(&memory, plan);
        work(&pod, 20).await;
        assert_eq!(faults.trace(), []);
        assert_eq!(texts(&memory).await.len(), 20);
        assert!(Kind::ALL.iter().all(|kind| faults.fired(*kind) == 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_meets_the_fault_that_was_planned() {
    for (kind, committed) in [(Kind::LostAck, 1), (Kind::LostRequest, 0), (Kind::Refused, 0)] {
        let memory = InMemory::new();
        let (pod, faults) = wrap(&memory, Plan::seeded(1).odds(kind, 1.0));
        let appended = pod.log().append(append("x")).await;
        let written = pod.store().cas(&cell(), Expected::Absent, "x".into(), Ttl::Forever).await;
        if kind == Kind::Refused {
            assert!(matches!(&appended, Err(AppendError::Backend(_))), "{appended:?}");
            assert!(matches!(&written, Err(CasError::Backend(_))), "{written:?}");
        } else {
            assert!(matches!(&appended, Err(AppendError::MaybeCommitted(_))), "{appended:?}");
            assert!(matches!(&written, Err(CasError::MaybeCommitted(_))), "{written:?}");
        }
        assert_eq!(texts(&memory).await.len(), committed, "{kind:?}");
        assert_eq!(memory.store().load(&cell()).await.expect("loaded").is_some(), committed == 1, "{kind:?}");
        assert_eq!(faults.fired(kind), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_write_lands_before_a_later_one_of_its_pod() {
    let memory = InMemory::new();
    let (pod, faults) = wrap(&memory, Plan::seeded(1).odds(Kind::LateCommit, 1.0));
    let id = AppendId::new("click").expect("a valid name");
    let late = || Append { id: Some(id.clone()), ..append("late") };
    let unknown = pod.log().append(late()).await;
    assert!(matches!(unknown, Err(AppendError::MaybeCommitted(_))), "{unknown:?}");
    assert_eq!(texts(&memory).await, [""; 0], "not yet");
    memory.log().append(append("between")).await.expect("appended");
    // The repeat lets the first one land, and is postponed itself; with an id that does no harm.
    pod.log().append(late()).await.expect_err("unknown again");
    pod.log().append(append("third")).await.expect_err("unknown again");
    assert_eq!(texts(&memory).await, ["between", "late"]);
    assert_eq!(faults.fired(Kind::LateCommit), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stale_load_answers_what_an_earlier_one_did() {
    let memory = InMemory::new();
    let (pod, faults) = wrap(&memory, Plan::seeded(1).odds(Kind::StaleLoad, 1.0));
    let load = || async { pod.store().load(&cell()).await.expect("loaded").map(|value| value.rev) };
    assert_eq!(load().await, None);
    assert_eq!(faults.fired(Kind::StaleLoad), 0, "there is nothing older yet");
    let first =
        memory.store().cas(&cell(), Expected::Absent, "1".into(), Ttl::Forever).await.expect("written");
    assert_eq!(load().await, None);
    memory.store().cas(&cell(), Expected::At(first), "2".into(), Ttl::Forever).await.expect("written");
    assert_eq!(load().await, Some(first));
    let stale = pod.store().cas(&cell(), Expected::At(first), "3".into(), Ttl::Forever).await;
    assert!(matches!(stale, Err(CasError::Conflict { .. })), "cas is never stale: {stale:?}");
    assert_eq!(faults.fired(Kind::StaleLoad), 2);
}

#[tokio::test(start_paused = true)]
async fn a_disconnected_stream_says_so_and_resuming_misses_nothing() {
    let memory = InMemory::new();
    for n in 0..2000 {
        memory.log().append(append(n.to_string())).await.expect("appended");
    }
    let (pod, faults) = wrap(&memory, Plan::seeded(5).odds(Kind::Disconnect, 0.5));
    let selector = Selector::Family(family());
    let mut after = Offset::BEGIN;
    while after < Offset(2000) {
        let mut tail = pod.log().subscribe(&selector, Resume::After(after)).await.expect("subscribed");
        loop {
            match tail.next().await.expect("never ends silently") {
                Ok(batch) => {
                    for record in batch.iter() {
                        assert_eq!(record.offset.0, after.0 + 1);
                        after = record.offset;
                    }
                    if after == Offset(2000) {
                        break;
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                    assert!(tail.next().await.is_none());
                    break;
                }
            }
        }
    }
    assert!(faults.fired(Kind::Disconnect) > 0);
    let (pod, _) = wrap(&memory, Plan::seeded(5).odds(Kind::Disconnect, 1.0));
    let mut watch = pod.store().watch(&CellSelector::One(cell())).await.expect("watching");
    assert!(watch.next().await.expect("never ends silently").is_err());
}

#[tokio::test(start_paused = true)]
async fn a_delay_takes_time_and_changes_nothing_else() {
    let memory = InMemory::new();
    let plan = Plan::seeded(1).odds(Kind::Delay, 1.0).max_delay(Duration::from_secs(5));
    let (pod, faults) = wrap(&memory, plan);
    let start = tokio::time::Instant::now();
    for n in 0..10 {
        pod.log().append(append(n.to_string())).await.expect("appended");
    }
    let took = start.elapsed();
    assert!(took > Duration::ZERO && took <= Duration::from_secs(100), "{took:?}");
    assert_eq!(faults.fired(Kind::Delay), 20, "on the way there and on the way back");
    assert_eq!(texts(&memory).await.len(), 10);
}

/// Three writes, one after the other: two steps each.
async fn three_writes(pod: &Faulty) {
    pod.log().append(append("one")).await.expect("appended");
    pod.store().cas(&cell(), Expected::Absent, "two".into(), Ttl::Forever).await.expect("written");
    pod.log().append(append("three")).await.expect("appended");
}

#[tokio::test(start_paused = true)]
async fn a_pod_can_be_stopped_between_any_two_awaits() {
    let mut states = Vec::new();
    for stop in 1..=7 {
        let memory = InMemory::new();
        let (pod, faults) = wrap(&memory, Plan::seeded(1).stop_after(stop));
        let stopped = tokio::select! {
            biased;
            () = three_writes(&pod) => false,
            () = faults.stopped() => true,
        };
        assert_eq!(stopped, stop <= 6, "there are six steps");
        assert_eq!(faults.fired(Kind::Stop), u64::from(stopped));
        if stopped {
            // Nothing of a stopped pod goes on, whichever task it is in.
            assert!(pod.log().append(append("zombie")).now_or_never().is_none());
            assert!(pod.store().load(&cell()).now_or_never().is_none());
        }
        let rev = memory.store().load(&cell()).await.expect("loaded").map(|value| value.rev);
        states.push((texts(&memory).await, rev));
    }
    let one = || vec!["one".to_owned()];
    let both = vec!["one".to_owned(), "three".to_owned()];
    assert_eq!(
        states,
        [
            (vec![], None),
            (one(), None),
            (one(), None),
            (one(), Some(Rev(1))),
            (one(), Some(Rev(1))),
            (both.clone(), Some(Rev(1))),
            (both, Some(Rev(1))),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stopped_pods_streams_stop_too() {
    let memory = InMemory::new();
    let (pod, faults) = wrap(&memory, Plan::seeded(1));
    let selector = Selector::Family(family());
    let mut tail = pod.log().subscribe(&selector, Resume::After(Offset::BEGIN)).await.expect("subscribed");
    memory.log().append(append("seen")).await.expect("appended");
    tail.next().await.expect("an item").expect("a batch");
    faults.stop();
    memory.log().append(append("never seen")).await.expect("appended");
    assert!(tail.next().now_or_never().is_none());
    faults.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn an_interruption_is_counted_and_one_link_cuts_every_pod() {
    let memory = InMemory::new();
    let link = Link::new();
    let pods = [1, 2].map(|seed| Faulty::new(Arc::new(memory.clone()), Plan::seeded(seed), &link));
    link.interrupt();
    for pod in &pods {
        assert_eq!(pod.ping().await.expect_err("cut").kind(), ErrorKind::Unavailable);
        assert_eq!(pod.faults().fired(Kind::Interrupt), 1);
    }
    link.restore();
    for pod in &pods {
        pod.ping().await.expect("open again");
    }
    link.lose_next_ack();
    let unknown = pods[0].log().append(append("x")).await;
    assert!(matches!(unknown, Err(AppendError::MaybeCommitted(_))), "{unknown:?}");
    pods[1].log().append(append("y")).await.expect("only the next ack was lost");
}
