//! An action as the page carries it: signed, so that only what was rendered can be run.

use std::any::type_name;

use serde::{Serialize, de::DeserializeOwned};

use crate::keyring::Keyring;

const PURPOSE: &str = "via action 1";
/// The bytes of the action type's tag in a token's body.
const TAG: usize = 4;
/// The most bytes an action may have encoded: tokens travel in a header, and proxies allow few KiB there.
const MAX_ACTION: usize = 4096;

/// Where an action may be run: what its token is good for and nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The page's path as the app wrote it, `/rooms/{id}`.
    pub(crate) page: &'a str,
    /// The path parameters of this request, in order.
    pub(crate) params: &'a Params,
    /// The component in the page; empty for the page itself.
    pub(crate) component: &'a str,
}

/// The path parameters of a request, in order: name, value.
pub(crate) type Params = [(Box<str>, Box<str>)];

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadToken {
    /// Not signed by this app for this place.
    Forged,
    /// Signed, but by a binary whose action type was another.
    Stale,
}

impl Target<'_> {
    fn context(&self) -> impl Iterator<Item = &[u8]> {
        [self.page.as_bytes(), self.component.as_bytes()]
            .into_iter()
            .chain(self.params.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]))
    }

    /// The token of an action.
    ///
    /// # Panics
    /// If the action does not serialize, or is larger than a header may carry.
    pub(crate) fn seal<A: Serialize>(&self, keys: &Keyring, action: &A) -> String {
        let mut body = tag::<A>().to_vec();
        let payload = rmp_serde::to_vec_named(action).expect("an action serializes");
        assert!(
            payload.len() <= MAX_ACTION,
            "an action of `{}` has {} bytes encoded, {MAX_ACTION} are allowed: carry an id, keep the data in state",
            type_name::<A>(),
            payload.len(),
        );
        body.extend_from_slice(&payload);
        keys.seal(PURPOSE, self.context(), &body)
    }

    /// The body of a token that was signed for here.
    pub(crate) fn verify(&self, keys: &Keyring, token: &str) -> Result<Vec<u8>, BadToken> {
        keys.open(PURPOSE, self.context(), token).map_err(|_| BadToken::Forged)
    }
}

/// The action in a verified token's body.
pub(crate) fn decode<A: DeserializeOwned>(body: &[u8]) -> Result<A, BadToken> {
    let (signed, payload) = body.split_at_checked(TAG).ok_or(BadToken::Stale)?;
    // A payload of one type may well decode as another's variant of the same name and mean something else.
    if signed != tag::<A>() {
        return Err(BadToken::Stale);
    }
    rmp_serde::from_slice(payload).map_err(|_| BadToken::Stale)
}

fn tag<A>() -> [u8; TAG] {
    blake3::hash(type_name::<A>().as_bytes()).as_bytes()[..TAG].try_into().expect("a digest is longer")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Act {
        Send,
        Clear { before: u64 },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Other {
        Send,
    }

    fn keys() -> Keyring {
        Keyring::new(&[7; 32])
    }

    fn here<'a>(params: &'a Params) -> Target<'a> {
        Target { page: "/rooms/{id}", params, component: "" }
    }

    fn id(value: &str) -> Vec<(Box<str>, Box<str>)> {
        vec![("id".into(), value.into())]
    }

    #[test]
    fn a_token_carries_its_action() {
        let params = id("1");
        let token = here(&params).seal(&keys(), &Act::Clear { before: u64::MAX });
        let body = here(&params).verify(&keys(), &token).expect("signed here");
        assert_eq!(decode::<Act>(&body), Ok(Act::Clear { before: u64::MAX }));
        assert!(token.len() < 100, "{token}");
    }

    #[test]
    fn a_token_is_good_for_its_page_parameters_and_component_only() {
        let (one, two) = (id("1"), id("2"));
        let token = here(&one).seal(&keys(), &Act::Send);
        let elsewhere =
            [here(&two), Target { page: "/", ..here(&one) }, Target { component: "left", ..here(&one) }];
        for target in elsewhere {
            assert_eq!(target.verify(&keys(), &token), Err(BadToken::Forged), "{target:?}");
        }
    }

    #[test]
    fn another_type_with_the_same_variant_is_stale() {
        let params = id("1");
        let token = here(&params).seal(&keys(), &Act::Send);
        let body = here(&params).verify(&keys(), &token).expect("signed here");
        assert_eq!(decode::<Other>(&body), Err(BadToken::Stale));
    }

    #[test]
    #[should_panic(expected = "carry an id")]
    fn an_action_too_large_for_a_header_says_what_to_do() {
        here(&[]).seal(&keys(), &"x".repeat(MAX_ACTION));
    }
}
