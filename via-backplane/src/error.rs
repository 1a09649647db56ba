//! What can go wrong at the backplane, and what to do about it.

use std::{borrow::Cow, error::Error as StdError, fmt};

use crate::{Head, Rev};

/// A cause of any type.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// An error with its causes, on one line.
pub(crate) fn described(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Whether repeating a failed call is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Repeating gives the same answer.
    Never,
    /// The call had no effect; repeating it is safe.
    Safe,
    /// The call may have had its effect; repeating it may have it twice.
    MayDuplicate,
}

/// What kind of failure a backend reports; each says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The backend cannot be reached, or did not answer in time: try again later.
    Unavailable,
    /// This backplane was closed: stop.
    Closed,
    /// The backend refused for lack of permission: fix the permission.
    Denied,
    /// The backend is set up in a way that would lose data, or the caller asked for the impossible: fix it.
    Misconfigured,
    /// The backend answered something this adapter does not understand: report it.
    Internal,
}

/// "The backend failed": a kind, one line, and the cause.
///
/// ```
/// use via_backplane::{BackendError, ErrorKind, Retry};
/// let error = BackendError::new(ErrorKind::Unavailable, "the server did not answer");
/// assert_eq!(error.retry(), Retry::Safe);
/// ```
pub struct BackendError {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<BoxError>,
}

impl BackendError {
    /// An error without a further cause. `message` is one lower-case line.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds the cause.
    #[must_use = "returns the error with its cause"]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The error every call on a closed backplane answers with (guarantee B1).
    #[must_use]
    pub fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the backplane is closed")
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether repeating the call is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self.kind {
            ErrorKind::Unavailable => Retry::Safe,
            _ => Retry::Never,
        }
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendError")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for BackendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Something larger than the backend holds, refused before anything was sent (guarantee S6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {what} is {size} large, the limit is {limit}")]
pub struct TooLarge {
    /// What was too large: "record", "batch", "cell" or "message".
    pub what: &'static str,
    /// Its size, in bytes (records for a batch).
    pub size: usize,
    /// The limit, in the same unit.
    pub limit: usize,
}

/// Why an append did not return offsets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// An expectation failed; nothing was appended.
    #[error("the key's head is not the expected one")]
    Conflict {
        /// The key's head where the backend says it, in the log's present epoch.
        head: Option<Head>,
    },
    /// This id was appended before, and the backend cannot recall the offsets; nothing was appended now.
    #[error("this append id was used before")]
    Duplicate,
    /// The outcome is unknown: the records may be in the log now, or may still land.
    #[error("the append may or may not have been committed")]
    MaybeCommitted(#[source] BackendError),
    /// Refused before anything was sent.
    #[error("too large to append")]
    TooLarge(#[source] TooLarge),
    /// The backend failed; nothing was appended.
    #[error("the backplane could not append")]
    Backend(#[source] BackendError),
}

impl AppendError {
    /// Whether repeating the append is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Conflict { .. } | Self::Duplicate | Self::TooLarge(_) => Retry::Never,
            Self::MaybeCommitted(_) => Retry::MayDuplicate,
            Self::Backend(error) => error.retry(),
        }
    }
}

/// Why a compare-and-swap did not take place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CasError {
    /// Somebody else wrote first; nothing was written.
    #[error("the cell changed meanwhile")]
    Conflict {
        /// The cell's revision where the backend says it; `None` also for an absent cell.
        rev: Option<Rev>,
    },
    /// The outcome is unknown: the value may be in the store now, or may still land.
    #[error("the write may or may not have been committed")]
    MaybeCommitted(#[source] BackendError),
    /// Refused before anything was sent.
    #[error("too large to store")]
    TooLarge(#[source] TooLarge),
    /// The backend failed; nothing was written.
    #[error("the backplane could not write the cell")]
    Backend(#[source] BackendError),
}

impl CasError {
    /// Whether repeating the write is right.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Conflict { .. } | Self::TooLarge(_) => Retry::Never,
            Self::MaybeCommitted(_) => Retry::MayDuplicate,
            Self::Backend(error) => error.retry(),
        }
    }
}
