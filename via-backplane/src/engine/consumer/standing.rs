//! How a consumer stands on this pod.

use std::fmt;

use tokio::sync::watch;

use crate::Offset;

/// How a consumer stands, as far as this pod knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Another pod runs it, or nobody may.
    Contending,
    /// This pod runs it.
    Owning {
        /// The lease's number.
        term: u64,
    },
    /// This pod holds it, and it goes no further.
    Blocked(Block),
    /// It does not run on this pod any more.
    Ended,
}

/// Why a consumer goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Block {
    /// The log was recreated or restored: nobody knows what of it was handled. An operator seeks.
    Replaced,
    /// Records it has not handled may be gone. An operator seeks to this offset or above.
    Gone {
        /// The lowest offset possible.
        lowest: Offset,
    },
    /// The family's control cell is lost: call `engine.rebuild_control(family)`.
    ControlLost,
    /// A newer binary wrote the next event; a pod that knows it goes on.
    Newer {
        /// The event's name.
        name: String,
        /// Its version.
        version: u32,
    },
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replaced => f.write_str("the log was recreated or restored: seek to where it shall go on"),
            Self::Gone { lowest } => write!(f, "records below {lowest} may be gone: seek there, or above"),
            Self::ControlLost => f.write_str("the family's control cell is lost: rebuild it"),
            Self::Newer { name, version } => {
                write!(f, "`{name}` is of version {version}, which this pod does not know")
            }
        }
    }
}

/// What a consumer's task tells others of this pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) standing: Standing,
    pub(super) committed: Offset,
}

/// Where it tells them.
pub(super) struct Board(watch::Sender<Progress>);

impl Board {
    pub(super) fn new() -> Self {
        let progress = Progress { standing: Standing::Contending, committed: Offset::BEGIN };
        Self(watch::Sender::new(progress))
    }

    pub(super) fn show(&self, standing: Standing) {
        self.0.send_if_modified(|now| std::mem::replace(&mut now.standing, standing.clone()) != standing);
    }

    pub(super) fn committed(&self, offset: Offset) {
        self.0.send_if_modified(|now| std::mem::replace(&mut now.committed, offset) != offset);
    }

    pub(super) fn follow(&self) -> watch::Receiver<Progress> {
        self.0.subscribe()
    }
}
