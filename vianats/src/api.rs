//! Requests to JetStream's API: JSON out, JSON back, errors with codes.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::Instant;
use via_backplane::{BackendError, ErrorKind};

use crate::{
    answers::Answer,
    link::{Failed, Link, unavailable},
};

/// No message is where one was asked for.
pub(crate) const NO_MESSAGE_FOUND: u64 = 10037;
/// The stream does not exist.
pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
/// A stream of this name exists with another configuration.
pub(crate) const STREAM_NAME_IN_USE: u64 = 10058;

/// Why the API gave no answer.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// The server refused.
    Refused(Refusal),
    /// There was no answer, or none that was understood.
    Failed(BackendError),
}

/// What the server says when it refuses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("the server refused: {description} (code {code}, {err_code})")]
pub(crate) struct Refusal {
    #[serde(default)]
    pub(crate) code: u64,
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

/// What the server says as if it were broken (500), though it passes: a stream is not its to answer for (10007, 10009), a
/// consumer could not be made now (10012, 10041), or all servers of a stream or consumer are away (10118, 10119).
const PASSING: [u64; 6] = [10007, 10009, 10012, 10041, 10118, 10119];

impl Refusal {
    /// Whether the server says that it did nothing now, and another time might: it cannot (503), or is asked too much (429).
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self.code, 429 | 503)
    }
}

impl From<Refusal> for BackendError {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal.code {
            _ if refusal.is_temporary() || PASSING.contains(&refusal.err_code) => ErrorKind::Unavailable,
            400 | 404 => ErrorKind::Misconfigured,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, refusal.to_string())
    }
}

impl From<ApiError> for BackendError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Refused(refusal) => refusal.into(),
            ApiError::Failed(error) => error,
        }
    }
}

/// Calls `$JS.API.<call>`.
pub(crate) async fn call<T: DeserializeOwned>(
    link: &Link,
    call: &str,
    body: &impl Serialize,
) -> Result<T, ApiError> {
    let body = serde_json::to_vec(body).expect("a request is plain data");
    let subject = format!("$JS.API.{call}");
    let _turn = link.turn().await.map_err(ApiError::Failed)?;
    let answer = ask(link, &subject, body.into()).await.map_err(|failed| {
        ApiError::Failed(match failed {
            Failed::NoResponders => {
                unavailable("no server answers JetStream requests: is JetStream enabled for this account?")
            }
            failed => failed.error(&subject),
        })
    })?;
    #[derive(Deserialize)]
    struct Outcome {
        error: Option<Refusal>,
    }
    let understood = |error: serde_json::Error| {
        ApiError::Failed(
            BackendError::new(ErrorKind::Internal, format!("the answer on `{subject}` was not understood"))
                .with_source(error),
        )
    };
    let outcome: Outcome = serde_json::from_slice(&answer).map_err(understood)?;
    match outcome.error {
        Some(refusal) => Err(ApiError::Refused(refusal)),
        None => serde_json::from_slice(&answer).map_err(understood),
    }
}

/// How long one question waits. What is asked while a stream has no leader is never answered, also not by the next one.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Asks again and again, for as long as a request may take: every call of the API may be repeated.
async fn ask(link: &Link, subject: &str, body: Bytes) -> Answer {
    let deadline = Instant::now() + link.request_timeout();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match link.request_within(ATTEMPT.min(left), subject.to_owned(), None, body.clone()).await {
            Err(Failed::Silent(_)) if left > ATTEMPT => {}
            answer => return answer,
        }
    }
}

/// A message as the stream's leader holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    /// The header block as it was sent, empty if there is none.
    pub(crate) headers: Vec<u8>,
    pub(crate) payload: Bytes,
    /// When the server stored it.
    pub(crate) time: jiff::Timestamp,
}

impl Held {
    /// The value of a header, the first of its name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let block = std::str::from_utf8(&self.headers).ok()?;
        block.split("\r\n").find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Asks the stream's leader for the last message of a subject, which may be a wildcard: never a lagging answer of a
/// replica.
pub(crate) async fn last_message(link: &Link, stream: &str, subject: &str) -> Result<Option<Held>, ApiError> {
    #[derive(Deserialize)]
    struct Answer {
        message: Encoded,
    }
    #[derive(Deserialize)]
    struct Encoded {
        subject: String,
        seq: u64,
        #[serde(default)]
        hdrs: String,
        #[serde(default)]
        data: String,
        time: jiff::Timestamp,
    }
    let answer =
        call::<Answer>(link, &format!("STREAM.MSG.GET.{stream}"), &json!({ "last_by_subj": subject })).await;
    let message = match answer {
        Ok(answer) => answer.message,
        Err(ApiError::Refused(refusal)) if refusal.err_code == NO_MESSAGE_FOUND => return Ok(None),
        Err(error) => return Err(error),
    };
    let decode = |text: &str| {
        BASE64.decode(text).map_err(|error| {
            ApiError::Failed(
                BackendError::new(ErrorKind::Internal, "a message was not understood").with_source(error),
            )
        })
    };
    Ok(Some(Held {
        sequence: message.seq,
        headers: decode(&message.hdrs)?,
        payload: decode(&message.data)?.into(),
        subject: message.subject,
        time: message.time,
    }))
}

/// Drops messages of a subject; which ones, `bounds` says.
pub(crate) async fn purge(link: &Link, stream: &str, subject: &str, bounds: Purge) -> Result<(), ApiError> {
    #[derive(Serialize)]
    struct Body<'a> {
        filter: &'a str,
        #[serde(flatten)]
        bounds: Purge,
    }
    #[derive(Deserialize)]
    struct Answer {}
    let body = Body { filter: subject, bounds };
    call::<Answer>(link, &format!("STREAM.PURGE.{stream}"), &body).await.map(|Answer {}| ())
}

/// What a purge drops of its subject.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub(crate) enum Purge {
    /// Everything below a sequence.
    Below { seq: u64 },
    /// All but the last so many.
    Keep { keep: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u64, err_code: u64) -> Refusal {
        Refusal { code, err_code, description: "no".into() }
    }

    #[test]
    fn a_server_that_is_asked_too_much_can_be_asked_again() {
        // "too many requests", as a stream says it whose queue is full, and "JetStream system temporarily unavailable".
        for passing in [refusal(429, 10167), refusal(503, 10008)] {
            assert!(passing.is_temporary(), "{passing}");
            assert_eq!(BackendError::from(passing).kind(), ErrorKind::Unavailable);
        }
    }

    #[test]
    fn a_stream_whose_servers_are_away_is_unavailable() {
        let offline = BackendError::from(refusal(500, 10118));
        assert_eq!(offline.kind(), ErrorKind::Unavailable);
        assert_eq!(BackendError::from(refusal(404, STREAM_NOT_FOUND)).kind(), ErrorKind::Misconfigured);
        assert_eq!(BackendError::from(refusal(500, 10111)).kind(), ErrorKind::Internal);
    }
}
