//! The rules of PROTOCOL §1, §2, §4 and §7 about snapshots, compaction and loads are needed: each scenario breaks without its own.

use std::{sync::Arc, time::Duration};

use ::metrics::set_default_local_recorder;
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};
use via_backplane::{
    Append, Backplane as _, CellKey, CellSelector, Change, CodecId, Engine, Entries, Entry, Envelope,
    EventId, Expected, Key, Offset, Rules, Status, Ttl, Waited,
    fault::{Kind, Plan},
};

use super::{
    super::engine::measures::Meter,
    facts::{Book as _, Drawn, Mended, Noted, Notes, Tag},
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

/// Appends for long enough that what snapshots cover is dropped, if it may be.
async fn append_for_a_while(pod: &Actor, from: u32) {
    for op in from..from + 40 {
        pod.append_all(op..op + 1).await;
        sleep(GRACE / 8).await;
    }
}

/// A pod that comes late shows this, or it says what it shows.
async fn a_late_pod_shows(stage: &Stage, expected: Vec<u32>) -> Result<(), String> {
    let late = stage.enter_with(99, Plan::none());
    let outcome = shown_at_once(&late, &expected).await;
    late.leave().await;
    outcome
}

/// The first value of a pod is this one, or it says what it is.
async fn shown_at_once(late: &Actor, expected: &[u32]) -> Result<(), String> {
    let settles = async {
        let mut changes = late.notes.changes();
        while late.notes.read().is_none() && !matches!(late.notes.status(), Status::Halted(_)) {
            changes.changed().await;
        }
    };
    timeout(PATIENCE, settles).await.expect("a load ends");
    match (late.shown(), late.notes.status()) {
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
fn section_3_the_ceiling_stays_below_every_pin() {
    is_needed(
        Rules { respect_pins: false, ..Rules::ALL },
        "what was pinned is dropped",
        |stage| async move {
            let pod = stage.enter_saving(1, Plan::none());
            pod.append_all(0..4).await;
            let at = pod.notes.covered().head();
            pod.engine.pin("notes", "export", at).await.expect("nothing is announced yet");
            append_for_a_while(&pod, 4).await;
            pod.leave().await;
            let floor = stage.floor().await;
            if floor <= at.offset { Ok(()) } else { Err("what was pinned is dropped".to_owned()) }
        },
    );
}

#[test]
fn section_3_a_key_on_which_pods_disagree_is_kept() {
    is_needed(
        Rules { respect_holds: false, ..Rules::ALL },
        "what pods disagree on is dropped",
        |stage| async move {
            let pods = [1, 2].map(|seed| stage.enter_saving(seed, Plan::none()));
            let drawn = pods
                .each_ref()
                .map(|pod| pod.engine.events::<Drawn, Vec<u64>>("drawn").expect("a valid declaration"));
            for drawn in &drawn {
                drawn.loaded().await;
            }
            for _ in 0..40 {
                let position = drawn[0].append(Drawn).await.expect("nothing goes wrong with it");
                for drawn in &drawn {
                    assert_eq!(drawn.wait_for(&position, PATIENCE).await, Waited::Reached);
                }
                sleep(GRACE / 8).await;
            }
            for pod in pods {
                pod.leave().await;
            }
            let compactor = stage.memory.compactor().expect("memory compacts");
            let floor = compactor.floor(drawn[0].key()).await.expect("memory answers");
            if floor == Offset::BEGIN { Ok(()) } else { Err("what pods disagree on is dropped".to_owned()) }
        },
    );
}

#[test]
fn section_4_the_manifest_is_looked_at_again_before_a_chunk_is_lost() {
    is_needed(
        Rules { reload_manifest: false, ..Rules::ALL },
        "a snapshot that was displaced is called damaged",
        |stage| async move {
            let meter = Meter::default();
            let _here = set_default_local_recorder(&meter);
            let pod = stage.enter_saving(1, Plan::none());
            // Until snapshots have chunks, which go with the snapshot after the next.
            let mut written = append_until_dropped(&stage, &pod, 0, Offset(40)).await;
            // Wherever the pod that loads stands still meanwhile.
            for step in 1..30 {
                let slow = Plan::seeded(1).odds(Kind::Delay, 1.0).max_delay(Duration::from_millis(2));
                let late = stage.enter_with(50 + step, slow);
                while late.faults.steps() < step && late.notes.read().is_none() {
                    sleep(Duration::from_micros(100)).await;
                }
                late.faults.pause();
                let floor = stage.floor().await;
                written = append_until_dropped(&stage, &pod, written, Offset(floor.0 + 8)).await;
                late.faults.resume();
                let all: Vec<_> = (0..written).collect();
                shown_at_once(&late, &all).await?;
                late.leave().await;
            }
            pod.leave().await;
            match meter.count("via_snapshot_unusable_total{family=notes}") {
                0 => Ok(()),
                _ => Err("a snapshot that was displaced is called damaged".to_owned()),
            }
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
fn section_7_a_value_is_served_once_it_has_what_came_before_it_was_asked_for() {
    is_needed(Rules { load_to_head: false, ..Rules::ALL }, "other records are shown", |stage| async move {
        let pod = stage.enter_saving(1, Plan::none());
        pod.append_all(0..30).await;
        sleep(GRACE).await;
        pod.append_all(30..33).await;
        let shows = a_late_pod_shows(&stage, (0..33).collect()).await;
        pod.leave().await;
        shows
    });
}

#[test]
fn section_7_eviction_leaves_a_load_what_was_kept_for_it() {
    is_needed(
        Rules { spare_loads: false, ..Rules::ALL },
        "a value misses a record that its pod has passed",
        |stage| async move {
            let pod = stage.enter(1).await;
            let names = ["a", "b", "c"];
            let written = names.map(|name| pod.notes.instance(name).expect("a valid name"));
            let slow = Plan::seeded(3).odds(Kind::Delay, 0.7).max_delay(Duration::from_millis(40));
            let late = stage.enter_as(2, slow, |builder| builder.with_resident_instances(3));
            let read = names.map(|name| late.notes.instance(name).expect("a valid name"));
            let mut offsets = [Vec::new(), Vec::new(), Vec::new()];
            let mut seen = 0;
            for op in 0..1_000 {
                let n = op as usize % names.len();
                let note = Noted { tag: Tag { op, index: 0 } };
                let position = written[n].append(note).await.expect("nothing goes wrong with it");
                offsets[n].push(position.cursor.offset);
                sleep(Duration::from_millis(8)).await;
                for (read, offsets) in read.iter().zip(&offsets) {
                    let passed = read.covered().offset;
                    let Some(view) = read.read() else { continue };
                    seen += 1;
                    let due = offsets.iter().filter(|offset| **offset <= passed).count();
                    if view.lines().len() < due {
                        return Err("a value misses a record that its pod has passed".to_owned());
                    }
                }
            }
            assert!(seen > 100, "they were read {seen} times");
            late.leave().await;
            pod.leave().await;
            Ok(())
        },
    );
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
