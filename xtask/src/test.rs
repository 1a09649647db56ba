//! `cargo xtask test`: everything the tests need, then every test.

use std::process::Command;

use nats_servers::CLUSTER_VARIABLE;

use crate::chromium;
use crate::haproxy;
use crate::nats;
use crate::python;
use crate::steps::Steps;
use crate::tally::{Report, Runner, Tally};
use crate::workspace::{cargo, says};

/// The feature sets `via-backplane` is tested with besides all at once: none, and each codec alone, so that
/// none of them works only beside another.
const FEATURE_SETS: [(&str, &str); 3] = [("none", ""), ("bincode", "bincode"), ("prost", "prost")];

/// The simulation searches its seeds once, with every feature: it is about interleavings, which no codec changes. Under the
/// other feature sets it only has to run.
const FEW_SEEDS: &[(&str, &str)] = &[("VIA_SIM_SEEDS", "5")];

/// Runs every test and counts; a step that dies counts as a failed test, and the steps after it still run.
pub(crate) fn run(steps: &mut Steps) -> Tally {
    install(steps);
    // Every test is a process of its own; a cluster for each would take longer than what they test.
    let cluster = nats::shared_cluster(steps);
    let servers = cluster.as_ref().map(|cluster| cluster.urls().join(","));
    let mut tests = Tests { runner: runner(), servers, tallies: Vec::new() };

    // One build for all of it: selecting packages would unify features anew and build the dependencies again.
    let workspace = ["--workspace", "--all-features"];
    // What the README's first command builds, so that the test that runs it waits for the chat alone.
    tests.check(steps, "the README's chat", cargo(["build", "--release", "--bin", "chat"]));
    if tests.build(steps, &workspace) {
        tests.run(steps, "tests", &workspace);
    }
    tests.run_docs(steps);
    for (name, features) in FEATURE_SETS {
        let package = ["--package", "via-backplane", "--no-default-features", "--features", features];
        tests.run_with(FEW_SEEDS, steps, &format!("via-backplane with features: {name}"), &package);
    }
    // The web crate without the in-memory backplane it has by default.
    let bare = cargo(["check", "--package", "via", "--no-default-features"]);
    tests.check(steps, "via without default features", bare);
    tests.tallies.into_iter().sum()
}

/// Installs what the tests need where it is missing.
pub(crate) fn install(steps: &mut Steps) {
    steps.install("Chromium", chromium::ensure);
    steps.install("nats-server", nats::ensure);
    steps.install("HAProxy", haproxy::ensure);
    steps.install("Python", python::ensure);
}

struct Tests {
    runner: Runner,
    /// The shared cluster's addresses; without them, tests say themselves what is missing.
    servers: Option<String>,
    tallies: Vec<Tally>,
}

impl Tests {
    fn build(&mut self, steps: &mut Steps, selection: &[&str]) -> bool {
        let mut build = self.command(selection);
        build.arg("--no-run");
        self.check(steps, "build", build)
    }

    /// A step without tests of its own, whose failure still counts as one.
    fn check(&mut self, steps: &mut Steps, name: &str, command: Command) -> bool {
        let passed = steps.run(name, command);
        self.tallies.push(Tally { failed: u64::from(!passed), ..Tally::default() });
        passed
    }

    fn run(&mut self, steps: &mut Steps, name: &str, selection: &[&str]) {
        self.run_with(&[], steps, name, selection);
    }

    fn run_with(&mut self, environment: &[(&str, &str)], steps: &mut Steps, name: &str, selection: &[&str]) {
        let mut run = self.command(selection);
        run.envs(environment.iter().copied());
        run.arg("--no-fail-fast");
        if self.runner == Runner::Nextest {
            // A package may have no tests under some feature set; a skipped one is named.
            run.args(["--no-tests", "pass", "--status-level", "skip"]);
        }
        self.count(steps, name, run, self.runner);
    }

    fn run_docs(&mut self, steps: &mut Steps) {
        let docs = cargo(["test", "--workspace", "--all-features", "--doc", "--no-fail-fast"]);
        self.count(steps, "documentation's examples", docs, Runner::Libtest);
    }

    fn count(&mut self, steps: &mut Steps, name: &str, command: Command, runner: Runner) {
        let mut report = Report::new(runner);
        let passed = steps.watch(name, command, |line| report.line(line));
        if !report.conformance().is_empty() {
            println!("\nconformance, by adapter and case:");
        }
        for (case, outcome) in report.conformance() {
            println!("  {outcome}  {case}");
        }
        let tally = report.close(passed);
        println!("{name}: {tally}");
        self.tallies.push(tally);
    }

    fn command(&self, selection: &[&str]) -> Command {
        let mut command = match self.runner {
            Runner::Nextest => cargo(["nextest", "run"]),
            // Not `--all-targets`: that would leave out nothing but run the benchmarks too.
            Runner::Libtest => cargo(["test", "--lib", "--bins", "--tests"]),
        };
        command.args(selection);
        if let Some(servers) = &self.servers {
            command.env(CLUSTER_VARIABLE, servers);
        }
        command
    }
}

fn runner() -> Runner {
    match says(&mut cargo(["nextest", "--version"])) {
        Some(version) => {
            println!("{version}");
            Runner::Nextest
        }
        None => {
            println!(
                "cargo-nextest is not installed; `cargo test` runs the same tests, one binary after another"
            );
            Runner::Libtest
        }
    }
}
