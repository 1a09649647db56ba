//! Ephemeral messages between pods, where a backend can.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::{BackendError, InvalidKey, Reply, Retry, TooLarge, key};

/// Best-effort broadcast to every pod.
///
/// # Guarantees
///
/// - **F1** Every live subscriber on every pod gets a message at most once.
/// - **F2** There is no replay: a subscriber gets what is published after it subscribed.
/// - **F3** A slow subscriber loses messages and never blocks the publisher or others.
pub trait Feed: Send + Sync {
    /// Sends a message to whoever listens now.
    ///
    /// # Cancel safety
    /// Dropping the reply abandons the answer; the message may still be sent.
    fn publish<'a>(&'a self, topic: &'a Topic, message: Bytes) -> Reply<'a, Result<(), PublishError>>;

    /// Listens to a topic. The reply answers when messages published from now on will arrive.
    ///
    /// # Cancel safety
    /// Cancel-safe; dropping the subscription ends it.
    fn subscribe<'a>(&'a self, topic: &'a Topic) -> Reply<'a, Result<Messages, BackendError>>;
}

/// Messages of one topic as they arrive. Its last item is an error; after it, subscribe again.
pub type Messages = BoxStream<'static, Result<Bytes, BackendError>>;

/// The longest topic name, in bytes.
pub const MAX_TOPIC_BYTES: usize = 256;

/// The name of a feed; any characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Names a feed.
    ///
    /// # Errors
    /// [`InvalidKey`] if the name is empty or longer than [`MAX_TOPIC_BYTES`].
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidKey> {
        key::check("topic", name.as_ref(), MAX_TOPIC_BYTES).map(|name| Self(name.into()))
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?})", &*self.0)
    }
}

/// Why a message was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Refused before anything was sent.
    #[error("too large to publish")]
    TooLarge(#[source] TooLarge),
    /// The backend failed.
    #[error("the backplane could not publish")]
    Backend(#[source] BackendError),
}

impl PublishError {
    /// Whether repeating the publication is right; a message that was sent may then arrive twice.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::TooLarge(_) => Retry::Never,
            Self::Backend(error) => error.retry(),
        }
    }
}
