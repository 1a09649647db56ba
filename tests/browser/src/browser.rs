//! One Chromium process.

use std::path::PathBuf;
use std::sync::Arc;

use chromiumoxide::cdp::browser_protocol::browser::BrowserContextId;
use chromiumoxide::cdp::browser_protocol::target::{CreateBrowserContextParams, CreateTargetParams};
use chromiumoxide::handler::viewport::Viewport;
use chromiumoxide::{BrowserConfig, Handler, Page};
use futures_util::StreamExt;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

use crate::profile::Profile;
use crate::window::Window;

/// Names another Chromium than the `chromium` on the path.
const VARIABLE: &str = "VIA_CHROMIUM";

/// What every Chromium is started with besides the driver's defaults: no sandbox (the tests' pages are our own,
/// and root has none), nothing that asks the network for anything, and no QUIC.
const FLAGS: [&str; 7] = [
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "hide-scrollbars",
];

/// Several Chromiums starve each other on a small machine, and every wait here is bounded.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A Chromium of its own, with a fresh profile.
///
/// [`close`](Browser::close) it at the end of the test; one that is dropped is killed.
pub struct Browser {
    chromium: Arc<chromiumoxide::Browser>,
    driver: JoinHandle<()>,
    // Dropped after the process: it writes here until it ends.
    _profile: Profile,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts Chromium, headless, once no other test of this process uses one.
    ///
    /// # Panics
    /// If there is no Chromium, or it does not start within 20 seconds.
    pub async fn launch() -> Self {
        let turn = ONE_AT_A_TIME.lock().await;
        let profile = Profile::fresh();
        let config = BrowserConfig::builder()
            .chrome_executable(executable())
            .user_data_dir(profile.path())
            .no_sandbox()
            .viewport(Viewport { width: 900, height: 700, ..Viewport::default() })
            .args(FLAGS)
            .build()
            .expect("the executable is given, and nothing else is looked for");
        let (chromium, handler) = chromiumoxide::Browser::launch(config)
            .await
            .unwrap_or_else(|error| panic!("Chromium did not start: {error}"));
        Self { chromium: Arc::new(chromium), driver: drive(handler), _profile: profile, _turn: turn }
    }

    /// Opens a page in a session of its own: it shares no cookies with any other window.
    ///
    /// # Panics
    /// If the page does not load.
    pub async fn window(&self, url: &str) -> Window {
        let session = self.chromium.create_browser_context(CreateBrowserContextParams::default()).await;
        let session = Session {
            chromium: Arc::clone(&self.chromium),
            context: session.unwrap_or_else(|error| panic!("no session for {url}: {error}")),
        };
        Window::open(session, url).await
    }

    /// Ends Chromium and waits until it is gone.
    ///
    /// # Panics
    /// If a window is still open, or Chromium does not answer.
    pub async fn close(self) {
        let mut chromium = Arc::into_inner(self.chromium).expect("every window is closed before its browser");
        chromium.close().await.unwrap_or_else(|error| panic!("Chromium did not close: {error}"));
        chromium.wait().await.unwrap_or_else(|error| panic!("Chromium did not end: {error}"));
        self.driver.abort();
    }
}

/// What the windows of one session share: cookies, storage and cache.
#[derive(Clone)]
pub(crate) struct Session {
    chromium: Arc<chromiumoxide::Browser>,
    context: BrowserContextId,
}

impl Session {
    /// An empty page, so that whoever asked can listen before anything is loaded.
    pub(crate) async fn page(&self) -> Page {
        let blank = CreateTargetParams::builder().url("about:blank").browser_context_id(self.context.clone());
        let blank = blank.build().expect("the one required parameter, the address, is given");
        self.chromium.new_page(blank).await.unwrap_or_else(|error| panic!("no new page: {error}"))
    }
}

/// Keeps reading what Chromium says; nothing moves without it.
#[expect(
    clippy::disallowed_methods,
    reason = "the driver's connection is no part of an app, and ends with the browser"
)]
fn drive(mut handler: Handler) -> JoinHandle<()> {
    // An item is an error about one message; the stream's end is Chromium's.
    tokio::spawn(async move { while handler.next().await.is_some() {} })
}

fn executable() -> PathBuf {
    if let Some(given) = std::env::var_os(VARIABLE) {
        return given.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("chromium"))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!(
                "there is no `chromium` on the path: `cargo xtask test` installs it on Debian as root; \
             elsewhere install it yourself, or name one in {VARIABLE}"
            )
        })
}
