//! Which acknowledgements get lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::frames::Request;

/// How many acknowledgements are to be lost, and how many were; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Acks {
    to_lose: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
}

impl Acks {
    /// Loses the acknowledgement of the next append or cell write, wherever it passes.
    pub fn lose_next(&self) {
        self.to_lose.fetch_add(1, Ordering::SeqCst);
    }

    /// Loses no more than have been claimed so far.
    pub fn keep(&self) {
        self.to_lose.store(0, Ordering::SeqCst);
    }

    /// How many were lost.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }

    pub(crate) fn are_wanted(&self) -> bool {
        self.to_lose.load(Ordering::Relaxed) > 0
    }

    /// Takes one loss for itself; false if another connection was first.
    pub(crate) fn claim(&self) -> bool {
        self.to_lose.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    pub(crate) fn count(&self) {
        self.lost.fetch_add(1, Ordering::SeqCst);
    }
}

/// True for what is written to a stream, false for what asks JetStream something or acknowledges a delivery.
pub(crate) fn is_write(request: &Request<'_>, headers: &[u8]) -> bool {
    let is_own =
        !matches!(request.subject.first(), Some(b'$' | b'_')) || request.subject.starts_with(b"$KV.");
    // Only the last message of an atomic batch commits it; the answers before are no acknowledgements.
    is_own && (!contains(headers, b"Nats-Batch-Id:") || contains(headers, b"Nats-Batch-Commit:"))
}

fn contains(headers: &[u8], name: &[u8]) -> bool {
    headers.split(|&byte| byte == b'\n').any(|line| line.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::{Acks, is_write};
    use crate::proxy::frames::Request;

    fn to(subject: &[u8]) -> Request<'_> {
        Request { subject, reply: b"_INBOX.1", headers: 0 }
    }

    #[test]
    fn appends_and_cell_writes_are_writes() {
        assert!(is_write(&to(b"via.0.e.posts"), b""));
        assert!(is_write(&to(b"$KV.via-cells.0.theme"), b""));
        for other in [&b"$JS.API.STREAM.INFO.via"[..], b"$JS.ACK.via.c.1.1.1.1.1", b"$JS.FC.via", b"_INBOX.x"]
        {
            assert!(!is_write(&to(other), b""));
        }
    }

    #[test]
    fn of_a_batch_only_the_commit_is_acknowledged() {
        assert!(!is_write(&to(b"e"), b"NATS/1.0\r\nNats-Batch-Id: 7\r\nNats-Batch-Sequence: 1\r\n\r\n"));
        assert!(is_write(&to(b"e"), b"NATS/1.0\r\nNats-Batch-Id: 7\r\nNats-Batch-Commit: 1\r\n\r\n"));
    }

    #[test]
    fn one_loss_is_claimed_once() {
        let acks = Acks::default();
        acks.lose_next();
        assert!(acks.clone().claim());
        assert!(!acks.claim());
    }
}
