//! Which seeds are run.

use std::{env, ops::Range};

use via_backplane::Rules;

use super::world::{self, Run, Setup};

/// Lines of the trace that a failure prints.
const TAIL: usize = 60;
/// Seeds of each range whose traces are compared.
const SEEDS_RUN_TWICE: u64 = 2;
/// Crashes, pauses and outages that a run has at least.
const DISTURBANCES: u64 = 3;
/// Events that a run has at least.
const EVENTS: usize = 200;

/// In every fourth run pods come back with a new version.
fn setup(seed: u64) -> Setup {
    Setup { seed, rules: Rules::ALL, succeeds: seed % 4 == 3 }
}

fn run(seed: u64) -> Run {
    let run = world::run(setup(seed));
    assert!(run.violations.is_empty(), "{}", complaint(seed, &run));
    assert!(run.disturbances >= DISTURBANCES, "seed {seed} has only {} disturbances", run.disturbances);
    assert!(run.attempts >= EVENTS, "seed {seed} has only {} attempts", run.attempts);
    run
}

fn complaint(seed: u64, run: &Run) -> String {
    let (violations, trace) = (run.violations.join("\n  "), &run.trace);
    let tail = trace[trace.len().saturating_sub(TAIL)..].join("\n  ");
    format!(
        "seed {seed} breaks an invariant:\n  {violations}\n\nthe trace's end:\n  {tail}\n\nagain, with the whole trace:\n  \
         VIA_SIM_SEED={seed} cargo nextest run -p via-backplane --all-features --test it \
         the_seed_of_effects_in_the_environment_holds\n"
    )
}

/// Runs many seeds, and the first of them twice. `VIA_SIM_SEEDS` says how many, for a longer search.
fn seeds_hold(seeds: Range<u64>) {
    let first = seeds.start;
    let count = env::var("VIA_SIM_SEEDS").map(|count| count.parse().expect("VIA_SIM_SEEDS is a number"));
    let count: u64 = count.unwrap_or(seeds.end - first);
    let (mut letters, mut succeeded) = (0, 0);
    for seed in first..first + count {
        let run = run(seed);
        letters += run.letters;
        succeeded += usize::from(run.has_succeeded);
    }
    assert!(letters > 0, "nothing was ever given up");
    assert!(succeeded > 0, "no consumer ever took another one's place");
    for seed in first..first + SEEDS_RUN_TWICE {
        let (one, other) = (run(seed).trace, run(seed).trace);
        let line = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
        let of = |trace: &[String]| trace.get(line).cloned();
        assert!(one == other, "seed {seed} gives two traces: {:?}, {:?}", of(&one), of(&other));
    }
}

#[test]
fn the_seed_of_effects_in_the_environment_holds() {
    let seed = env::var("VIA_SIM_SEED").map_or(0, |seed| seed.parse().expect("VIA_SIM_SEED is a number"));
    let run = world::run(setup(seed));
    assert!(run.violations.is_empty(), "{}\n{}", run.trace.join("\n"), complaint(seed, &run));
}

macro_rules! seeds_hold {
    ($($name:ident: $seeds:expr;)*) => {$(
        #[test]
        fn $name() {
            seeds_hold($seeds);
        }
    )*};
}

seeds_hold! {
    every_event_has_its_effect_1: 0..250;
    every_event_has_its_effect_2: 250..500;
    every_event_has_its_effect_3: 500..750;
    every_event_has_its_effect_4: 750..1_000;
}
