//! `cargo xtask cluster`: three NATS servers, three chats and a proxy, shown or checked.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::steps::Steps;
use crate::workspace::{cargo, executable};
use crate::{haproxy, nats};

/// Builds everything and becomes the program that runs it, so that Ctrl-C is its alone to handle.
///
/// Returns only if that was not possible, which is then a failed step.
pub(crate) fn show(steps: &mut Steps) {
    steps.install("nats-server", nats::ensure);
    steps.install("HAProxy", haproxy::ensure);
    if let Some(mut demo) = build(steps) {
        steps.work("cluster", || Err(format!("it did not start: {}", demo.exec())));
    }
}

/// The same, driven and broken piece by piece; a step that fails when a promise is not kept.
///
/// What it needs is what the tests need, and installed by whoever calls it.
pub(crate) fn check(steps: &mut Steps) {
    if let Some(mut demo) = build(steps) {
        demo.arg("--check");
        steps.run("cluster, checked", demo);
    }
}

/// The program, given what it runs: pods as they are deployed, and itself as the tests are built, from the same
/// dependencies.
fn build(steps: &mut Steps) -> Option<Command> {
    let mut programs: Vec<PathBuf> = Vec::new();
    let built = steps.work("build", || {
        let demo = cargo(["build", "--workspace", "--all-features", "--bin", "cluster"]);
        let chat = cargo(["build", "--release", "--bin", "chat"]);
        programs = [demo, chat].into_iter().map(executable).collect::<Result<_, _>>()?;
        Ok(())
    });
    let [demo, chat] = programs.try_into().ok().filter(|_| built)?;
    let mut command = Command::new(demo);
    command.arg(chat);
    Some(command)
}
