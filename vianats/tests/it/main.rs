//! The adapter against real servers. Without a `nats-server` every test here fails and says how to get one.

mod cluster;
mod compaction;
mod conformance;
#[path = "../../../via-backplane/tests/it/crash_matrix.rs"]
mod crash_matrix;
mod crashes;
mod credentials;
mod durable;
mod faults;
mod feed;
mod garbage;
mod generations;
mod interop;
mod limits;
mod meter;
mod notes;
mod outages;
mod permissions;
mod reads;
mod refused;
mod slow;
mod snapshots;
mod start;
mod store;
mod tls;
mod told;
mod warnings;
mod watches;
