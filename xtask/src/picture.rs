//! `cargo xtask picture`: the README's picture, taken rather than drawn.

use crate::chromium;
use crate::steps::Steps;
use crate::workspace::cargo;

/// Builds the chat, and has the browser crate photograph it in two windows.
pub(crate) fn run(steps: &mut Steps) {
    steps.install("Chromium", chromium::ensure);
    steps.run("build", cargo(["build", "--bin", "chat"]));
    steps.run("picture", cargo(["run", "--package", "browser-tests", "--bin", "picture"]));
}
