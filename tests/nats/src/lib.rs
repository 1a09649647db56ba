//! Starts real nats-server processes for tests, benchmarks and the demo.
//!
//! A [`Server`] has a directory and ports of its own and is gone when dropped; a [`Cluster`] is several of them that
//! replicate to each other. Both can be killed, paused and restarted in the middle of anything. A [`Proxy`] stands
//! between clients and a server and breaks what lies between them: every connection at once, or one
//! acknowledgement. A [`Link`] is such a proxy for each server of a cluster.
//!
//! Everything here blocks the calling thread, is bounded in time, and says what it waited for when it gives up.
//!
//! Nothing but the standard library is used: `xtask` builds this crate, and is there seconds after a clone.
//!
//! ```no_run
//! # fn main() -> Result<(), String> {
//! use nats_servers::{Config, Server};
//!
//! let server = Server::start(Config::new().sync_always())?;
//! println!("{}", server.url());
//! server.kill();
//! server.restart()?; // on the same port, with the same store
//! # Ok(())
//! # }
//! ```

mod cluster;
mod config;
mod dir;
mod disk;
mod find;
mod lock;
mod monitor;
mod ports;
mod process;
mod proxy;
mod server;
mod shared;
mod wait;

pub use cluster::Cluster;
pub use config::Config;
pub use disk::Disk;
pub use find::{VARIABLE, VERSION, find, kept_in};
pub use ports::free_port;
pub use process::Process;
pub use proxy::{Acks, Link, Proxy};
pub use server::Server;
pub use shared::{CLUSTER_VARIABLE, Shared, shared_cluster};
pub use wait::wait_for;
