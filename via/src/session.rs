//! The session: a signed cookie, created by a document and by nothing else.

use std::fmt;

use http::{HeaderMap, HeaderValue, header};

use crate::keyring::Keyring;

const COOKIE: &str = "via_session";
const PURPOSE: &str = "via session 1";
const ID: usize = 16;

/// Which browser a request comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session([u8; ID]);

/// Whether the session cookie may travel over plain HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Bound to a real address: the cookie is `Secure`.
    Public,
    /// Bound to loopback, where there is no TLS to ask for.
    Loopback,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self(rand::random())
    }

    /// The session whose cookie came with the request. A malformed cookie is none.
    pub(crate) fn of(headers: &HeaderMap, keys: &Keyring) -> Option<Self> {
        cookies(headers).find_map(|sealed| {
            let id = keys.open(PURPOSE, [], sealed).ok()?;
            Some(Self(id.try_into().ok()?))
        })
    }

    pub(crate) fn id(&self) -> &[u8] {
        &self.0
    }

    /// The header that gives the browser this session. It ends with the browser.
    pub(crate) fn set_cookie(&self, keys: &Keyring, transport: Transport) -> HeaderValue {
        let secure = match transport {
            Transport::Public => "; Secure",
            Transport::Loopback => "",
        };
        let sealed = keys.seal(PURPOSE, [], &self.0);
        HeaderValue::try_from(format!("{COOKIE}={sealed}; Path=/; HttpOnly; SameSite=Lax{secure}"))
            .expect("base64 is a header value")
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The id alone opens nothing, but a log is no place for it either.
        f.write_str("Session(..)")
    }
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keyring {
        Keyring::new(&[7; 32])
    }

    fn sent(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, cookie.parse().expect("a header value"))])
    }

    #[test]
    fn a_cookie_gives_the_session_back() {
        let session = Session::new();
        let set = session.set_cookie(&keys(), Transport::Public);
        let set = set.to_str().expect("ASCII");
        assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{set}");
        let pair = set.split(';').next().expect("a pair");
        assert_eq!(Session::of(&sent(&format!("a=b; {pair}; c=d")), &keys()), Some(session));
    }

    #[test]
    fn loopback_needs_no_tls() {
        let set = Session::new().set_cookie(&keys(), Transport::Loopback);
        assert!(!set.to_str().expect("ASCII").contains("Secure"));
    }

    #[test]
    fn a_malformed_cookie_is_no_session() {
        for cookie in ["via_session=", "via_session=AAAA", "via_session", "via_session=%%%; x", ""] {
            assert_eq!(Session::of(&sent(cookie), &keys()), None, "{cookie}");
        }
    }

    #[test]
    fn a_valid_cookie_counts_beside_a_malformed_one() {
        let session = Session::new();
        let set = session.set_cookie(&keys(), Transport::Loopback);
        let pair = set.to_str().expect("ASCII").split(';').next().expect("a pair").to_owned();
        assert_eq!(Session::of(&sent(&format!("via_session=junk; {pair}")), &keys()), Some(session));
    }
}
