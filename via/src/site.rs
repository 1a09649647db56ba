//! A started app: what its requests share.

use std::{fmt, sync::Arc};

use http::HeaderMap;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use via_backplane::Engine;

use crate::{
    assets::Assets,
    frames::Frames,
    keyring::Keyring,
    refusal::Refusal,
    session::{Session, Transport},
    tab::{self, BadTab},
};

/// The header a tab's token travels in.
pub(crate) const TAB: &str = "via-tab";
/// How many actions may run at a time on a pod; more are told to come again.
pub(crate) const MAX_ACTIONS: usize = 4096;

/// What the requests of an app share.
pub(crate) struct Site {
    pub(crate) engine: Engine,
    pub(crate) keys: Keyring,
    pub(crate) assets: Assets,
    pub(crate) frames: Arc<Frames>,
    pub(crate) transport: Transport,
    pub(crate) body_limit: usize,
    pub(crate) actions: Arc<Semaphore>,
    pub(crate) prometheus: Option<PrometheusHandle>,
}

impl Site {
    /// Whether the app is stopping: it starts nothing new.
    pub(crate) fn is_stopping(&self) -> bool {
        self.engine.supervisor().stopping().is_cancelled()
    }

    /// Refuses a request that does not come from a document of ours, given to its session.
    pub(crate) fn check_tab(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.is_stopping() {
            return Err(Refusal::Unavailable);
        }
        let token = headers.get(TAB).and_then(|token| token.to_str().ok()).unwrap_or_default();
        tab::check(&self.keys, Session::of(headers, &self.keys), token).map_err(|bad| match bad {
            BadTab::Forged => Refusal::Forbidden,
            BadTab::Reload => Refusal::Reload,
        })
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("frames", &self.frames).finish_non_exhaustive()
    }
}
