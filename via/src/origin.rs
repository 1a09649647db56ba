//! Whether a request that changes something comes from our own pages.

use http::{HeaderMap, header};

/// The host names an app was asked by, as far as the request tells.
const HOSTS: [&str; 2] = ["host", "x-forwarded-host"];

/// Whether the browser says that the request comes from the same origin.
///
/// At least one of `Sec-Fetch-Site` and `Origin` must be there, and each that is there must agree. The scheme is not
/// compared: behind a proxy that ends TLS this pod cannot know it, and browsers' `Sec-Fetch-Site` covers it.
/// `X-Forwarded-Host` counts beside `Host`, because no page of another origin can set either.
pub(crate) fn is_same(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|site| site == "same-origin");
    let origin =
        headers.get(header::ORIGIN).map(|origin| origin.to_str().is_ok_and(|it| names_us(headers, it)));
    match (site, origin) {
        (None, None) => false,
        (site, origin) => site.unwrap_or(true) && origin.unwrap_or(true),
    }
}

fn names_us(headers: &HeaderMap, origin: &str) -> bool {
    let Some((_scheme, host)) = origin.split_once("://") else {
        return false;
    };
    HOSTS
        .iter()
        .flat_map(|name| headers.get_all(*name))
        .filter_map(|value| value.to_str().ok())
        .any(|ours| ours.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(sent: &[(&'static str, &'static str)]) -> bool {
        is_same(
            &sent
                .iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
                .collect(),
        )
    }

    #[test]
    fn one_agreeing_header_is_enough_and_none_is_not() {
        assert!(same(&[("host", "a.example"), ("origin", "https://a.example")]));
        assert!(same(&[("host", "a.example"), ("sec-fetch-site", "same-origin")]));
        assert!(!same(&[("host", "a.example")]));
    }

    #[test]
    fn a_disagreeing_header_refuses() {
        let host = ("host", "a.example:3000");
        assert!(!same(&[host, ("origin", "https://b.example:3000")]));
        assert!(!same(&[host, ("origin", "https://a.example")]));
        assert!(!same(&[host, ("origin", "null")]));
        assert!(!same(&[host, ("sec-fetch-site", "same-site")]));
        assert!(!same(&[host, ("sec-fetch-site", "none")]));
        assert!(!same(&[host, ("sec-fetch-site", "same-origin"), ("origin", "https://b.example")]));
    }

    #[test]
    fn a_proxy_may_name_the_public_host() {
        let sent =
            [("host", "127.0.0.1"), ("x-forwarded-host", "a.example"), ("origin", "https://a.example")];
        assert!(same(&sent));
    }
}
