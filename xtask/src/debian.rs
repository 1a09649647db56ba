//! Installs Debian's packages, where this is a Debian that lets us.

use std::path::Path;
use std::process::Command;

use crate::workspace::says;

/// Installs packages with nothing that is only recommended beside them.
///
/// # Errors
/// Says why that is not possible here, or what failed.
pub(crate) fn install(packages: &[&str]) -> Result<(), String> {
    if !Path::new("/etc/debian_version").exists() {
        return Err("this is not a Debian system".to_owned());
    }
    if !is_root() {
        return Err("installing packages takes root".to_owned());
    }
    println!("apt-get install {}", packages.join(" "));
    apt_get(&["update"])?;
    apt_get(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
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
