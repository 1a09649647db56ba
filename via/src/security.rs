//! The headers that keep a page's promises to its readers.

use axum::response::Response;
use http::{HeaderName, HeaderValue, header};

/// `unsafe-eval` is Datastar's: it compiles expressions. No inline script runs, ours included.
const CSP: &str = "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src-attr 'unsafe-inline'; \
                   object-src 'none'; base-uri 'self'; frame-ancestors 'self'";

/// What every answer says.
const ALWAYS: [(HeaderName, &str); 2] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Documents, streams and answers belong to one tab; files have said otherwise by now.
    (header::CACHE_CONTROL, "no-store"),
];

/// What documents say beside: they are where a browser takes its rules from.
const DOCUMENTS: [(HeaderName, &str); 3] = [
    (header::CONTENT_SECURITY_POLICY, CSP),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Adds what every answer says; what a handler already set stays.
pub(crate) async fn guard(mut response: Response) -> Response {
    add(&mut response, &ALWAYS);
    response
}

/// Adds what a document says.
pub(crate) fn document(mut response: Response) -> Response {
    add(&mut response, &DOCUMENTS);
    response
}

fn add(response: &mut Response, headers: &[(HeaderName, &'static str)]) {
    for (name, value) in headers {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
}
