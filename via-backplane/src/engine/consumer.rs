//! Consumers: effects that run on one pod at a time, at least once (PROTOCOL §5).
//!
//! Read in this order: `cell.rs` (what is stored), `stillness.rs` and `lease.rs` (who may run it), `window.rs` (what was begun and
//! handled), `source.rs` (where records come from), `attempt.rs` (one run of a handler), `owner.rs` (the work), `runner.rs` (the task),
//! `on_event.rs` (how a consumer comes to be), `succession.rs` (how one takes another's place), `operate.rs`
//! (what operators do), `spread.rs` (which pod runs how many), `letters.rs`, `dead.rs` and `redrive.rs` (what was given up).

mod attempt;
mod cell;
mod dead;
mod delivery;
#[cfg(test)]
mod golden;
mod lease;
mod letters;
mod on_event;
mod operate;
mod options;
mod owner;
mod redrive;
mod runner;
mod source;
mod spread;
mod standing;
mod stillness;
mod succession;
mod window;

pub use dead::{DeadLetter, DeadLetterError, DeadLetters, UnreadableLetter, Which};
pub use delivery::Delivery;
pub(super) use on_event::selector_of;
pub use on_event::{Consumer, ConsumerError, OnEvent};
pub use operate::{ConsumerState, NamedConsumer, Running as ConsumerRunning};
pub use options::StartAt;
pub(super) use spread::Seats;
pub use standing::{Block, Standing};
