//! What the server says of a publish.

use std::fmt;

use serde::Deserialize;
use via_backplane::{BackendError, ErrorKind};

use crate::api::Refusal;

/// Somebody else's write came first.
pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10071;
/// On a replicated stream: another write to the subject is on its way, so nobody knows yet what will be last.
pub(crate) const UNDECIDED_LAST_SEQUENCE: u64 = 10164;
/// A rollup that is none was refused; only a question whether an id is known asks for one.
pub(crate) const ROLLUP_REFUSED: u64 = 10111;
/// A publish with this id is on its way.
pub(crate) const ID_ON_ITS_WAY: u64 = 10158;
/// A batch has an id that was used before.
pub(crate) const BATCH_HAS_DUPLICATE: u64 = 10201;
/// Part of a batch was lost on its way, or its leader has changed.
pub(crate) const BATCH_INCOMPLETE: u64 = 10176;
/// The store failed.
pub(crate) const STORE_FAILED: u64 = 10077;
/// As many batches are open as the server allows.
pub(crate) const TOO_MANY_BATCHES: u64 = 10210;

/// A publish that was stored, now or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Where: of a batch, its last message.
    pub(crate) sequence: u64,
    /// It was stored before, under the same id.
    pub(crate) duplicate: bool,
}

/// A publish that was not stored.
#[derive(Debug)]
pub(crate) enum NotStored {
    /// The server refused.
    Refused(Refusal),
    /// What it said was not understood.
    Garbled(BackendError),
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stored at {}", self.sequence)
    }
}

/// Reads an ack.
pub(crate) fn read(payload: &[u8]) -> Result<Stored, NotStored> {
    if let Some(sequence) = plain(payload) {
        return Ok(Stored { sequence, duplicate: false });
    }
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        seq: u64,
        #[serde(default)]
        duplicate: bool,
        error: Option<Refusal>,
    }
    match serde_json::from_slice::<Answer>(payload) {
        Ok(Answer { error: Some(refusal), .. }) => Err(NotStored::Refused(refusal)),
        Ok(Answer { seq, duplicate, .. }) if seq > 0 => Ok(Stored { sequence: seq, duplicate }),
        Ok(_) => Err(NotStored::Garbled(garbled(payload))),
        Err(error) => Err(NotStored::Garbled(garbled(payload).with_source(error))),
    }
}

/// Almost every ack is `{"stream":"<name>","seq":<n>}`, and appends are many: no parser is needed for that.
fn plain(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).ok()?;
    let (_, rest) = text.strip_prefix("{\"stream\":\"")?.split_once('"')?;
    let sequence = rest.strip_prefix(",\"seq\":")?.strip_suffix('}')?.trim().parse().ok()?;
    (sequence > 0).then_some(sequence)
}

fn garbled(payload: &[u8]) -> BackendError {
    BackendError::new(ErrorKind::Internal, format!("an ack was not understood: {} bytes", payload.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(text: &str) -> Result<Stored, NotStored> {
        read(text.as_bytes())
    }

    #[test]
    fn every_form_of_an_ack_is_read() {
        let at = |sequence, duplicate| Stored { sequence, duplicate };
        assert_eq!(ack(r#"{"stream":"via-events","seq":7}"#).expect("stored"), at(7, false));
        assert_eq!(ack(r#"{"stream":"via-events", "seq":7}"#).expect("stored"), at(7, false));
        assert_eq!(ack(r#"{"stream":"e","seq":7,"duplicate": true}"#).expect("stored"), at(7, true));
        assert_eq!(ack(r#"{"stream":"e","domain":"hub","seq":7}"#).expect("stored"), at(7, false));
        assert_eq!(ack(r#"{"stream":"e","seq":9,"batch":"b","count":3}"#).expect("stored"), at(9, false));
    }

    #[test]
    fn a_refusal_keeps_its_code() {
        let refused = r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"},"stream":"e","seq":0}"#;
        let Err(NotStored::Refused(refusal)) = ack(refused) else { panic!("refused") };
        assert_eq!(refusal.err_code, WRONG_LAST_SEQUENCE);
    }

    #[test]
    fn what_is_no_ack_is_said_to_be_garbled() {
        for garbled in ["", "{}", "nonsense", r#"{"stream":"e","seq":0}"#, r#"{"stream":"e","seq":-1}"#] {
            assert!(matches!(ack(garbled), Err(NotStored::Garbled(_))), "{garbled}");
        }
    }
}
