//! The whole of what an adapter provides.

use std::{fmt, time::Duration};

use crate::{BackendError, Compactor, EventLog, Feed, Reply, Store};

/// A backend: a log and a store, and what else it can do.
///
/// An adapter implements this contract and nothing else; projections, cells, snapshots and consumers are the
/// [`Engine`](crate::Engine)'s.
///
/// # Guarantees
///
/// - **B1** After [`close`](Self::close), every call returns [`ErrorKind::Closed`](crate::ErrorKind::Closed) at once and every
///   subscription ends. `close` never closes a client the user supplied.
/// - **B2** Every call is cancel-safe or says it is not.
pub trait Backplane: Send + Sync + 'static {
    /// A short name for logs and metrics: `memory`, `nats`.
    fn name(&self) -> &'static str;

    /// The event log.
    fn log(&self) -> &dyn EventLog;

    /// The cell store.
    fn store(&self) -> &dyn Store;

    /// Compaction, where the backend can drop records.
    fn compactor(&self) -> Option<&dyn Compactor>;

    /// Broadcast, where the backend has it.
    fn feed(&self) -> Option<&dyn Feed>;

    /// What the backend holds at most.
    fn limits(&self) -> Limits;

    /// Answers if the backend is reachable.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn ping(&self) -> Reply<'_, Result<(), BackendError>>;

    /// Ends every subscription and refuses every further call. Idempotent.
    ///
    /// # Cancel safety
    /// Dropping the reply leaves the backplane closed; what was being flushed may not have been.
    fn close(&self) -> Reply<'_, ()>;
}

impl fmt::Debug for dyn Backplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backplane({})", self.name())
    }
}

/// What a backend holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest record, in bytes.
    pub max_record: usize,
    /// The most entries one append may have.
    pub max_batch: usize,
    /// The largest cell value, in bytes.
    pub max_cell: usize,
    /// The largest feed message, in bytes.
    pub max_message: usize,
    /// How long an append id is remembered at least.
    pub id_window: Duration,
}
