//! The tab token: proof that a request comes from a document this app gave to this session.

use crate::{
    keyring::{Keyring, Unsealed},
    session::Session,
};

const PURPOSE: &str = "via tab 1";
/// The bytes that name a tab.
const ID: usize = 8;
/// The bytes of the session's digest in the token.
const OWNER: usize = 8;

/// Why a tab token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadTab {
    /// Nobody ever signed it.
    Forged,
    /// It was good once, or is good for another session: a fresh document gives a fresh one.
    Reload,
}

/// A token for one new tab of a session.
pub(crate) fn issue(keys: &Keyring, session: Session) -> String {
    let mut body = [0; ID + OWNER];
    body[..ID].copy_from_slice(&rand::random::<[u8; ID]>());
    body[ID..].copy_from_slice(&owner(session));
    keys.seal(PURPOSE, [], &body)
}

/// Checks that a token was issued to the session of the request.
///
/// The token names its session by a digest, so that one from another session can be told from a forged one.
pub(crate) fn check(keys: &Keyring, session: Option<Session>, token: &str) -> Result<(), BadTab> {
    let body = keys.open(PURPOSE, [], token).map_err(|unsealed| match unsealed {
        Unsealed::Forged => BadTab::Forged,
        Unsealed::UnknownKey => BadTab::Reload,
    })?;
    match session {
        Some(session) if body.len() == ID + OWNER && body[ID..] == owner(session) => Ok(()),
        _ => Err(BadTab::Reload),
    }
}

fn owner(session: Session) -> [u8; OWNER] {
    blake3::hash(session.id()).as_bytes()[..OWNER].try_into().expect("a digest is longer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keyring {
        Keyring::new(&[7; 32])
    }

    #[test]
    fn a_token_is_good_for_its_session() {
        let session = Session::new();
        let token = issue(&keys(), session);
        assert_eq!(check(&keys(), Some(session), &token), Ok(()));
        assert_ne!(issue(&keys(), session), token, "every tab has its own");
    }

    #[test]
    fn a_foreign_token_asks_for_a_reload() {
        let token = issue(&keys(), Session::new());
        assert_eq!(check(&keys(), Some(Session::new()), &token), Err(BadTab::Reload));
        assert_eq!(check(&keys(), None, &token), Err(BadTab::Reload));
    }

    #[test]
    fn an_expired_token_asks_for_a_reload_and_a_forged_one_does_not() {
        let session = Session::new();
        let before = issue(&Keyring::new(&[8; 32]), session);
        assert_eq!(check(&keys(), Some(session), &before), Err(BadTab::Reload));
        let mut forged = issue(&keys(), session);
        let last = if forged.pop() == Some('A') { 'Q' } else { 'A' };
        forged.push(last);
        assert_eq!(check(&keys(), Some(session), &forged), Err(BadTab::Forged));
        assert_eq!(check(&keys(), Some(session), ""), Err(BadTab::Forged));
    }
}
