//! Real servers, and a client that is a socket and nothing else.

mod client;
mod cluster;
mod proxy;
mod server;
