//! People with the page open, in a real browser.

use std::time::{Duration, Instant};

use browser_tests::{Browser, Window};
use tokio::time::sleep;

use crate::demo::Demo;
use crate::pod::Pod;

const NAME: &str = "[data-bind=name]";
const DRAFT: &str = "[data-bind=draft]";

/// How many people come until every pod holds the stream of one.
const ARRIVALS: usize = 30;

/// How long a page may take until it is live again, before the check gives up rather than only fails.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long to look away from what can only be looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// One person for each pod, each in a session of their own.
pub(crate) struct Visitors {
    browser: Browser,
    windows: Vec<Window>,
    posted: usize,
}

impl Visitors {
    /// A browser, and nobody in front of it.
    pub(crate) async fn none_yet() -> Self {
        Self { browser: Browser::launch().await, windows: Vec::new(), posted: 0 }
    }

    /// Lets people in through the proxy until each pod holds a stream: whichever is killed, somebody notices.
    pub(crate) async fn arrive(&mut self, demo: &Demo) -> Result<(), String> {
        for number in 0..ARRIVALS {
            // How many requests a visit takes may be a multiple of the pods; these move the next one on.
            demo.proxy.answering(number / 2 % demo.pods.len())?;
            let window = self.browser.window(&demo.proxy.url()).await;
            // The browser reports a stream that breaks, which is what the check is about. It must report nothing else.
            window.excuse("net::ERR_INCOMPLETE_CHUNKED_ENCODING");
            wait_until_live(&window).await;
            self.windows.push(window);
            wait_for_tabs(&demo.pods, self.windows.len()).await?;
            if demo.pods.iter().any(|pod| pod.tabs() > 1) {
                self.windows.pop().expect("somebody has just come").close().await;
                wait_for_tabs(&demo.pods, self.windows.len()).await?;
                continue;
            }
            let name = format!("visitor {}", self.windows.len());
            self.windows.last().expect("somebody has just come").type_into(NAME, &name).await;
            if self.windows.len() == demo.pods.len() {
                return Ok(());
            }
        }
        Err(format!("{ARRIVALS} visitors did not spread over all pods"))
    }

    /// Waits until every page is live, and how long that is after `since`.
    pub(crate) async fn live_again(&self, pods: &[Pod], since: Instant) -> Result<Duration, String> {
        // A pod that was killed holds no stream, so the others hold all of them only when everybody is back.
        wait_for_tabs(pods, self.windows.len()).await?;
        for window in &self.windows {
            wait_until_live(window).await;
        }
        Ok(since.elapsed())
    }

    /// Somebody says something, and everybody sees it; returns what was said, and how long that took.
    pub(crate) async fn click(&mut self, text: &str) -> (String, Duration) {
        let speaker = self.posted % self.windows.len();
        self.posted += 1;
        let said = format!("{} {text}", self.posted);
        self.windows[speaker].type_into(DRAFT, &said).await;
        let start = Instant::now();
        self.windows[speaker].press("Enter").await;
        for window in &self.windows {
            window.wait_for_text("#lines", &said).await;
        }
        (said, start.elapsed())
    }

    /// Everybody leaves after something else has failed; what their pages complained about may say why.
    pub(crate) async fn abandon(self) {
        for window in self.windows {
            for complaint in window.close_with_complaints().await {
                println!("  a page complained: {complaint}");
            }
        }
        self.browser.close().await;
    }

    /// Everybody leaves; whatever a page complained about and was not provoked is a panic.
    pub(crate) async fn leave(self) {
        for window in self.windows {
            window.close().await;
        }
        self.browser.close().await;
    }
}

async fn wait_until_live(window: &Window) {
    window.wait_until("document.documentElement.getAttribute('data-via-stream') === 'live'").await;
}

async fn wait_for_tabs(pods: &[Pod], expected: usize) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let tabs: Vec<usize> = pods.iter().map(Pod::tabs).collect();
        if tabs.iter().sum::<usize>() == expected {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(format!(
                "after {PATIENCE:?} the pods hold {tabs:?} streams, and {expected} pages are open"
            ));
        }
        sleep(GLANCE).await;
    }
}
