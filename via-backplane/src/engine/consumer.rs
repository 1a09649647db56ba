//! Consumers: effects that run on one pod at a time, at least once (PROTOCOL §5).

mod cell;
mod lease;
mod stillness;
mod window;
