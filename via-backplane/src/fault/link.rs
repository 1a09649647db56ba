//! What all pods' connections share: the way to the backend.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

/// The way to a backend. It can be cut, and can lose an ack.
#[derive(Debug, Clone)]
pub struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: watch::Sender<State>,
    lose_ack: AtomicBool,
}

/// Whether the way is open, and how often it was cut.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    cut: bool,
    cuts: u64,
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

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Link {
    /// A way that is open.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            state: watch::Sender::new(State::default()),
            lose_ack: AtomicBool::new(false),
        }))
    }

    /// Makes the whole backend unreachable: calls are refused, streams end with an error.
    pub fn interrupt(&self) {
        self.0.state.send_modify(|state| {
            state.cuts += u64::from(!state.cut);
            state.cut = true;
        });
    }

    /// Makes the backend reachable again.
    pub fn restore(&self) {
        self.0.state.send_modify(|state| state.cut = false);
    }

    /// Commits the next append, compare-and-swap or delete of any pod and loses its ack.
    pub fn lose_next_ack(&self) {
        self.0.lose_ack.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.0.state.borrow().cut
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
        let states = self.0.state.subscribe();
        let seen = states.borrow().cuts;
        Cut { states, seen }
    }
}

/// Waits for the way to be cut.
pub(super) struct Cut {
    states: watch::Receiver<State>,
    seen: u64,
}

impl Cut {
    /// Answers once the way was cut, even if it is open again. Cancel-safe.
    pub(super) async fn happened(&mut self) {
        let seen = self.seen;
        if self.states.wait_for(|state| state.cuts != seen).await.is_err() {
            // The link is gone, so nobody can cut it any more.
            std::future::pending::<()>().await;
        }
    }
}
