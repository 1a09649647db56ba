//! What `deploy/` holds is valid, and fits together, as far as that can be told without a container engine.

mod compose;
mod demo;
mod haproxy;
mod nats;

use std::path::{Path, PathBuf};
use std::process::Command;

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(file)
}

fn text(file: &str) -> String {
    let path = deploy(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a program's own check of its configuration.
fn check(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{} did not start ({error}): `cargo xtask install`", command.get_program().display())
    });
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// The variables of ours a file names, however it spells that.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    let is_of_a_name =
        |character: char| character == '_' || character.is_ascii_uppercase() || character.is_ascii_digit();
    let without_comments = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = without_comments.flat_map(move |line| line.split(move |character| !is_of_a_name(character)));
    words.filter(|word| word.starts_with("VIA_"))
}
