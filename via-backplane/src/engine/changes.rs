//! Knowing that a value changed, whatever its type.

use std::sync::Arc;

use tokio::sync::watch;

/// Tells that one value on this pod has changed; coalesces, and never misses the latest.
///
/// ```no_run
/// # async fn doc(mut changes: via_backplane::Changes) {
/// while changes.changed().await {
///     println!("{} is at version {}", changes.name(), changes.version());
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Changes {
    name: Arc<str>,
    version: watch::Receiver<u64>,
}

impl Changes {
    pub(crate) fn new(name: Arc<str>, version: watch::Receiver<u64>) -> Self {
        Self { name, version }
    }

    /// What changes: unique among the values of one engine.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The version now, without marking it as seen.
    #[must_use]
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Waits until the version is above `seen`; `false` when the engine has stopped.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn above(&mut self, seen: u64) -> bool {
        self.version.wait_for(|version| *version > seen).await.is_ok()
    }

    /// Waits for a change after the last one seen; `false` when the engine has stopped.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn changed(&mut self) -> bool {
        self.version.changed().await.is_ok()
    }
}
