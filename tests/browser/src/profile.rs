//! The folder a Chromium keeps its profile in: fresh, and gone afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const PREFIX: &str = "via-chromium-";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// An empty folder under the system's temporary one, removed when dropped.
#[derive(Debug)]
pub(crate) struct Profile(PathBuf);

impl Profile {
    pub(crate) fn fresh() -> Self {
        remove_orphans();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        // A process that was killed may have had this one's id.
        fs::remove_dir_all(&folder).ok();
        fs::create_dir(&folder).unwrap_or_else(|error| panic!("cannot create {}: {error}", folder.display()));
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // A Chromium that was killed may still be writing; what that leaves, the next one removes.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Removes the folders of test processes that are gone.
fn remove_orphans() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        let Some(owner) = owner.and_then(|owner| owner.parse::<u32>().ok()) else { continue };
        if owner != std::process::id()
            && Path::new("/proc").is_dir()
            && !Path::new(&format!("/proc/{owner}")).exists()
        {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}
