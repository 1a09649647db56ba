//! A mutex without poisoning.

use std::sync::{MutexGuard, PoisonError};

/// What `parking_lot` has, in the few lines that are needed of it.
#[derive(Debug, Default)]
#[expect(clippy::disallowed_types, reason = "this crate depends on nothing, so that xtask builds at once")]
pub(crate) struct Lock<T>(std::sync::Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value.into())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        // A test that panicked while it held a server must still be able to stop it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
