//! The rules of PROTOCOL §1, §2, §4 and §7 about snapshots, compaction and loads are needed: each scenario breaks without its own.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};
use via_backplane::{
    Append, Backplane as _, CellKey, CellSelector, Change, CodecId, Engine, Entries, Entry, Envelope,
    EventId, Expected, Key, Offset, Rules, Status, Ttl,
    fault::{Kind, Plan},
};

use super::{
    facts::{Book as _, Mended, Notes},
    rules::is_needed,
    stage::{Actor, GRACE, Stage},
};

const PATIENCE: Duration = Duration::from_secs(600);

/// Appends until records below `floor` are dropped; answers how many there are then.
async fn append_until_dropped(stage: &Stage, pod: &Actor, from: u32, floor: Offset) -> u32 {
    let mut next = from;
    let dropped = async {
        while stage.floor().await <= floor {
            pod.append_all(next..next + 4).await;
            next += 4;
            sleep(GRACE / 4).await;
        }
    };
    timeout(PATIENCE, dropped).await.expect("what snapshots cover is dropped");
    next
}

/// A pod that comes late shows this, or it says what it shows.
async fn a_late_pod_shows(stage: &Stage, expected: Vec<u32>) -> Result<(), String> {
    let late = stage.enter_with(99, Plan::none());
    let settles = async {
        let mut changes = late.notes.changes();
        while late.notes.read().is_none() && !matches!(late.notes.status(), Status::Halted(_)) {
            changes.changed().await;
        }
    };
    timeout(PATIENCE, settles).await.expect("a load ends");
    let (shown, status) = (late.shown(), late.notes.status());
    late.leave().await;
    match (shown, status) {
        (Some(shown), _) if shown == expected => Ok(()),
        (Some(_), _) => Err("other records are shown".to_owned()),
        (None, Status::Halted(_)) => Err("there is no value any more".to_owned()),
        (None, status) => Err(format!("no value, and {status:?}")),
    }
}

/// The cells of a family's chunks, in order.
async fn chunks(stage: &Stage) -> Vec<CellKey> {
    let below = CellSelector::Below(CellKey::new(["via", "chunks"]).expect("a valid path"));
    let mut watch = stage.memory.store().watch(&below).await.expect("memory watches");
    let mut found = Vec::new();
    while let Some(Ok(change)) = watch.next().await {
        match change {
            Change::Put { key, .. } => found.push(key),
            Change::End => break,
            _ => {}
        }
    }
    found
}

/// Overwrites a cell that nobody else writes.
async fn tear(stage: &Stage, cell: &CellKey) {
    let store = stage.memory.store();
    let held = store.load(cell).await.expect("memory answers").expect("it is there");
    let torn = store.cas(cell, Expected::At(held.rev), b"torn"[..].into(), Ttl::Forever).await;
    torn.expect("nobody else writes");
}

/// The generation a chunk is of: the last segment but one.
fn generation(chunk: &CellKey) -> u64 {
    let text = chunk.to_string();
    let segment = text.rsplit('/').nth(1).expect("a chunk's path has a generation");
    segment.parse().expect("a generation is a number")
}

#[test]
fn section_1_a_load_compares_the_record_its_snapshot_stands_on() {
    is_needed(
        Rules { compare_record_ids: false, ..Rules::ALL },
        "other records are shown",
        |stage| async move {
            let pod = stage.enter_saving(1, Plan::none());
            pod.append_all(0..3).await;
            let older = stage.memory.copy_log(&stage.family());
            pod.append_all(3..8).await;
            sleep(GRACE / 2).await;
            pod.leave().await;
            stage.memory.restore_log(&older);
            let other = stage.enter_with(2, Plan::none());
            // The offsets are used again, past where the snapshot stands.
            for op in 20..32 {
                other.append(op).await;
            }
            other.leave().await;
            a_late_pod_shows(&stage, (0..3).chain(20..32).collect()).await
        },
    );
}

#[test]
fn section_2_a_load_looks_at_the_keys_floor() {
    is_needed(
        Rules { check_floors: false, ..Rules::ALL },
        "a state was made of what happened to be left",
        |stage| async move {
            let pod = stage.enter_saving(1, Plan::none());
            append_until_dropped(&stage, &pod, 0, Offset::BEGIN).await;
            pod.leave().await;
            // Whatever covered the records that are gone is gone as well.
            stage.memory.recreate_store();
            match a_late_pod_shows(&stage, Vec::new()).await {
                Err(said) if said == "there is no value any more" => Ok(()),
                _ => Err("a state was made of what happened to be left".to_owned()),
            }
        },
    );
}

