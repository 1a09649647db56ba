//! Finds the Chromium the browser tests drive, or installs Debian's.

use std::path::Path;
use std::process::Command;

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
    if !Path::new("/etc/debian_version").exists() {
        return Err("this is not a Debian system".to_owned());
    }
    if !is_root() {
        return Err("installing packages takes root".to_owned());
    }
    println!("installing Chromium: apt-get install chromium");
    apt_get(&["update"])?;
    // The fonts are for the README's picture; a page without any still passes its tests.
    apt_get(&["install", "--yes", "--no-install-recommends", "chromium", "fonts-liberation"])?;
    version()
        .map(|version| println!("{version}"))
        .ok_or_else(|| "apt-get succeeded, `chromium` did not start".to_owned())
}

fn version() -> Option<String> {
    let chromium = std::env::var_os(VARIABLE).unwrap_or_else(|| "chromium".into());
    says(Command::new(chromium).arg("--version"))
}

fn is_root() -> bool {
    says(Command::new("id").arg("-u")).is_some_and(|id| id == "0")
}

fn apt_get(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command.arg("--quiet=2").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let described = format!("`apt-get {}` failed", arguments.join(" "));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{described} ({status})")),
        Err(error) => Err(format!("{described} ({error})")),
    }
}
