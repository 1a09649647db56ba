//! Server addresses, and the credentials they may carry.

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;
use via_backplane::{BackendError, ErrorKind};

/// Where to connect, and as whom. The addresses carry no credentials any more: the client logs them.
#[derive(Clone)]
pub(crate) struct Servers {
    pub(crate) addresses: Vec<ServerAddr>,
    pub(crate) credentials: Option<Credentials>,
}

/// What the first address that carries anything carries.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    User(String, String),
    Token(String),
}

impl Servers {
    /// Reads addresses separated by commas.
    ///
    /// # Errors
    /// If there is none, or one is not valid. The error does not quote it: it may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self, BackendError> {
        let mut servers = Self { addresses: Vec::new(), credentials: None };
        for part in url.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (scheme, rest) = part.split_once("://").unwrap_or(("nats", part));
            let (carried, host) = match rest.rsplit_once('@') {
                Some((carried, host)) => (Some(carried), host),
                None => (None, rest),
            };
            let address = format!("{scheme}://{host}").parse().map_err(|_| not_valid())?;
            servers.addresses.push(address);
            servers.credentials = servers.credentials.or_else(|| carried.map(Credentials::parse));
        }
        if servers.addresses.is_empty() { Err(not_valid()) } else { Ok(servers) }
    }
}

impl Credentials {
    fn parse(carried: &str) -> Self {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        match carried.split_once(':') {
            Some((user, password)) => Self::User(decoded(user), decoded(password)),
            None => Self::Token(decoded(carried)),
        }
    }
}

/// The addresses for logs and errors.
pub(crate) fn shown(addresses: &[ServerAddr]) -> String {
    let shown: Vec<_> =
        addresses.iter().map(|address| format!("{}:{}", address.host(), address.port())).collect();
    shown.join(", ")
}

fn not_valid() -> BackendError {
    BackendError::new(
        ErrorKind::Misconfigured,
        "the server address is not valid: expected nats://host:port or tls://host:port, several separated by commas",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Servers {
        Servers::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn credentials_are_taken_out_of_the_addresses() {
        let servers = parsed("nats://alice:p%40ss@localhost:4222, tls://token@other, plain:99");
        assert_eq!(shown(&servers.addresses), "localhost:4222, other:4222, plain:99");
        assert!(servers.credentials == Some(Credentials::User("alice".into(), "p@ss".into())));
        assert!(!format!("{:?}", servers.addresses).contains("alice"), "{:?}", servers.addresses);
        assert!(parsed("nats://s3cret@host").credentials == Some(Credentials::Token("s3cret".into())));
        assert!(parsed("nats://host").credentials.is_none());
    }

    #[test]
    fn a_wrong_address_is_refused_without_being_quoted() {
        for wrong in ["", ",", "nats://user:secret@:x", "http://user:secret@host"] {
            let error = Servers::parse(wrong).err().unwrap_or_else(|| panic!("{wrong} was accepted"));
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{wrong}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}
