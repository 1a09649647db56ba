//! What a request is answered with when it is not served.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// What people read when something failed that is not theirs to know.
pub(crate) const GENERIC: &str = "Something went wrong here. It has been noted.";

/// Why a request is not served. The code is stable: scripts and tests may rely on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not JSON, or not an object.
    Malformed,
    /// Another origin, or a token nobody signed for here.
    Forbidden,
    /// The tab's token is of another session or another secret: a fresh document mends it.
    Reload,
    /// A valid token whose action this binary does not know.
    StaleAction,
    /// The body is over the limit.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// Stopping, or too busy. Nothing was run.
    Unavailable,
}

#[derive(Serialize)]
struct Answer {
    code: &'static str,
    notice: &'static str,
}

impl Refusal {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Forbidden => "forbidden",
            Self::Reload => "reload",
            Self::StaleAction => "stale_action",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Unavailable => "unavailable",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Reload | Self::StaleAction => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn notice(&self) -> &'static str {
        match self {
            Self::Malformed => GENERIC,
            Self::Forbidden => "This was not allowed. Please reload the page.",
            Self::Reload => "This page is out of date. Please reload it.",
            Self::StaleAction => "This page has been updated. Please reload it.",
            Self::TooLarge => "This is too large to send.",
            Self::TooSlow => "This took too long to arrive. Please try again.",
            Self::Unavailable => "The server is busy. Please try again.",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = json(self.status(), &Answer { code: self.code(), notice: self.notice() });
        if self == Self::Unavailable {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// A JSON response.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("an answer is plain data");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
