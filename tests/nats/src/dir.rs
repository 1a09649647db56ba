//! Where a server keeps everything it writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory: somebody's, or one of our own, which is removed when dropped.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    is_ours: bool,
}

impl Dir {
    /// A fresh directory under the system's temporary one.
    pub(crate) fn fresh() -> Result<Self, String> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("via-nats-{}-{number}", process::id()));
        // A process that was killed may have had this one's id.
        fs::remove_dir_all(&path).ok();
        Self::create(path, true)
    }

    pub(crate) fn given(path: PathBuf) -> Result<Self, String> {
        Self::create(path, false)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is to be removed if nobody is left to drop this.
    pub(crate) fn ours(&self) -> Option<&Path> {
        self.is_ours.then_some(&self.path)
    }

    fn create(path: PathBuf, is_ours: bool) -> Result<Self, String> {
        fs::create_dir_all(&path).map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        Ok(Self { path, is_ours })
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if self.is_ours {
            // A failure here leaves a directory among the temporary ones, which is where it may be left.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}
