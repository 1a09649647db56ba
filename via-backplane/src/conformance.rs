//! The suite every adapter passes: one test per guarantee of the contract.
//!
//! An adapter's test file says how to make a backend, and [`conformance!`](crate::conformance!) expands to one `#[test]` per
//! case, each on a fresh backend and a runtime of its own. A case is named after the guarantee it proves (`l3_…`), so
//! that what fails names what is broken. Wrappers run the same suite.
//!
//! ```no_run
//! use std::sync::Arc;
//! use via_backplane::{Backplane, Reply, conformance::{Clock, Harness}};
//!
//! struct Server { /* a backend of this case's own */ }
//!
//! impl Server {
//!     async fn fresh() -> Self {
//!         Self { /* … */ }
//!     }
//! }
//!
//! impl Harness for Server {
//!     fn connect(&self) -> Reply<'_, Arc<dyn Backplane>> { unimplemented!("another pod's connection") }
//!     fn interrupt(&self) -> Reply<'_, ()> { unimplemented!("make the backend unreachable") }
//!     fn restore(&self) -> Reply<'_, ()> { unimplemented!("make it reachable again") }
//!     fn lose_next_ack(&self) -> Reply<'_, ()> { unimplemented!("commit the next write, lose its ack") }
//! }
//!
//! via_backplane::conformance! {
//!     adapter: server,
//!     fresh: Server::fresh,
//!     clock: Clock::Real,
//!     skip: {
//!         f1_a_message_reaches_every_subscriber_of_every_pod_once: "this backend has no feed",
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! Every case waits for facts, bounded by [`PATIENCE`]; none sleeps and hopes.

mod backplane;
mod batch;
mod compactor;
mod feed;
mod head;
mod ids;
mod list;
mod log;
mod names;
mod outage;
mod read;
mod store;
mod tail;
mod trial;
mod watch;

use std::{sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;

pub use self::{list::cases, trial::Trial};
use crate::{Backplane, Reply};

/// How long a case waits for a fact before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One backend, made for one case, and what can be done to it.
///
/// The hooks act on every connection, and cases tell a hook that does nothing from one that works: it makes them fail.
pub trait Harness: Send + Sync + 'static {
    /// Another pod's connection to the backend.
    fn connect(&self) -> Reply<'_, Arc<dyn Backplane>>;

    /// Makes the backend unreachable, for connections that exist and for new ones.
    fn interrupt(&self) -> Reply<'_, ()>;

    /// Makes it reachable again, with everything it had acknowledged.
    fn restore(&self) -> Reply<'_, ()>;

    /// Lets the next append or compare-and-swap be committed, and its ack be lost.
    fn lose_next_ack(&self) -> Reply<'_, ()>;
}

/// By which clock an adapter's cases run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Time passes by itself: the backend is another process.
    Real,
    /// Time passes when everybody waits: the backend lives in this process and keeps time with `tokio`. Cases that need
    /// several threads run in real time all the same, because a paused clock has only one.
    Paused,
}

/// How a case is run.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// One thread, by the adapter's clock.
    Thread,
    /// Several threads in real time, so that calls truly overlap.
    Threads,
}

/// One case of the suite.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub on: On,
    pub run: fn(Trial) -> LocalBoxFuture<'static, ()>,
}

/// Runs one case on a fresh backend. [`conformance!`](crate::conformance!) calls it.
///
/// # Panics
/// If the case fails.
#[doc(hidden)]
pub fn run<H: Harness>(case: Case, clock: Clock, fresh: impl AsyncFnOnce() -> H) {
    let mut runtime = match case.on {
        On::Thread => tokio::runtime::Builder::new_current_thread(),
        On::Threads => tokio::runtime::Builder::new_multi_thread(),
    };
    let paused = case.on == On::Thread && clock == Clock::Paused;
    if paused {
        runtime.start_paused(true);
    }
    let runtime = runtime.worker_threads(4).enable_all().build().expect("a runtime can be built");
    runtime.block_on(async {
        let harness = fresh().await;
        let trial = Trial::new(Box::new(harness), paused).await;
        // A hang is a failure with a name, not a job that times out.
        let limit = PATIENCE * 6;
        assert!(
            tokio::time::timeout(limit, (case.run)(trial)).await.is_ok(),
            "`{}` was not over after {limit:?}",
            case.name
        );
    });
}

/// Expands to one `#[test]` per conformance case, in a module named after the adapter.
///
/// See the [module](mod@crate::conformance) for an example. `skip` names the cases an adapter cannot pass, each with the reason;
/// they are ignored tests, so every runner prints them. A name that is not a case does not compile.
#[macro_export]
macro_rules! conformance {
    (
        adapter: $adapter:ident,
        fresh: $fresh:expr,
        clock: $clock:expr,
        skip: { $($skipped:ident : $reason:literal),* $(,)? }
    ) => {
        mod $adapter {
            #[allow(unused_imports, reason = "what the adapter's file says may or may not use its imports")]
            use super::*;

            $(const _: $crate::conformance::Case = $crate::conformance::cases::$skipped;)*

            macro_rules! __conformance_test {
                $(
                    ($on:ident $module:ident $skipped) => {
                        #[test]
                        #[ignore = $reason]
                        fn $skipped() {
                            $crate::conformance::run($crate::conformance::cases::$skipped, $clock, $fresh);
                        }
                    };
                )*
                ($on:ident $module:ident $case:ident) => {
                    #[test]
                    fn $case() {
                        $crate::conformance::run($crate::conformance::cases::$case, $clock, $fresh);
                    }
                };
            }

            $crate::__conformance_cases!(__conformance_test);
        }
    };
}
