//! The keys everything via signs is signed with.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The bytes of a key id in what was signed.
const KEY_ID: usize = 4;
/// The bytes of a MAC: half of SHA-256's, which RFC 2104 allows and which keeps tokens short in the HTML.
const MAC: usize = 16;
/// What an app's secret must have at least, in bytes.
pub(crate) const MIN_SECRET: usize = 32;

/// Signs and opens the strings a browser keeps for us.
///
/// A sealed string is url-safe base64 of key id, MAC and body. Sealing is deterministic: the same body under the
/// same secret gives the same string on every pod, so that frames can be shared.
#[derive(Clone)]
pub(crate) struct Keyring {
    id: [u8; KEY_ID],
    // The keyed state, cloned per signature: the key schedule is paid once.
    mac: Hmac<Sha256>,
}

/// Why a sealed string was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsealed {
    /// It names a key this pod does not have: signed before the secret changed.
    UnknownKey,
    /// Nobody with the key ever signed this.
    Forged,
}

impl Keyring {
    pub(crate) fn new(secret: &[u8]) -> Self {
        let id = derive(secret, "via key id");
        let key = derive(secret, "via signatures");
        Self { id: id[..KEY_ID].try_into().expect("a digest is longer than a key id"), mac: keyed(&key) }
    }

    /// Signs `body` for `purpose` in a `context` that is signed but not sent.
    pub(crate) fn seal<'a>(
        &self,
        purpose: &'static str,
        context: impl IntoIterator<Item = &'a [u8]>,
        body: &[u8],
    ) -> String {
        let tag = self.sign(purpose, context, body).finalize().into_bytes();
        let mut sealed = Vec::with_capacity(KEY_ID + MAC + body.len());
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(&tag[..MAC]);
        sealed.extend_from_slice(body);
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// The body of a string sealed for this purpose and context.
    pub(crate) fn open<'a>(
        &self,
        purpose: &'static str,
        context: impl IntoIterator<Item = &'a [u8]>,
        sealed: &str,
    ) -> Result<Vec<u8>, Unsealed> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| Unsealed::Forged)?;
        let (id, rest) = bytes.split_at_checked(KEY_ID).ok_or(Unsealed::Forged)?;
        let (tag, body) = rest.split_at_checked(MAC).ok_or(Unsealed::Forged)?;
        if id != self.id {
            return Err(Unsealed::UnknownKey);
        }
        let signed = self.sign(purpose, context, body);
        signed.verify_truncated_left(tag).map_err(|_| Unsealed::Forged)?;
        Ok(body.to_vec())
    }

    fn sign<'a>(
        &self,
        purpose: &'static str,
        context: impl IntoIterator<Item = &'a [u8]>,
        body: &[u8],
    ) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        // Lengths go first: two different lists of parts never run together into the same bytes.
        let mut part = |bytes: &[u8]| {
            mac.update(&(bytes.len() as u64).to_be_bytes());
            mac.update(bytes);
        };
        part(purpose.as_bytes());
        context.into_iter().for_each(&mut part);
        part(body);
        mac
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn derive(secret: &[u8], label: &str) -> [u8; 32] {
    let mut mac = keyed(secret);
    mac.update(label.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(secret: u8) -> Keyring {
        Keyring::new(&[secret; MIN_SECRET])
    }

    #[test]
    fn what_was_sealed_opens_for_its_purpose_and_context_only() {
        let keys = ring(1);
        let sealed = keys.seal("act", [b"/".as_slice(), b"room"], b"body");
        assert_eq!(keys.open("act", [b"/".as_slice(), b"room"], &sealed), Ok(b"body".to_vec()));
        assert_eq!(keys.open("tab", [b"/".as_slice(), b"room"], &sealed), Err(Unsealed::Forged));
        assert_eq!(keys.open("act", [b"/r".as_slice(), b"oom"], &sealed), Err(Unsealed::Forged));
        assert_eq!(keys.open("act", [b"/room".as_slice()], &sealed), Err(Unsealed::Forged));
    }

    #[test]
    fn sealing_is_deterministic_across_pods() {
        assert_eq!(ring(1).seal("act", [], b"x"), ring(1).seal("act", [], b"x"));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let keys = ring(1);
        let sealed = keys.seal("act", [], b"body");
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert!(keys.open("act", [], &changed).is_err(), "character {at}");
        }
        for len in 0..sealed.len() {
            assert!(keys.open("act", [], &sealed[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn another_secret_is_told_apart_from_a_forgery() {
        let sealed = ring(1).seal("act", [], b"body");
        assert_eq!(ring(2).open("act", [], &sealed), Err(Unsealed::UnknownKey));
    }
}
