//! A started app.

use std::{sync::Arc, time::Duration};

use axum::Router;
use via_backplane::Engine;

use crate::{Result, site::Site};

/// How long a stop waits for what is under way.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// A started app: a router to serve, and the way to stop it.
#[derive(Debug)]
#[must_use = "serve its router, and shut it down in the end"]
pub struct Running {
    site: Arc<Site>,
    router: Router,
}

impl Running {
    pub(crate) fn new(site: Arc<Site>, router: Router) -> Self {
        Self { site, router }
    }

    /// The app as an axum router: nest it in your own, wrap it in tower layers, serve it.
    ///
    /// A layer around it covers documents, streams and actions alike, because a page's three share one address.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The engine under the pages.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.site.engine
    }

    /// Stops: ends every stream with a hint to come back, lets the actions under way finish, then stops the engine.
    ///
    /// It waits at most 10 s for what is under way. Idempotent.
    ///
    /// # Errors
    /// The first failure of a background task that had to stop the app.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the app stopping; call it again to wait.
    pub async fn shutdown(&self) -> Result<()> {
        Ok(self.site.engine.shutdown(GRACE).await?)
    }
}
