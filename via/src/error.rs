//! What an app's own code fails with.

use std::{error::Error as StdError, fmt};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any failure: internal, or a rejection a person is meant to read.
///
/// Every error type converts by `?` and is then *internal*: the browser gets a generic notice, the log the detail.
/// [`reject`] makes the other kind. It is not a [`std::error::Error`] itself, which is what lets `?` take them all.
///
/// ```
/// fn parse(text: &str) -> via::Result<u32> {
///     let number: u32 = text.parse()?;
///     if number > 9 {
///         return Err(via::reject("Pick a number from 0 to 9."));
///     }
///     Ok(number)
/// }
/// assert_eq!(parse("12").unwrap_err().to_string(), "Pick a number from 0 to 9.");
/// ```
pub struct Error(pub(crate) Kind);

pub(crate) enum Kind {
    Internal(Box<dyn StdError + Send + Sync>),
    Rejected(String),
    Signal(SignalError),
}

/// Refuses an action with a text for the person who asked for it.
///
/// ```
/// let error = via::reject("Say your name first.");
/// assert_eq!(error.to_string(), "Say your name first.");
/// ```
#[must_use = "return it: `Err(via::reject(..))`"]
pub fn reject(text: impl Into<String>) -> Error {
    Error(Kind::Rejected(text.into()))
}

/// What the engine is told when a user's closure refused; the refusal itself waits beside it.
///
/// The engine hands a refusal back by its type, and wraps other errors around it; an [`Error`] is any error already.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("refused")]
pub(crate) struct Refused;

/// Where a refusal waits.
#[derive(Default)]
pub(crate) struct Refusals(Option<Error>);

impl Refusals {
    pub(crate) fn keep(&mut self, error: Error) -> Refused {
        self.0 = Some(error);
        Refused
    }

    /// The refusal, if the engine says that it was one.
    pub(crate) fn restore<E: StdError + Send + Sync + 'static>(self, error: E, refused: bool) -> Error {
        self.0.filter(|_| refused).unwrap_or_else(|| error.into())
    }
}

/// A signal the browser sent is not what its field is typed as.
///
/// Not a [`std::error::Error`], so that `?` cannot turn it into an internal error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignalError {
    /// The signal's key.
    pub(crate) field: String,
    pub(crate) problem: SignalProblem,
}

/// What is wrong with a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalProblem {
    Missing,
    Empty,
    WrongType,
    OutOfRange,
}

impl SignalProblem {
    /// The code browsers and tests know it by: part of the wire protocol.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Missing => "signal_missing",
            Self::Empty => "signal_empty",
            Self::WrongType => "signal_wrong_type",
            Self::OutOfRange => "signal_out_of_range",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Missing => "is missing",
            Self::Empty => "is empty",
            Self::WrongType => "is not of the right type",
            Self::OutOfRange => "is out of range",
        }
    }
}

impl fmt::Display for SignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.field, self.problem.text())
    }
}

impl From<SignalError> for Error {
    fn from(error: SignalError) -> Self {
        Self(Kind::Signal(error))
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self(Kind::Internal(error.into()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Internal(error) => error.fmt(f),
            Kind::Rejected(text) => f.write_str(text),
            Kind::Signal(error) => error.fmt(f),
        }
    }
}

/// One line with every cause: `main` prints it when it returns an error.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        let Kind::Internal(error) = &self.0 else {
            return Ok(());
        };
        let mut cause = error.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn debug_is_one_line_with_every_cause() {
        let inner = "x".parse::<u8>().unwrap_err();
        let error = Error::from(Outer(inner));
        assert_eq!(error.to_string(), "cannot listen");
        assert_eq!(format!("{error:?}"), "cannot listen: invalid digit found in string");
    }
}
