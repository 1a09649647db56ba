//! The app: what a user builds, starts and serves.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use via_backplane::{Backplane, Engine};

use crate::{
    Page, Result, Running, Setup, State,
    assets::Assets,
    effect::Effects,
    frames::Frames,
    metrics::OfPage,
    page::Mounted,
    prometheus, routes,
    secret::{self, Secret},
    session::Transport,
    site::{MAX_ACTIONS, Site},
    state::Binder,
};

/// The most bytes an action's signals may have, unless the app says otherwise.
const BODY_LIMIT: usize = 64 * 1024;

/// A live web app: pages over shared state.
///
/// ```no_run
/// use maud::html;
/// use via::prelude::*;
///
/// #[derive(State)]
/// struct Hello {
///     greeted: StateApp<u64>,
/// }
///
/// #[derive(Serialize, Deserialize)]
/// enum Act {
///     Greet,
/// }
///
/// impl Component for Hello {
///     type Action = Act;
///
///     async fn act(&self, cx: &Cx, _: Act) -> via::Result<()> {
///         self.greeted.update(cx, |greeted| {
///             *greeted += 1;
///             Ok(())
///         }).await
///     }
/// }
///
/// impl Page for Hello {
///     fn view(&self, cx: &View) -> Html {
///         html! { button data-on:click=(cx.on(self, Act::Greet)) { "Greeted " (self.greeted.text(cx)) " times" } }
///     }
/// }
///
/// # async fn run() -> via::Result<()> {
/// App::new().page::<Hello>("/").serve("127.0.0.1:3000").await
/// # }
/// ```
#[must_use = "an app does nothing until it is started or served"]
pub struct App {
    backplane: Option<Arc<dyn Backplane>>,
    pages: Vec<Planned>,
    secret: Option<Secret>,
    body_limit: usize,
    stylesheets: Vec<String>,
    metrics: Metrics,
    upkeep: Upkeep,
    pub(crate) transport: Transport,
}

/// How the engine keeps what is folded; nothing where its own defaults hold.
#[derive(Default)]
struct Upkeep {
    snapshot_interval: Option<u64>,
    resident_instances: Option<usize>,
    rollback_window: Option<Duration>,
    fold_verify: bool,
    fold_digests: Option<u64>,
    keep_history: bool,
}

impl Upkeep {
    fn engine(self, backplane: Arc<dyn Backplane>) -> Engine {
        let mut engine = Engine::builder(backplane);
        if let Some(records) = self.snapshot_interval {
            engine = engine.with_snapshot_interval(records);
        }
        if let Some(most) = self.resident_instances {
            engine = engine.with_resident_instances(most);
        }
        if let Some(window) = self.rollback_window {
            engine = engine.with_rollback_window(window);
        }
        if let Some(one_in) = self.fold_digests {
            engine = engine.with_fold_digests(one_in);
        }
        if self.fold_verify {
            engine = engine.with_fold_verify();
        }
        if self.keep_history {
            engine = engine.keep_history();
        }
        engine.start()
    }
}

/// A page before the engine is there.
struct Planned {
    path: Arc<str>,
    mount: fn(Arc<str>, &Engine, &mut Effects) -> Result<Mounted>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Metrics {
    Off,
    Prometheus,
}

#[derive(Debug, thiserror::Error)]
enum BadApp {
    #[error("no backplane: give one to `with_backplane`, or enable via's feature `inmem`")]
    #[cfg_attr(feature = "inmem", expect(dead_code, reason = "the app then runs in-process"))]
    NoBackplane,
    #[error("the page `{0}` has no valid path: start it with `/`, and write a parameter as `{{id}}`")]
    Path(Arc<str>, #[source] Option<matchit::InsertError>),
    #[error("the path `{path}` cannot be a page, because `{with}` answers there: choose another")]
    Taken { path: Arc<str>, with: String },
}

impl App {
    /// An app without pages that runs in this process.
    pub fn new() -> Self {
        Self {
            backplane: None,
            pages: Vec::new(),
            secret: None,
            body_limit: BODY_LIMIT,
            stylesheets: Vec::new(),
            metrics: Metrics::Off,
            upkeep: Upkeep::default(),
            transport: Transport::Public,
        }
    }

    /// Keeps shared state in this backplane, so that it outlives the process and is the same on every pod.
    ///
    /// Takes a backplane, or an [`Arc`] of one.
    pub fn with_backplane<Kind>(mut self, backplane: impl IntoBackplane<Kind>) -> Self {
        self.backplane = Some(backplane.into_backplane());
        self
    }

