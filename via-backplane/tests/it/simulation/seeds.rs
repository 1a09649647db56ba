//! Which seeds are run.

use std::{env, ops::Range};

use via_backplane::Rules;

use super::{
    faults::Fault,
    world::{self, Run, Setup},
};

/// Lines of the trace that a failure prints.
const TAIL: usize = 60;
/// Seeds of each fault whose traces are compared.
const SEEDS_RUN_TWICE: u64 = 2;
/// Operations a run has to have at least.
const OPERATIONS: usize = 500;

fn run(fault: Fault, seed: u64) -> Run {
    let run = world::run(Setup { seed, fault, rules: Rules::ALL });
    assert!(run.violations.is_empty(), "{}", complaint(fault, seed, &run));
    assert!(run.operations >= OPERATIONS, "seed {seed} has only {} operations", run.operations);
    run
}

fn complaint(fault: Fault, seed: u64, run: &Run) -> String {
    let (violations, trace) = (run.violations.join("\n  "), &run.trace);
    let tail = trace[trace.len().saturating_sub(TAIL)..].join("\n  ");
    format!(
        "seed {seed} of fault `{fault}` breaks an invariant:\n  {violations}\n\nthe trace's end:\n  {tail}\n\nagain, with \
         the whole trace:\n  VIA_SIM_SEED={seed} VIA_SIM_FAULT={fault} cargo nextest run -p via-backplane --test it \
         the_seed_in_the_environment_holds\n"
    )
}

/// Runs many seeds, and the first of them twice. `VIA_SIM_SEEDS` says how many, for a longer search.
fn seeds_hold(fault: Fault, seeds: Range<u64>) {
    let first = seeds.start;
    let count = env::var("VIA_SIM_SEEDS").map(|count| count.parse().expect("VIA_SIM_SEEDS is a number"));
    let count: u64 = count.unwrap_or(seeds.end - first);
    let mut fired = Vec::new();
    for seed in first..first + count {
        fired.extend(run(fault, seed).fired);
    }
    for kind in fault.kinds() {
        let times: u64 = fired.iter().filter(|(other, _)| other == kind).map(|(_, times)| times).sum();
        assert!(times > 0, "{kind:?} never struck over the seeds of `{fault}`");
    }
    for seed in first..first + SEEDS_RUN_TWICE {
        let (one, other) = (run(fault, seed).trace, run(fault, seed).trace);
        let line = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
        let of = |trace: &[String]| trace.get(line).cloned();
        assert!(one == other, "seed {seed} of `{fault}` gives two traces: {:?}, {:?}", of(&one), of(&other));
    }
}

#[test]
fn the_seed_in_the_environment_holds() {
    let seed = env::var("VIA_SIM_SEED").map_or(0, |seed| seed.parse().expect("VIA_SIM_SEED is a number"));
    let fault = env::var("VIA_SIM_FAULT").map_or(Fault::All, |fault| fault.parse().expect("VIA_SIM_FAULT"));
    let run = world::run(Setup { seed, fault, rules: Rules::ALL });
    assert!(run.violations.is_empty(), "{}\n{}", run.trace.join("\n"), complaint(fault, seed, &run));
}

macro_rules! seeds_hold {
    ($($name:ident: $fault:ident $seeds:expr;)*) => {$(
        #[test]
        fn $name() {
            seeds_hold(Fault::$fault, $seeds);
        }
    )*};
}

seeds_hold! {
    nothing_goes_wrong: Nothing 0..10;
    calls_are_delayed: Delay 0..30;
    acks_are_lost: LostAck 0..30;
    calls_fail_before_they_are_committed: FailBefore 0..30;
    streams_are_disconnected: Disconnect 0..30;
    loads_are_stale: StaleLoad 0..30;
    pods_stop: Stop 0..30;
    the_backend_is_interrupted: Interrupt 0..30;
    pods_are_paused: Pause 0..30;
    logs_and_stores_are_replaced: Replaced 0..30;
    everything_goes_wrong: All 0..30;
}
