//! A small disk of one's own, which can be filled.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::config::{Config, STORE};
use crate::dir::Dir;
use crate::process::Process;
use crate::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(10);

/// Mounts a file system in memory of `$1` bytes where `$2` says, in a mount namespace of its own, and keeps it.
const MOUNT: &str = r#"mount -t tmpfs -o size="$1" tmpfs "$2" && : > "$2/ready" && exec sleep infinity"#;

/// A file system of few bytes, on which a server keeps its store.
///
/// It is in memory, in a mount namespace that no other process sees, and gone with this value. That takes util-linux and a kernel that lets
/// its users have namespaces, as Debian's does.
#[derive(Debug)]
pub struct Disk {
    holder: Process,
    dir: Dir,
}

impl Disk {
    /// A disk of so many bytes.
    ///
    /// # Errors
    /// If the system lets nobody have one.
    pub fn of(bytes: usize) -> Result<Self, String> {
        let dir = Dir::fresh()?;
        let store = dir.path().join(STORE);
        fs::create_dir_all(&store).map_err(|error| format!("cannot create {}: {error}", store.display()))?;
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--", "sh", "-c", MOUNT, "sh"]);
        command.arg(bytes.to_string()).arg(&store);
        let holder = Process::spawn_in(&mut command, dir.ours())?;
        let mut disk = Self { holder, dir };
        let ready = wait_for(PATIENCE, || {
            if disk.seen("ready").exists() {
                return Some(Ok(()));
            }
            disk.holder.ended().map(|status| Err(format!("`unshare` ended ({status})")))
        });
        match ready.unwrap_or_else(|| Err(format!("nothing was mounted within {PATIENCE:?}"))) {
            Ok(()) => Ok(disk),
            Err(why) => Err(format!("a test needs a mount namespace for a disk that it can fill: {why}")),
        }
    }

    /// Has a server keep its store here.
    #[must_use = "this returns the changed configuration"]
    pub fn under(&self, config: Config) -> Config {
        let target = self.holder.id().to_string();
        let enter = ["nsenter", "--preserve-credentials", "--user", "--mount", "--target", &target, "--"];
        config.dir(self.dir.path()).run_by(enter)
    }

    /// Writes until there is no room left.
    ///
    /// # Errors
    /// If writing fails for another reason.
    pub fn fill(&self) -> Result<(), String> {
        let filled = || {
            let mut file = File::create(self.seen("filler"))?;
            for size in [1 << 20, 1 << 12, 1] {
                while write(&mut file, size)? {}
            }
            Ok(())
        };
        filled().map_err(|error: std::io::Error| format!("the disk could not be filled: {error}"))
    }

    /// Makes room again.
    ///
    /// # Errors
    /// If there is nothing to remove.
    pub fn free(&self) -> Result<(), String> {
        fs::remove_file(self.seen("filler")).map_err(|error| format!("the disk could not be freed: {error}"))
    }

    /// A file on the disk, as the namespace's holder sees it.
    fn seen(&self, file: &str) -> PathBuf {
        let store = self.dir.path().join(STORE).join(file);
        let inside = store.strip_prefix("/").unwrap_or(&store);
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(inside)
    }
}

/// Writes so many bytes; `false` if there is no room for them.
fn write(file: &mut File, bytes: usize) -> std::io::Result<bool> {
    match file.write_all(&vec![b'x'; bytes]) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::StorageFull => Ok(false),
        Err(error) => Err(error),
    }
}
