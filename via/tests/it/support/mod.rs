//! A browser without a browser: it keeps the cookie, the tokens and the stream, and runs no script.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, BodyDataStream},
    response::Response,
};
use futures_util::StreamExt as _;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::timeout;
use tower::ServiceExt as _;

pub(crate) const HOST: &str = "app.example";
const PATIENCE: Duration = Duration::from_secs(20);

/// One open page.
#[derive(Clone)]
pub(crate) struct Tab {
    pub(crate) router: Router,
    pub(crate) path: String,
    pub(crate) cookie: String,
    pub(crate) tab: String,
    pub(crate) frame: String,
    pub(crate) html: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

impl Tab {
    /// Opens a page as a new browser.
    pub(crate) async fn open(router: &Router, path: &str) -> Self {
        Self::open_as(router, path, "").await
    }

    /// Opens a page as a browser that has this cookie.
    pub(crate) async fn open_as(router: &Router, path: &str, cookie: &str) -> Self {
        let request = Request::get(path).header("host", HOST).header("cookie", cookie);
        let response = send(router, request.body(Body::empty()).expect("a request")).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let html = text(response).await;
        let cookie = headers.get(header::SET_COOKIE).map_or(cookie.to_owned(), |set| {
            set.to_str().expect("ASCII").split(';').next().expect("a pair").to_owned()
        });
        let (tab, frame) = (meta(&html, "via-tab"), meta(&html, "via-frame"));
        Self { router: router.clone(), path: path.into(), cookie, tab, frame, html, status, headers }
    }

    /// The token of the n-th action on the page.
    pub(crate) fn token(&self, n: usize) -> String {
        self.html
            .split("@act('")
            .nth(n + 1)
            .and_then(|rest| rest.split('\'').next())
            .expect("a token")
            .to_owned()
    }

    /// A POST that is right in every way; a test spoils what it is about.
    pub(crate) fn action(&self, token: &str) -> http::request::Builder {
        Request::post(format!("{}?_via=act", self.path))
            .header("host", HOST)
            .header("origin", format!("https://{HOST}"))
            .header("sec-fetch-site", "same-origin")
            .header("cookie", &self.cookie)
            .header("via-tab", &self.tab)
            .header("via-token", token)
    }

    pub(crate) async fn act(&self, token: &str, signals: &str) -> Answer {
        answer(&self.router, self.action(token), signals.to_owned()).await
    }

    /// Clicks the n-th action, with no signals.
    pub(crate) async fn click(&self, n: usize) -> Answer {
        self.act(&self.token(n), "{}").await
    }

    pub(crate) fn streaming(&self) -> http::request::Builder {
        Request::get(format!("{}?_via=stream", self.path))
            .header("host", HOST)
            .header("cookie", &self.cookie)
            .header("via-tab", &self.tab)
    }

    /// Opens the stream as the tab that shows what the document brought.
    pub(crate) async fn follow(&self) -> Events {
        self.follow_from(&self.frame).await
    }

    pub(crate) async fn follow_from(&self, frame: &str) -> Events {
        let request = self.streaming().header("via-frame", frame).body(Body::empty()).expect("a request");
        let response = send(&self.router, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut events = Events { body: response.into_body().into_data_stream(), rest: String::new() };
        assert_eq!(events.block().await.as_deref(), Some(": via"), "a stream greets");
        events
    }
}

/// The answer to an action.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub(crate) fn is(&self, status: u16, code: &str) -> bool {
        self.status == status && self.code() == code
    }
}

pub(crate) async fn answer(
    router: &Router,
    request: http::request::Builder,
    body: impl Into<Body>,
) -> Answer {
    let response = send(router, request.body(body.into()).expect("a request")).await;
    let status = response.status();
    let body = text(response).await;
    Answer { status, body: serde_json::from_str(&body).unwrap_or(Value::String(body)) }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Response {
    timeout(PATIENCE, router.clone().oneshot(request)).await.expect("an answer in time").expect("infallible")
}

pub(crate) async fn get(router: &Router, path: &str) -> Response {
    send(router, Request::get(path).header("host", HOST).body(Body::empty()).expect("a request")).await
}

pub(crate) async fn text(response: Response) -> String {
    let body =
        timeout(PATIENCE, response.into_body().collect()).await.expect("a body in time").expect("a body");
    String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8")
}

fn meta(html: &str, name: &str) -> String {
    let rest = html.split(&format!("<meta name=\"{name}\" content=\"")).nth(1).unwrap_or_default();
    rest.split('"').next().unwrap_or_default().to_owned()
}

/// An open stream.
pub(crate) struct Events {
    body: BodyDataStream,
    rest: String,
}

impl Events {
    /// The next event that is not a keep-alive; none when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<String> {
        // Around the whole wait: keep-alives would put the end of a wait for each chunk off for ever.
        timeout(PATIENCE, self.news()).await.expect("an event in time")
    }

    async fn news(&mut self) -> Option<String> {
        loop {
            let block = self.block().await?;
            if !block.starts_with(':') {
                return Some(block);
            }
        }
    }

    /// The next frame's HTML.
    pub(crate) async fn frame(&mut self) -> String {
        let event = self.next().await.expect("a frame, not the end");
        assert!(event.starts_with("event: datastar-patch-elements\nid: "), "{event}");
        let lines = event.lines().filter_map(|line| line.strip_prefix("data: elements "));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Skips frames until one contains the text; how many were skipped.
    pub(crate) async fn until(&mut self, text: &str) -> usize {
        let mut skipped = 0;
        while !self.frame().await.contains(text) {
            skipped += 1;
        }
        skipped
    }

    /// Whether the stream has something to say at once.
    pub(crate) fn is_silent(&mut self) -> bool {
        let waker = futures_util::task::noop_waker();
        let mut cx = std::task::Context::from_waker(&waker);
        self.rest.is_empty() && self.body.poll_next_unpin(&mut cx).is_pending()
    }

    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.rest.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.rest = rest;
                return Some(block);
            }
            let chunk = timeout(PATIENCE, self.body.next()).await.expect("an event in time")?;
            self.rest.push_str(std::str::from_utf8(&chunk.expect("a chunk")).expect("whole characters"));
        }
    }
}
