//! A backplane in this process's memory: via's default, its reference and its test double.
//!
//! Several engines over clones of one [`InMemory`] are several pods of one cluster, so what is tested in one process is
//! what runs clustered. Appending allocates nothing beyond the caller's record, readers share the chunks the
//! records lie in, and no cost grows with the length of a log.
//!
//! # What survives what
//!
//! `docs/durability.md` names the tests that show it, and says what the engine builds on it: snapshots and compaction.
//!
//! | failure | acked appends and writes | unacked ones |
//! |---|---|---|
//! | a pod closes, or its tasks are dropped | survive (`l1_an_acknowledged_append_outlives_its_pod`) | may or may not have happened (`b2_a_dropped_append_happens_wholly_or_not_at_all`) |
//! | the process ends, is killed, or crashes | lost | lost |
//! | the machine loses power | lost | lost |
//!
//! Nothing survives the process. Within it an acknowledged append is committed and visible to every pod at once, and a
//! successful compare-and-swap is linearizable. Floors are kept with the log, and end with it.
//!
//! # What is bounded, and how
//!
//! - A subscription holds a place in the log and no records. A slow reader reads from the log when it comes.
//! - A watch holds at most the latest change of each cell, and ends with an error beyond 65,536 changed cells; watching
//!   again replays the present.
//! - A feed's subscriber holds 256 messages; then it loses the oldest.
//! - Append ids are held for the window and then forgotten as new ones come.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use futures_util::StreamExt;
//! use via_backplane::{Append, Backplane, Entries, Entry, Family, Key, Offset, Resume, Selector};
//! use via_inmem::InMemory;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let backplane = InMemory::new();
//! let family = Family::new("posts")?;
//! let entry = Entry { key: Key::of(&family), record: Bytes::from_static(b"hello") };
//! let appended = backplane.log().append(Append::new(Entries::One(entry))).await?;
//! assert_eq!(appended.offsets.get(0), Some(Offset(1)));
//!
//! // Another pod of the same cluster.
//! let other = backplane.clone();
//! let selector = Selector::Family(family);
//! let mut tail = other.log().subscribe(&selector, Resume::After(Offset::BEGIN)).await?;
//! let batch = tail.next().await.expect("a tail never ends silently")?;
//! assert_eq!(batch.iter().next().map(|record| record.bytes), Some(&b"hello"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod feed;
mod log;
mod memory;
mod pod;
mod signal;
mod store;
#[cfg(any(test, feature = "testing"))]
mod testing;

pub use memory::{Builder, InMemory};
#[cfg(any(test, feature = "testing"))]
pub use testing::LogCopy;