    /// Serves a page at a path such as `/` or `/rooms/{id}`.
    pub fn page<C: Page>(mut self, path: &str) -> Self {
        self.pages.push(Planned { path: path.into(), mount: mount::<C> });
        self
    }

    /// Adds a stylesheet to every page: `.stylesheet(include_str!("app.css"))`.
    pub fn stylesheet(mut self, css: impl Into<String>) -> Self {
        self.stylesheets.push(css.into());
        self
    }

    /// Signs with this secret, at least 32 random bytes, instead of one created once in the backplane.
    pub fn with_secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.secret = Some(Secret::new(secret.as_ref()));
        self
    }

    /// Sets the most bytes the signals of an action may have; 64 KiB unless set. More answers 413.
    pub fn with_body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// Serves `/metrics` for Prometheus.
    ///
    /// The metrics are the process's: two apps in one process show the same.
    pub fn with_prometheus(mut self) -> Self {
        self.metrics = Metrics::Prometheus;
        self
    }

    /// Sets how many events of a key are folded between two snapshots of it; 64 unless set.
    ///
    /// `#[state(snapshot_interval = 256)]` on a field sets it for that state alone: more for a large one.
    pub fn with_snapshot_interval(mut self, records: u64) -> Self {
        self.upkeep.snapshot_interval = Some(records);
        self
    }

    /// Sets how many instances of one state this pod keeps in memory at most; 10,000 unless set.
    pub fn with_resident_instances(mut self, most: usize) -> Self {
        self.upkeep.resident_instances = Some(most);
        self
    }

    /// Sets how long the last snapshot of a previous state version is kept, for a deploy that is rolled back; 24 hours unless set.
    pub fn with_rollback_window(mut self, window: Duration) -> Self {
        self.upkeep.rollback_window = Some(window);
        self
    }

    /// Folds each event twice and compares what comes of it, to find a fold that depends on more than its events.
    pub fn with_fold_verify(mut self) -> Self {
        self.upkeep.fold_verify = true;
        self
    }

    /// Takes a digest of each state after one in so many of its events, the same ones on every pod, so that pods can be compared;
    /// `via_fold_digest` shows them.
    pub fn with_fold_digests(mut self, one_in: u64) -> Self {
        self.upkeep.fold_digests = Some(one_in);
        self
    }

    /// Drops no event, whatever snapshots cover.
    pub fn keep_history(mut self) -> Self {
        self.upkeep.keep_history = true;
        self
    }

    /// Says that the router will be bound to loopback only, where there is no TLS: the session cookie is then not `Secure`.
    ///
    /// [`serve`](Self::serve) finds out by itself; this is for those who serve [`Running::router`] themselves.
    pub fn on_loopback(mut self) -> Self {
        self.transport = Transport::Loopback;
        self
    }

    /// Binds every page's state and makes the app ready for requests.
    ///
    /// # Errors
    /// A backplane that cannot be reached, one key with two types, an invalid path or secret: an error that names the
    /// places and the fix.
    ///
    /// # Cancel safety
    /// Dropping the future stops what was started.
    pub async fn start(self) -> Result<Running> {
        let (backplane, pages) = (self.backplane, self.pages);
        check_paths(&pages)?;
        // First, so that what is set up later finds the recorder.
        let prometheus = match self.metrics {
            Metrics::Off => None,
            Metrics::Prometheus => Some(prometheus::install()?),
        };
        let backplane = backplane.map_or_else(in_process, Ok)?;
        let keys = match &self.secret {
            Some(secret) => secret.keyring()?,
            None => secret::shared(backplane.store()).await?,
        };
        let engine = self.upkeep.engine(backplane);
        let mut effects = Effects::default();
        let mounted =
            pages.into_iter().map(|page| (page.mount)(page.path, &engine, &mut effects).map(Arc::new));
        let mounted = match mounted.collect::<Result<Vec<_>>>() {
            Ok(mounted) => mounted,
            Err(error) => return Err(stop(&engine, error).await),
        };
        if let Err(error) = effects.register().await {
            return Err(stop(&engine, error).await);
        }
        if let Some(prometheus) = prometheus.clone() {
            prometheus::keep_up(prometheus, engine.supervisor());
        }
        let frames = Frames::new(engine.supervisor().clone(), keys.clone());
        let site = Arc::new(Site {
            assets: Assets::new(&self.stylesheets),
            frames: Arc::new(frames),
            transport: self.transport,
            body_limit: self.body_limit,
            actions: Arc::new(Semaphore::new(MAX_ACTIONS)),
            prometheus,
            engine,
            keys,
        });
        let router = routes::router(&site, &mounted);
        Ok(Running::new(site, router))
    }
}

impl Default for App {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.pages.iter().map(|page| &page.path).collect();
        f.debug_struct("App").field("pages", &paths).finish_non_exhaustive()
    }
}

