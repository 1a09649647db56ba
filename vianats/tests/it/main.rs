//! The adapter against real servers. Without a `nats-server` every test here fails and says how to get one.

mod cluster;
mod conformance;
