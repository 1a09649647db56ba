//! What a handler is given.

use std::time::SystemTime;

use crate::{EventId, Key, Offset, TraceContext};

/// One event, on its way to a handler, and what the handler may need to know about it.
///
/// It may come again: after a failure, and where a pod dies between the effect and its commit. So make the effect harmless to repeat,
/// by [`idempotency_key`](Self::idempotency_key).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delivery<E> {
    /// What happened.
    pub event: E,
    /// Whose event it is.
    pub key: Key,
    /// Where its record stands in the family's log.
    pub offset: Offset,
    /// Which event it is: the same each time it is delivered.
    pub id: EventId,
    /// When it was appended, by the clock of the pod that appended it.
    pub time: SystemTime,
    /// Which attempt this is, as far as the consumer knows: 1 is the first. Attempts of a pod that died may be missing from it.
    pub attempt: u32,
    /// The number of the lease under which it runs. It rises with every owner, so what the effect reaches can refuse the
    /// lower one where two overlap: a fencing token.
    pub term: u64,
    /// The trace the event belongs to.
    pub trace: Option<TraceContext>,
}

impl<E> Delivery<E> {
    /// The same text each time this event is delivered, and of no other event: what to send as `Idempotency-Key`.
    ///
    /// It is the event's id, a UUID. Where two consumers call the same endpoint with the same event, put the consumer's name before it.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        self.id.to_string()
    }
}
