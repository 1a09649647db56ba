//! The NATS JetStream backplane for via: one line, and the same app runs on a cluster.
//!
//! ```no_run
//! use std::{sync::Arc, time::Duration};
//! use serde::{Deserialize, Serialize};
//! use via_backplane::{Engine, Event, Fold, Recorded};
//!
//! #[derive(Clone, Serialize, Deserialize, Event)]
//! #[event(name = "order.placed", version = 1)]
//! struct Placed { item: String }
//!
//! impl Fold<Vec<String>> for Placed {
//!     fn fold(self, orders: &mut Vec<String>, _at: &Recorded) { orders.push(self.item) }
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let backplane = vianats::connect("nats://127.0.0.1:4222").await?;
//! let engine = Engine::start(Arc::new(backplane));
//! let orders = engine.events::<Placed, Vec<String>>("orders")?;
//! let position = orders.append(Placed { item: "tea".into() }).await?;
//! orders.wait_for(&position, Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! It needs nats-server 2.12 or newer with JetStream. How the log lies on the server, precise enough to write to it from
//! another language, is in `docs/wire-format.md`; how to run it, in `docs/nats.md`.
//!
//! # What survives what
//!
//! An ack means that a quorum of the stream's replicas has written the record: on a single server, that the server has.
//! Each row is shown by the tests in brackets. `docs/durability.md` has the same for what the engine builds on it: snapshots and
//! compaction.
//!
//! | failure | acknowledged appends and writes | unacknowledged ones |
//! |---|---|---|
//! | a pod ends, is killed or loses its connection | survive (`l1_an_acknowledged_append_outlives_its_pod`) | happened or did not; with an id, a repeat finds out (`l7_…`) |
//! | a server process is killed and restarted | survive, on one server (`a_tail_misses_nothing_over_restarts`) and on three (`every_acknowledged_append_outlives_the_leaders_death`) | as above |
//! | a server is silent for longer than the request timeout | survive | `MaybeCommitted`, and may yet land (`a_paused_server_is_not_waited_for_beyond_the_timeout`) |
//! | one of three servers is lost with its disk | survive: two replicas hold them | as above |
//! | every server loses power, `sync_interval: always` | survive | as above |
//! | every server loses power, the default `sync_interval` of two minutes | **what was acknowledged since the last sync can be lost**; at start this is warned of where it can be seen (`a_server_that_acknowledges_before_it_syncs_is_warned_of`) | lost |
//! | the stream is deleted | lost, and said so; what pods have folded they go on serving (`a_deleted_stream_is_not_recreated_by_those_who_live`) | lost |
//! | the stream is restored from a backup | those of the backup survive; every pod notices and folds anew (`a_stream_restored_through_the_api_is_folded_anew`) | lost |
//! | a store directory is put back from a copy | as above; noticed by the records' ids (`a_store_directory_put_back_from_a_copy_is_noticed_by_its_records`) | lost |
//!
//! Power failures are the one row no test of ours can cause; what is known of them is Jepsen's analysis of NATS 2.12.1
//! (December 2025), after which the shipped configuration sets `sync_interval: always`.
//!
//! An append id is remembered for the stream's duplicate window by the servers' memory, which a restart rebuilds from the
//! records. The id of a record that was compacted *and* whose servers were all restarted within the window is forgotten
//! early.
//!
//! # What is bounded, and how
//!
//! - Appends in flight: 64 MiB, and 8,192 of them. More wait, for at most the request timeout.
//! - A subscription holds at most 32 MiB on the client, by the server's flow control, and 262,144 messages, which take up to 50 MiB
//!   more. What a slow reader makes the client drop all the same is read again (`via_backplane_reread_total`); nothing is lost.
//! - A listener to a topic holds 262,144 messages, and loses what comes then.
//! - Every call ends. Each of its steps waits for at most the request timeout (twelve seconds unless set): an append's are its
//!   turn, its attempts together, and the question whether an id is known; a read's are one per message.
//! - Reconnecting never ends: from 50 ms to two seconds apart, jittered.
//!
//! # What it costs
//!
//! An append is one message and its ack. A family is one consumer per pod, a watch of a prefix another one, a watch of one
//! cell a core subscription. Listing a family's instances asks the server for all of its subjects, sorted here.

mod ack;
mod answers;
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
mod reach;
mod servers;
mod store;
mod streams;
mod watch;

pub use builder::{Builder, connect};
pub use pod::Nats;
pub use streams::Storage;