fn mount<C: Page>(path: Arc<str>, engine: &Engine, effects: &mut Effects) -> Result<Mounted> {
    let mut binder = Binder::new(engine);
    let component = <C as State>::bind(&mut binder)?;
    let mut setup = Setup { engine, effects: Effects::default() };
    component.setup(&mut setup);
    effects.append(&mut setup.effects);
    Ok(Mounted {
        title: component.title(),
        component: Arc::new(component),
        seeds: binder.seeds.to_json(),
        metrics: OfPage::new(&path),
        path,
    })
}

/// An app that failed to start leaves no tasks behind.
async fn stop(engine: &Engine, error: crate::Error) -> crate::Error {
    if let Err(fault) = engine.shutdown(crate::running::GRACE).await {
        tracing::warn!(%fault, "a task failed while the app was starting");
    }
    error
}

/// Refuses here, by name, what the router would panic on.
fn check_paths(pages: &[Planned]) -> Result<(), BadApp> {
    let mut known = matchit::Router::new();
    for path in routes::RESERVED {
        known.insert(path, ()).expect("the reserved paths differ");
    }
    for Planned { path, .. } in pages {
        // axum reads segments that start with `:` or `*` as the parameters of its old versions, and refuses them.
        if !path.starts_with('/') || path.split('/').any(|segment| segment.starts_with([':', '*'])) {
            return Err(BadApp::Path(path.clone(), None));
        }
        match known.insert(&**path, ()) {
            Ok(()) => {}
            Err(matchit::InsertError::Conflict { with }) => {
                return Err(BadApp::Taken { path: path.clone(), with });
            }
            Err(error) => return Err(BadApp::Path(path.clone(), Some(error))),
        }
    }
    Ok(())
}

#[cfg(feature = "inmem")]
fn in_process() -> Result<Arc<dyn Backplane>, BadApp> {
    Ok(Arc::new(via_inmem::InMemory::new()))
}

#[cfg(not(feature = "inmem"))]
fn in_process() -> Result<Arc<dyn Backplane>, BadApp> {
    Err(BadApp::NoBackplane)
}

/// What [`App::with_backplane`] takes: a backplane, or an [`Arc`] of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a backplane",
    note = "give `with_backplane` a `Backplane`, or an `Arc` of one"
)]
pub trait IntoBackplane<Kind> {
    #[doc(hidden)]
    fn into_backplane(self) -> Arc<dyn Backplane>;
}

/// The kinds of [`IntoBackplane`]: they keep its implementations apart.
#[doc(hidden)]
pub mod kind {
    #[derive(Debug)]
    pub struct Owned;
    #[derive(Debug)]
    pub struct Shared;
    #[derive(Debug)]
    pub struct Erased;
}

impl<B: Backplane> IntoBackplane<kind::Owned> for B {
    fn into_backplane(self) -> Arc<dyn Backplane> {
        Arc::new(self)
    }
}

impl<B: Backplane> IntoBackplane<kind::Shared> for Arc<B> {
    fn into_backplane(self) -> Arc<dyn Backplane> {
        self
    }
}

impl IntoBackplane<kind::Erased> for Arc<dyn Backplane> {
    fn into_backplane(self) -> Arc<dyn Backplane> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(paths: &[&str]) -> Result<(), BadApp> {
        let mount = |_, _: &Engine, _: &mut Effects| unreachable!("paths are checked first");
        let planned: Vec<_> = paths.iter().map(|path| Planned { path: (*path).into(), mount }).collect();
        check_paths(&planned)
    }

    #[test]
    fn paths_are_checked_before_anything_starts() {
        check(&["/", "/rooms/{id}", "/rooms/new"]).expect("valid paths");
        for paths in [&["rooms"][..], &[""], &["/:id"], &["/a/*rest"], &["/{"]] {
            let error = check(paths).expect_err("an invalid path");
            assert!(matches!(error, BadApp::Path(..)), "{paths:?}: {error}");
        }
        for paths in [&["/", "/"][..], &["/{a}", "/{b}"], &["/livez"], &["/metrics"], &["/_via/{x}"]] {
            let error = check(paths).expect_err("a taken path");
            assert!(matches!(error, BadApp::Taken { .. }), "{paths:?}: {error}");
        }
    }
}
