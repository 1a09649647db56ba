//! Finds the HAProxy the cluster demo runs behind, or installs Debian's.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian;
use crate::workspace::says;

/// The variable that names another HAProxy.
const VARIABLE: &str = "VIA_HAPROXY";

/// Installs HAProxy where it is missing and the machine allows it.
///
/// # Errors
/// Says why it is missing, what that means, and what to do.
pub(crate) fn ensure() -> Result<(), String> {
    if let Some(version) = version() {
        println!("{version}");
        return Ok(());
    }
    install().map_err(|why| {
        format!(
            "HAProxy is missing and was not installed: {why}.\nThe cluster demo does not start without it, and \
             deploy/haproxy.cfg is not checked. Install the `haproxy` package, or name an HAProxy in {VARIABLE}."
        )
    })
}

/// The HAProxy to run. Debian keeps it where only administrators look for programs.
pub(crate) fn program() -> PathBuf {
    if let Some(given) = std::env::var_os(VARIABLE) {
        return given.into();
    }
    let administrators = Path::new("/usr/sbin/haproxy");
    if administrators.is_file() { administrators.to_owned() } else { "haproxy".into() }
}

fn install() -> Result<(), String> {
    debian::install(&["haproxy"])?;
    version()
        .map(|version| println!("{version}"))
        .ok_or_else(|| "apt-get succeeded, `haproxy` did not start".to_owned())
}

fn version() -> Option<String> {
    says(Command::new(program()).arg("-v"))
}
