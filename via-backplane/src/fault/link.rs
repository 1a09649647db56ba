//! What all pods' connections share: the way to the backend.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// The way to a backend. It can be cut, and can lose an ack.
#[derive(Debug, Clone, Default)]
pub struct Link(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_cut: AtomicBool,
    /// How often the way was cut.
    cuts: AtomicU64,
    /// Wakes the streams in the order in which they fell asleep; a `watch` would draw the order, and one seed would
    /// give many traces.
    was_cut: Notify,
    lose_ack: AtomicBool,
}

/// What became of a call that a pod wanted to make.
pub(super) enum Sent {
    /// It may be made, and this may happen to its answer.
    Through(Then),
    /// It is not made, and the pod knows.
    Refused,
    /// It is not made, and the pod cannot know.
    RequestLost,
    /// It is made, and the pod cannot know.
    AckLost(When),
}

/// When a write takes place whose ack is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Now,
    Later,
}

/// What happens between a call's effect and its answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Then {
    pub(super) delay: Option<std::time::Duration>,
}

impl Link {
    /// A way that is open.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the whole backend unreachable: calls are refused, streams end with an error.
    pub fn interrupt(&self) {
        if !self.0.is_cut.swap(true, Ordering::SeqCst) {
            self.0.cuts.fetch_add(1, Ordering::SeqCst);
            self.0.was_cut.notify_waiters();
        }
    }

    /// Makes the backend reachable again.
    pub fn restore(&self) {
        self.0.is_cut.store(false, Ordering::SeqCst);
    }

    /// Commits the next append, compare-and-swap or delete of any pod and loses its ack.
    pub fn lose_next_ack(&self) {
        self.0.lose_ack.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.0.is_cut.load(Ordering::SeqCst)
    }

    pub(super) fn takes_ack(&self) -> bool {
        // Looked at first: every write of a simulation passes here, and nearly none finds it set.
        self.0.lose_ack.load(Ordering::SeqCst) && self.0.lose_ack.swap(false, Ordering::SeqCst)
    }

    pub(super) fn will_take_ack(&self) -> bool {
        self.0.lose_ack.load(Ordering::SeqCst)
    }

    /// A view from now on, for a stream that ends when the way is cut.
    pub(super) fn watch(&self) -> Cut {
        Cut { link: self.clone(), seen: self.0.cuts.load(Ordering::SeqCst) }
    }
}

/// Waits for the way to be cut.
pub(super) struct Cut {
    link: Link,
    seen: u64,
}

impl Cut {
    /// Answers once the way was cut, even if it is open again. Cancel-safe.
    pub(super) async fn happened(&mut self) {
        loop {
            // Made before the look, so that no cut falls in between.
            let was_cut = self.link.0.was_cut.notified();
            if self.link.0.cuts.load(Ordering::SeqCst) != self.seen {
                return;
            }
            was_cut.await;
        }
    }
}
