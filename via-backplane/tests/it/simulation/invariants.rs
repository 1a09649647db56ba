//! What has to be true when everybody is done.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use via_backplane::{Cell, HaltReason, Status, Waited};

use super::{
    accounts,
    facts::{Book as _, Fact, Held, Noted, Traded},
    log::Log,
    pod::{FAMILIES, Handle, Pod},
    world::World,
};

/// How long a pod may take until it shows what is stored, in the run's own time.
const CONVERGES_WITHIN: Duration = Duration::from_secs(120);

/// Checks everything that can only be told at the end. The judge's connection has no faults.
pub(crate) async fn check(world: &World, pods: &[Pod], judge: &Pod) {
    let [notes, talk, stock] = FAMILIES;
    let notes = Log::<Noted>::read(world, notes).await;
    let talk = Log::<Noted>::read(world, talk).await;
    let stock = Log::<Traded>::read(world, stock).await;
    for pod in pods.iter().chain([judge]) {
        for handle in &pod.states.notes {
            let log = if *handle.key().family() == notes.family { &notes } else { &talk };
            shows_the_log(world, pod, handle, log).await;
        }
        for handle in &pod.states.stocks {
            shows_the_log(world, pod, handle, &stock).await;
        }
        shows_the_same(world, pod, &pod.states.tally, &judge.states.tally).await;
        shows_the_same(world, pod, &pod.states.late_tally(), &judge.states.late_tally()).await;
        shows_the_same(world, pod, &pod.states.theme, &judge.states.theme).await;
    }
    let history = world.history.lock();
    let logs = [&notes.records, &talk.records, &stock.records];
    let cells = [("tally", &judge.states.tally), ("late", &judge.states.late_tally())];
    let mut violations = accounts::of_logs(&history, logs);
    for (name, cell) in cells {
        let tally = cell.read().map(|tally| (*tally).clone()).unwrap_or_default();
        violations.extend(accounts::of_a_tally(&history, name, &tally));
    }
    violations.extend(accounts::of_the_theme(&history, judge.states.theme.read().map_or(0, |theme| *theme)));
    violations.into_iter().for_each(|violation| world.violation(violation));
}

/// A pod has folded the log to its end, and its state is what the records fold to.
async fn shows_the_log<E: Fact>(world: &World, pod: &Pod, handle: &Handle<E>, log: &Log<E>) {
    let (who, key) = (pod.name(), handle.key());
    // What somebody watches is not let go.
    let _watched = handle.changes();
    if world.may_halt(key.family()) && is_halted_for_want_of_records(handle).await {
        return world.trace(who, format!("{key} is halted: its records are gone with their snapshots"));
    }
    let reached = timeout(CONVERGES_WITHIN, reaches_the_end(handle, log)).await;
    if reached.is_err() {
        world.violation(format!("{who} never reached the end of {}", log.family));
    }
    if handle.status() != Status::Live {
        world.violation(format!("{who}: {key} is {:?}", handle.status()));
    }
    let Some(view) = handle.read() else { return world.violation(format!("{who}: {key} is not loaded")) };
    let folded = view.key_head().offset;
    if folded < log.head(key) {
        return world.violation(format!("{who}: {key} is folded up to {folded}, not to {}", log.head(key)));
    }
    // A write that nobody knew the outcome of may have landed since, before one of the engine's own.
    let expected = Log::<E>::read_up_to(world, log.family.as_str(), folded).await.book(key);
    world.trace(who, format!("{key}: {:016x} of {} records", digest(&expected), expected.lines().len()));
    if *view != expected {
        world.violation(format!("{who}: {key} is not what its records fold to: {view:?}, not {expected:?}"));
    }
}

/// Whether records were dropped and what covered them was lost with the store or undone with the log. Then nobody may
/// invent a state.
async fn is_halted_for_want_of_records<E: Fact>(handle: &Handle<E>) -> bool {
    let is_halted = || match handle.status() {
        Status::Halted(halt) => matches!(halt.reason, HaltReason::Compacted { .. } | HaltReason::Lost),
        _ => false,
    };
    let mut changes = handle.changes();
    let settles = async {
        while !is_halted() && handle.read().is_none() {
            changes.changed().await;
        }
    };
    // One that does not settle is complained about by who waits for its records.
    timeout(CONVERGES_WITHIN, settles).await.ok();
    is_halted()
}

async fn reaches_the_end<E: Fact>(handle: &Handle<E>, log: &Log<E>) {
    handle.loaded().await;
    let Some(last) = &log.last else { return };
    // A pod that has not noticed yet that its log was replaced says so once, and gets there later.
    while handle.wait_for(last, CONVERGES_WITHIN).await != Waited::Reached {
        sleep(Duration::from_millis(100)).await;
    }
}

/// A pod's copy of a cell is the judge's, which has no faults between it and the store.
async fn shows_the_same<T: Held>(world: &World, pod: &Pod, cell: &Cell<T>, judge: &Cell<T>) {
    let expected = judge.loaded().await;
    let mut changes = cell.changes();
    let converges = async {
        while cell.read().is_none_or(|value| *value != *expected) {
            changes.changed().await;
        }
    };
    if timeout(CONVERGES_WITHIN, converges).await.is_err() {
        let (who, key, value) = (pod.name(), cell.key(), cell.read());
        world.violation(format!("{who}: {key} is {value:?} and stays so, not {expected:?}"));
    }
}

/// A short text for a long state: FNV-1a over what was folded.
fn digest(book: &impl super::facts::Book) -> u64 {
    let bytes = book.lines().iter().flat_map(|line| line.offset.0.to_le_bytes().into_iter().chain(line.id.0));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
