//! `cargo xtask lint`: what can be judged without running the code.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::steps::Steps;
use crate::workspace::{cargo, root, says, target_dir};

/// cargo-deny's version, pinned: a newer one may judge the same tree differently.
const CARGO_DENY: &str = "0.20.2";

/// Runs every check, also after one has failed, so that one run names everything there is to mend.
pub(crate) fn run(steps: &mut Steps) {
    steps.run("rustfmt", cargo(["fmt", "--all", "--check"]));
    steps.run(
        "clippy",
        cargo(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]),
    );
    let mut doc = cargo(["doc", "--workspace", "--no-deps", "--all-features"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    steps.run("rustdoc", doc);
    deny(steps);
}

/// Checks bans, licences and sources; `deny.toml` says why advisories are not among them.
fn deny(steps: &mut Steps) {
    let kept = tools_dir().join("bin").join("cargo-deny");
    let Some(program) =
        [PathBuf::from("cargo-deny"), kept.clone()].into_iter().find(|program| is_pinned(program))
    else {
        // Built from source once (3 to 4 minutes on two cores), then kept under `target/`.
        let mut install = cargo(["install", "--locked", "--version", CARGO_DENY, "--root"]);
        install.arg(tools_dir()).arg("--target-dir").arg(tools_dir().join("build")).arg("cargo-deny");
        if steps.run("install cargo-deny", install) {
            check(steps, &kept);
        }
        return;
    };
    check(steps, &program);
}

fn check(steps: &mut Steps, cargo_deny: &Path) {
    let mut check = Command::new(cargo_deny);
    check.current_dir(root()).args([
        "--workspace",
        "--all-features",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]);
    steps.run("cargo-deny", check);
}

fn is_pinned(cargo_deny: &Path) -> bool {
    says(Command::new(cargo_deny).arg("--version")).is_some_and(|version| version.ends_with(CARGO_DENY))
}

fn tools_dir() -> PathBuf {
    target_dir().join("tools")
}
