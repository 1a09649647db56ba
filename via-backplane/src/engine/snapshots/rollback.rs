//! How long a snapshot of the previous state version is kept.
//!
//! Clocks of pods may disagree, so the store keeps the time: a marker is written with the window as its time to live, before the commit that
//! begins the window, and the window is over when a compare-and-swap finds the marker absent.

use std::time::Duration;

use super::{
    super::owned_cell::{self, Owned, OwnedError, Put},
    Generation, Snapshots,
    write::WriteError,
};
use crate::{Expected, Ttl};

/// Attempts at a marker that others write too.
const MAX_ATTEMPTS: usize = 8;
/// How long the marker lives that finds the window over.
const PROBE: Duration = Duration::from_secs(1);

/// Is there for as long as the window is open.
#[derive(Clone, PartialEq, prost::Message)]
struct Marker {
    /// Whose window; 0 for a probe.
    #[prost(uint64, tag = "2")]
    generation: u64,
}

impl Owned for Marker {
    const FORMAT: u32 = 1;
}

impl Snapshots<'_> {
    /// Begins a window. One that is open is begun anew: a state version that comes back is rolled back from as well.
    pub(super) async fn open_window(&self, of: Generation) -> Result<(), WriteError> {
        let (cell, mut delays) = (self.names.rollback(), self.delays());
        for _ in 0..MAX_ATTEMPTS {
            let present = owned_cell::load::<Marker>(self.store, &cell).await?;
            let expected = present.map_or(Expected::Absent, |present| Expected::At(present.rev));
            let ttl = Ttl::For(self.rollback_window);
            let marker = Marker { generation: of.0 };
            let put = owned_cell::put_for(self.store, self.entropy, &cell, expected, marker, ttl).await?;
            if let Put::Written(_) = put {
                return Ok(());
            }
            delays.wait().await;
        }
        Err(WriteError::Contended)
    }

    /// Whether the window is over. Only a compare-and-swap can say so: a load that lags may not show the marker yet.
    pub(super) async fn window_is_over(&self) -> Result<bool, OwnedError> {
        let probe = Marker { generation: 0 };
        let (cell, ttl) = (self.names.rollback(), Ttl::For(PROBE));
        let put = owned_cell::put_for(self.store, self.entropy, &cell, Expected::Absent, probe, ttl).await;
        match put {
            Ok(Put::Written(_)) => Ok(true),
            // If it landed it is a marker that ends soon.
            Ok(Put::Conflict) | Err(OwnedError::Unknown(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
