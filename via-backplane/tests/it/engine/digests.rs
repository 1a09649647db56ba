//! Digests of values after records that all pods choose alike.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ::metrics::set_default_local_recorder;
use tokio::time::sleep;
use via_backplane::{AppendOptions, Builder, Digest, Engine, Event, Events, Fold, Offset, Waited};
use via_inmem::InMemory;

use super::{
    PATIENCE, append_raw,
    measures::Meter,
    note, notes,
    repair::{Drawn, Tallied, Tallies},
    snapshots::lines,
    start, stop,
};

/// A pod that takes a digest after one in so many records.
fn sampling(memory: &InMemory, one_in: u64) -> Builder {
    Engine::builder(Arc::new(memory.clone())).with_fold_digests(one_in).deterministic()
}

/// Appends an event, waits until both pods show it, and notes what digests they have then.
async fn append<E, S>(event: E, pods: &[&Events<E, S>], seen: &mut [BTreeMap<Offset, Digest>])
where
    E: Event + Fold<S>,
{
    let position = pods[0].append(event).await.expect("memory takes every append");
    for (pod, seen) in pods.iter().zip(seen) {
        assert_eq!(pod.wait_for(&position, PATIENCE).await, Waited::Reached);
        // Paused time passes once nothing else has anything to do: the digest is there.
        sleep(Duration::from_millis(1)).await;
        seen.extend(pod.digest().map(|sampled| (sampled.at.offset, sampled.digest)));
    }
}

#[tokio::test(start_paused = true)]
async fn pods_take_digests_after_the_same_records_wherever_they_began() {
    let meter = Meter::default();
    let _here = set_default_local_recorder(&meter);
    let memory = InMemory::new();
    let early = sampling(&memory, 4).with_snapshot_interval(10).start();
    let here = notes(&early);
    let mut seen = [BTreeMap::new(), BTreeMap::new()];
    for n in 0..100 {
        append(super::noted(&n.to_string()), &[&here], &mut seen).await;
    }
    let before = seen[0].len();
    let late = sampling(&memory, 4).start();
    let there = notes(&late);
    there.loaded().await;
    assert_eq!(there.digest(), None, "nothing was folded here yet but by the load");
    for n in 100..200 {
        append(super::noted(&n.to_string()), &[&here, &there], &mut seen).await;
    }
    let [first, second] = &seen;
    assert!((25..80).contains(&first.len()), "{} of 200 records", first.len());
    assert_eq!(second.len(), first.len() - before, "they choose the same records");
    assert!(second.iter().all(|(offset, digest)| first[offset] == *digest), "and have the same digests");
    for (offset, digest) in first {
        let state = lines(0..offset.0 as usize);
        assert_eq!(*digest, Digest::of(&state).expect("it encodes"), "the value after {offset}");
    }

    let (offset, digest) = first.last_key_value().expect("there are some");
    assert_eq!(meter.gauge("via_fold_digest_offset{family=notes}"), offset.0 as f64);
    let shown = format!("{:012x}", meter.gauge("via_fold_digest{family=notes}") as u64);
    assert!(digest.to_string().starts_with(&shown), "{digest} begins with {shown}");
    stop(&early).await;
    stop(&late).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_in_the_middle_of_a_batch_is_sampled_where_it_stands() {
    let memory = InMemory::new();
    let engine = sampling(&memory, 3).start();
    let here = notes(&engine);
    here.loaded().await;
    let mut seen = BTreeMap::new();
    for batch in 0..20 {
        let events = (batch * 5..(batch + 1) * 5).map(|n: usize| super::noted(&n.to_string()));
        let position = here
            .append_batch_with(events, AppendOptions::default())
            .await
            .expect("memory takes every append");
        assert_eq!(here.wait_for(&position, PATIENCE).await, Waited::Reached);
        sleep(Duration::from_millis(1)).await;
        seen.extend(here.digest().map(|sampled| (sampled.at.offset, sampled.digest)));
    }
    assert!(seen.keys().any(|offset| offset.0 % 5 != 0), "some are inside of a batch: {seen:?}");
    for (offset, digest) in seen {
        assert_eq!(digest, Digest::of(&lines(0..offset.0 as usize)).expect("it encodes"), "after {offset}");
    }
    assert_eq!(*here.loaded().await, lines(0..100), "and nothing is missed");
    stop(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn digests_of_a_fold_that_keeps_no_contract_differ() {
    let memory = InMemory::new();
    let engines = [sampling(&memory, 1).start(), sampling(&memory, 1).start()];
    let drawn = |engine: &Engine| engine.events::<Drawn, Vec<u64>>("notes").expect("a valid declaration");
    let [here, there] = [drawn(&engines[0]), drawn(&engines[1])];
    there.loaded().await;
    let mut seen = [BTreeMap::new(), BTreeMap::new()];
    for _ in 0..5 {
        append(Drawn { fails: false }, &[&here, &there], &mut seen).await;
    }
    assert!(seen[0].keys().eq(seen[1].keys()), "of the same records");
    assert!(seen[0].values().zip(seen[1].values()).all(|(one, other)| one != other), "{seen:?}");
    for engine in &engines {
        stop(engine).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_has_no_digest() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let tallies = engine.events::<Tallied, Tallies>("tallies").expect("a valid declaration");
    for n in 0..20 {
        tallies.append(Tallied(n.to_string())).await.expect("memory takes every append");
    }
    stop(&engine).await;

    let engine = sampling(&memory, 1).start();
    let unordered = engine.events::<Tallied, Tallies>("tallies").expect("a valid declaration");
    unordered.loaded().await;
    let lacking = notes(&engine);
    lacking.loaded().await;
    note(&lacking, "0").await;
    sleep(Duration::from_millis(1)).await;
    let whole = lacking.digest();
    assert!(whole.is_some(), "every record is chosen");
    append_raw(&memory, lacking.key(), &b"no envelope"[..]).await;
    for _ in 0..3 {
        note(&lacking, "1").await;
        let position = unordered.append(Tallied("0".to_owned())).await.expect("memory takes every append");
        assert_eq!(unordered.wait_for(&position, PATIENCE).await, Waited::Reached);
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(unordered.digest(), None, "each pod would have another one");
    assert_eq!(lacking.digest(), whole, "a value that lacks a record is not compared");
    stop(&engine).await;
}
