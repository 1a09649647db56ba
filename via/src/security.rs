//! The headers that keep a page's promises to its readers.

use axum::response::Response;
use http::{HeaderName, HeaderValue, header};

/// `unsafe-eval` is Datastar's: it compiles expressions. No inline script runs, ours included.
pub(crate) const CSP: &str = "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src-attr 'unsafe-inline'; \
                              object-src 'none'; base-uri 'self'; frame-ancestors 'self'";

/// Adds what every answer carries; what a handler already set stays.
pub(crate) async fn guard(mut response: Response) -> Response {
    let always = [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        // Documents, streams and answers belong to one tab; assets have said otherwise by now.
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in always {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
