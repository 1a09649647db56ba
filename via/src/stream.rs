//! The stream of one tab: the shared frames, keep-alives, and a goodbye.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::Stream as _;
use http::{HeaderValue, header};
use http_body::Frame as BodyFrame;
use metrics::Counter;
use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::wrappers::WatchStream;

use crate::{
    frame::FrameId,
    frames::{Latest, Sent},
    metrics::Counted,
    page::Mounted,
};

/// How often a silent stream says that it lives: proxies cut idle connections after a minute or less.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a stream starts with, so that the browser has the headers and knows that it is live.
const HELLO: Bytes = Bytes::from_static(b": via\n\n");
const ALIVE: Bytes = Bytes::from_static(b":\n\n");
/// Where a stream that the server ends sends its tab: back, soon, spread out over a second.
const GOODBYE: Bytes = Bytes::from_static(b"retry: 1000\n\n");

/// The body of a stream's response.
///
/// Written by hand: there is one per tab, and a tower of combinators would be most of what an idle tab costs.
struct TabStream {
    frames: WatchStream<Latest>,
    keep_alive: Pin<Box<Sleep>>,
    shown: Option<FrameId>,
    stage: Stage,
    sent: Counter,
    _open: Counted,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Live,
    Over,
}

/// The stream of a tab that shows `shown`.
pub(crate) fn respond(
    page: &Mounted,
    frames: tokio::sync::watch::Receiver<Latest>,
    shown: Option<FrameId>,
) -> Response {
    page.metrics.streams_opened.increment(1);
    let body = TabStream {
        frames: WatchStream::new(frames),
        keep_alive: Box::pin(sleep(KEEP_ALIVE)),
        shown,
        stage: Stage::Opening,
        sent: page.metrics.sent.clone(),
        _open: Counted::new(&page.metrics.streams),
    };
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx holds a response back until its buffer is full, unless told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl TabStream {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self.stage {
            Stage::Opening => {
                self.stage = Stage::Live;
                Poll::Ready(Some(HELLO))
            }
            Stage::Live => Poll::Ready(Some(ready!(self.poll_live(cx)))),
            Stage::Over => Poll::Ready(None),
        }
    }

    fn poll_live(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        while let Poll::Ready(item) = Pin::new(&mut self.frames).poll_next(cx) {
            match item {
                Some(latest) => {
                    if let Some(event) = latest.and_then(|sent| self.news(&sent)) {
                        self.rest();
                        return Poll::Ready(event);
                    }
                }
                None => {
                    self.stage = Stage::Over;
                    return Poll::Ready(GOODBYE);
                }
            }
        }
        ready!(self.keep_alive.as_mut().poll(cx));
        self.rest();
        Poll::Ready(ALIVE)
    }

    /// The event, unless the tab shows that frame already.
    fn news(&mut self, sent: &Arc<Sent>) -> Option<Bytes> {
        if sent.frame.is_some() {
            if sent.frame == self.shown {
                return None;
            }
            self.shown = sent.frame;
        }
        self.sent.increment(1);
        Some(sent.event.clone())
    }

    fn rest(&mut self) {
        self.keep_alive.as_mut().reset(Instant::now() + KEEP_ALIVE);
    }
}

impl http_body::Body for TabStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Infallible>>> {
        self.get_mut().poll_event(cx).map(|event| event.map(|bytes| Ok(BodyFrame::data(bytes))))
    }
}
