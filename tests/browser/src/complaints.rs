//! What a page complained about.

use std::fmt;

use chromiumoxide::Page;
use chromiumoxide::cdp::browser_protocol::log::{EventEntryAdded, LogEntryLevel};
use chromiumoxide::cdp::js_protocol::runtime::{
    ConsoleApiCalledType, EventConsoleApiCalled, EventExceptionThrown, RemoteObject,
};
use chromiumoxide::listeners::EventStream;
use futures_util::{FutureExt, Stream, StreamExt};

/// One complaint of a page, in the words a developer's console shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// `console.error`, or a `console.assert` that did not hold.
    Console(String),
    /// An exception nobody caught, or a promise rejected without a handler.
    Uncaught(String),
    /// What the browser itself reported: a request that failed, or one the content security policy refused.
    Browser(String),
}

impl Complaint {
    /// The complaint's text.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Console(text) | Self::Uncaught(text) | Self::Browser(text) => text,
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text) = match self {
            Self::Console(text) => ("console error", text),
            Self::Uncaught(text) => ("uncaught", text),
            Self::Browser(text) => ("browser", text),
        };
        write!(formatter, "{kind}: {text}")
    }
}

/// Listens to one page from before it loads.
pub(crate) struct Ear {
    console: EventStream<EventConsoleApiCalled>,
    uncaught: EventStream<EventExceptionThrown>,
    browser: EventStream<EventEntryAdded>,
    heard: Vec<Complaint>,
}

impl Ear {
    pub(crate) async fn listen(page: &Page) -> Self {
        const LISTENS: &str = "the browser was just asked for this page, and answers";
        Self {
            console: page.event_listener().await.expect(LISTENS),
            uncaught: page.event_listener().await.expect(LISTENS),
            browser: page.event_listener().await.expect(LISTENS),
            heard: Vec::new(),
        }
    }

    /// Everything heard until the page said `fence` on its console; what it said before, it said before this.
    pub(crate) async fn until(&mut self, fence: &str) -> &[Complaint] {
        while let Some(event) = self.console.next().await {
            let text = console_text(&event.args);
            if text == fence {
                break;
            }
            if matches!(event.r#type, ConsoleApiCalledType::Error | ConsoleApiCalledType::Assert) {
                self.heard.push(Complaint::Console(text));
            }
        }
        for event in ready(&mut self.uncaught) {
            let details = &event.exception_details;
            let cause = details.exception.as_ref().and_then(|exception| exception.description.clone());
            self.heard.push(Complaint::Uncaught(format!("{} {}", details.text, cause.unwrap_or_default())));
        }
        for event in ready(&mut self.browser) {
            if event.entry.level == LogEntryLevel::Error {
                let url = event.entry.url.as_deref().unwrap_or_default();
                self.heard.push(Complaint::Browser(format!("{} {url}", event.entry.text)));
            }
        }
        &self.heard
    }
}

/// What a stream holds now, without waiting for more.
fn ready<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> Vec<T> {
    std::iter::from_fn(|| stream.next().now_or_never().flatten()).collect()
}

fn console_text(arguments: &[RemoteObject]) -> String {
    let words = arguments.iter().map(|argument| match &argument.value {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => argument.description.clone().unwrap_or_default(),
    });
    words.collect::<Vec<_>>().join(" ")
}