#[test]
fn section_2_a_hole_is_crossed_only_under_a_fresh_ceiling() {
    is_needed(
        Rules { read_ceiling: false, ..Rules::ALL },
        "the paused pod misses records",
        |stage| async move {
            let (slow, pod) = (stage.enter_saving(1, Plan::seeded(1)), stage.enter_saving(2, Plan::none()));
            pod.append_all(0..2).await;
            slow.shows(&[0, 1]).await?;
            slow.faults.pause();
            let written = append_until_dropped(&stage, &pod, 2, Offset(8)).await;
            slow.faults.resume();
            let all: Vec<_> = (0..written).collect();
            let shows = slow.shows(&all).await;
            slow.leave().await;
            pod.leave().await;
            shows.map_err(|_| "the paused pod misses records".to_owned())
        },
    );
}

#[test]
fn section_4_the_previous_snapshot_is_one_to_fall_back_on() {
    is_needed(
        Rules { keep_previous: false, ..Rules::ALL },
        "there is no value any more",
        |stage| async move {
            let pod = stage.enter_saving(1, Plan::none());
            // Until snapshots have chunks, of which one can be torn.
            let written = append_until_dropped(&stage, &pod, 0, Offset(40)).await;
            sleep(GRACE * 4).await;
            pod.leave().await;
            let chunks = chunks(&stage).await;
            let newest = chunks.iter().max_by_key(|chunk| generation(chunk)).expect("there are chunks");
            tear(&stage, newest).await;
            a_late_pod_shows(&stage, (0..written).collect()).await
        },
    );
}

#[test]
fn section_4_a_snapshot_is_committed_at_its_claims_revision() {
    is_needed(
        Rules { commit_at_claim: false, ..Rules::ALL },
        "there is no value any more",
        |stage| async move {
            let delayed = Plan::seeded(1).odds(Kind::Delay, 1.0).max_delay(Duration::from_millis(20));
            let slow = stage.enter_as(1, delayed, |builder| {
                builder
                    .with_snapshot_interval(30)
                    .with_snapshot_pause(Duration::from_millis(10))
                    .with_compaction_grace(GRACE)
            });
            slow.append_all(0..30).await;
            // It has claimed a generation, and has written a chunk of it.
            while chunks(&stage).await.is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
            slow.faults.pause();
            let pod = stage.enter_saving(2, Plan::none());
            let written = append_until_dropped(&stage, &pod, 30, Offset(60)).await;
            slow.faults.resume();
            sleep(GRACE).await;
            slow.leave().await;
            pod.leave().await;
            a_late_pod_shows(&stage, (0..written).collect()).await
        },
    );
}

#[test]
fn section_4_a_pod_that_skipped_a_record_writes_no_snapshot() {
    is_needed(
        Rules { dirty_writes_none: false, ..Rules::ALL },
        "the mended pod shows 20 records",
        |stage| async move {
            let pod = stage.enter_saving(1, Plan::none());
            pod.append_all(0..2).await;
            append_without_a_tag(&stage).await;
            pod.append_all(2..20).await;
            sleep(GRACE * 4).await;
            pod.leave().await;
            let engine = Engine::builder(Arc::new(stage.memory.clone())).deterministic().start();
            let mended = engine.events::<Mended, Notes>("notes").expect("a valid declaration");
            let shown: Vec<_> = mended.loaded().await.lines().iter().map(|line| line.tag.op).collect();
            engine.shutdown(GRACE).await.expect("no task has failed");
            let expected: Vec<_> = (0..2).chain([99]).chain(2..20).collect();
            if shown == expected {
                Ok(())
            } else {
                Err(format!("the mended pod shows {} records", shown.len()))
            }
        },
    );
}

async fn append_without_a_tag(stage: &Stage) {
    let envelope = Envelope {
        id: EventId([7; 16]),
        time: 1,
        name: "sim.noted",
        version: 1,
        codec: CodecId::MESSAGE_PACK,
        // An empty map.
        payload: &[0x80],
        trace: None,
        trace_state: None,
        subject: None,
        unknown: Default::default(),
    };
    let mut record = Vec::new();
    envelope.encode(&mut record);
    let entry = Entry { key: Key::of(&stage.family()), record: record.into() };
    stage.memory.log().append(Append::new(Entries::One(entry))).await.expect("memory takes every append");
}

#[test]
fn section_7_records_are_kept_while_their_key_is_loaded() {
    is_needed(
        Rules { buffer_while_loading: false, ..Rules::ALL },
        "the pod that came meanwhile misses records",
        |stage| async move {
            let pod = stage.enter(1).await;
            pod.append_all(0..10).await;
            let mut late = Vec::new();
            for op in 10..810 {
                if op % 100 == 0 {
                    let seed = u64::from(op);
                    let delayed =
                        Plan::seeded(seed).odds(Kind::Delay, 0.7).max_delay(Duration::from_millis(40));
                    late.push(stage.enter_with(seed, delayed));
                }
                pod.append_all(op..op + 1).await;
                sleep(Duration::from_millis(1)).await;
            }
            let all: Vec<_> = (0..810).collect();
            let mut shows = Ok(());
            for late in late {
                shows = shows.and(late.shows(&all).await);
                late.leave().await;
            }
            pod.leave().await;
            shows.map_err(|_| "the pod that came meanwhile misses records".to_owned())
        },
    );
}
