//! What is asked of a family's projector, whatever the family's types.

use tokio::sync::{mpsc, oneshot};

use super::refold::Answer;
use crate::{Key, Offset};

/// Orders that may wait for a projector.
const MAX_ORDERS: usize = 64;

/// One thing a projector is told, or asked to do.
pub(super) enum Order {
    /// The loss of a record of this key was accepted; answered once this pod goes by that.
    Accepted { key: Key, offset: Offset, reply: oneshot::Sender<()> },
    /// This key's value is to be computed anew.
    Refold { key: Key, reply: oneshot::Sender<Answer> },
}

/// Where orders are given.
pub(super) type Orders = mpsc::Sender<Order>;
/// Where the projector takes them.
pub(super) type Inbox = mpsc::Receiver<Order>;

pub(super) fn channel() -> (Orders, Inbox) {
    mpsc::channel(MAX_ORDERS)
}
