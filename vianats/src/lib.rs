//! The NATS JetStream backplane for via: the same app on a cluster.

mod ack;
mod api;
mod append;
mod builder;
mod cells;
mod checks;
mod compactor;
mod delays;
mod feed;
mod generation;
mod group;
mod link;
mod log;
mod names;
mod ordered;
mod pod;
mod publish;
mod servers;
mod store;
mod streams;
mod watch;

pub use builder::{Builder, connect};
pub use pod::Nats;
pub use streams::Storage;
