//! Finds the Chromium the browser tests drive, or installs Debian's.

use std::process::Command;

use crate::debian;
use crate::workspace::says;

/// The variable that names another Chromium than the `chromium` on the path.
const VARIABLE: &str = "VIA_CHROMIUM";

/// Installs Chromium where it is missing and the machine allows it.
///
/// # Errors
/// Says why it is missing, what that means for the tests, and what to do.
pub(crate) fn ensure() -> Result<(), String> {
    if let Some(version) = version() {
        println!("{version}");
        return Ok(());
    }
    install().map_err(|why| {
        format!(
            "Chromium is missing and was not installed: {why}.\nThe tests in tests/browser will fail. \
             Install the `chromium` package, or name a Chromium in {VARIABLE}."
        )
    })
}

fn install() -> Result<(), String> {
    // The fonts are for the README's picture; a page without any still passes its tests.
    debian::install(&["chromium", "fonts-liberation"])?;
    version()
        .map(|version| println!("{version}"))
        .ok_or_else(|| "apt-get succeeded, `chromium` did not start".to_owned())
}

fn version() -> Option<String> {
    let chromium = std::env::var_os(VARIABLE).unwrap_or_else(|| "chromium".into());
    says(Command::new(chromium).arg("--version"))
}
