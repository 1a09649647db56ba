//! Python: for unpacking, and for the tests that read and write via's log in another language.

use std::fs;
use std::process::Command;

use crate::workspace::{root, target_dir};

/// What those tests need, pinned.
const REQUIREMENTS: &str = "vianats/tests/python/requirements.txt";

/// Makes an environment with the pinned packages under the target directory, unless there is one.
///
/// # Errors
/// Says why there is none, and what that means for the tests.
pub(crate) fn ensure() -> Result<(), String> {
    let wanted = fs::read_to_string(root().join(REQUIREMENTS))
        .map_err(|error| format!("cannot read {REQUIREMENTS}: {error}"))?;
    let folder = target_dir().join("tools/python");
    // Written last, so that an interrupted installation is none.
    let installed = folder.join("requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        println!("the packages of {REQUIREMENTS} ({})", folder.display());
        return Ok(());
    }
    install(&folder, &wanted)
        .and_then(|()| {
            fs::write(&installed, &wanted)
                .map_err(|error| format!("cannot write {}: {error}", installed.display()))
        })
        .map_err(|why| format!("{why}\nThe test of the wire format in another language will fail."))
}

fn install(folder: &std::path::Path, wanted: &str) -> Result<(), String> {
    println!("installing for Python: {}", packages(wanted).collect::<Vec<_>>().join(", "));
    run(["-m", "venv", "--clear"], |venv| venv.arg(folder))
        .map_err(|why| format!("{why}; on Debian it needs the package `python3-venv`"))?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
    check(pip.arg("--requirement").arg(root().join(REQUIREMENTS)), "pip install")
}

fn packages(requirements: &str) -> impl Iterator<Item = &str> {
    requirements.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Runs the machine's own Python.
///
/// # Errors
/// If it is missing or fails.
pub(crate) fn run<const N: usize>(
    arguments: [&str; N],
    more: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<(), String> {
    let mut command = Command::new("python3");
    command.args(arguments);
    more(&mut command);
    check(&mut command, &format!("python3 {}", arguments.join(" ")))
}

fn check(command: &mut Command, described: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{described}` failed ({status})")),
        Err(error) => Err(format!("`{described}` did not start ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::packages;

    #[test]
    fn every_package_is_pinned() {
        let requirements = include_str!("../../vianats/tests/python/requirements.txt");
        assert!(packages(requirements).count() > 0);
        for package in packages(requirements) {
            let (name, version) = package.split_once("==").expect("one version and no other");
            assert!(
                !name.is_empty() && version.starts_with(|first: char| first.is_ascii_digit()),
                "{package}"
            );
        }
    }
}
