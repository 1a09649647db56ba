//! The trace an action belongs to.

use http::HeaderMap;
use via_backplane::TraceContext;

/// The flag that says that the trace id is random; nobody has asked yet to have the trace sampled.
const RANDOM: u8 = 0b10;

/// The trace of a request: what the browser's or the proxy's `traceparent` says, else the root of a new one.
pub(crate) fn of(headers: &HeaderMap) -> TraceContext {
    let mut sent = headers.get_all("traceparent").iter();
    let one = sent.next().filter(|_| sent.next().is_none());
    one.and_then(|value| TraceContext::parse(value.to_str().ok()?)).unwrap_or_else(root)
}

fn root() -> TraceContext {
    // All zeros would mean "no trace".
    TraceContext {
        trace_id: rand::random::<u128>().max(1).to_be_bytes(),
        span_id: rand::random::<u64>().max(1).to_be_bytes(),
        flags: RANDOM,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(sent: &[&'static str]) -> HeaderMap {
        sent.iter()
            .map(|sent| (http::HeaderName::from_static("traceparent"), HeaderValue::from_static(sent)))
            .collect()
    }

    #[test]
    fn one_valid_header_is_continued() {
        assert_eq!(of(&headers(&[SENT])).to_string(), SENT);
    }

    #[test]
    fn anything_else_starts_a_trace_of_its_own() {
        for sent in [&[][..], &["junk"], &[SENT, SENT]] {
            let (one, two) = (of(&headers(sent)), of(&headers(sent)));
            assert_ne!(one.trace_id, two.trace_id, "{sent:?}");
            assert_eq!(TraceContext::parse(&one.to_string()), Some(one), "{sent:?}");
        }
    }
}
