//! A backplane that fails on purpose, by a seeded plan.
//!
//! [`Faulty`] wraps one pod's connection. Its [`Plan`] says how likely each [`Kind`] of fault is, or after how many steps
//! the pod stops; a [`Link`] is what all pods' connections share, so that a whole backend can go away and come back.
//! [`Faulty::faults`] tells what happened.
//!
//! Decisions come from one small generator per wrapper: two runs with one seed that make the same calls in the same order
//! get the same faults. Waiting is done with `tokio::time`, so a paused clock skips it.
//!
//! ```
//! use std::sync::Arc;
//! use via_backplane::{Backplane, fault::{Faulty, Kind, Link, Plan}};
//! # fn example(backplane: Arc<dyn Backplane>) {
//! let link = Link::new();
//! let plan = Plan::seeded(7).odds(Kind::LostAck, 0.1).odds(Kind::Disconnect, 0.02);
//! let pod = Faulty::new(backplane, plan, &link);
//! let faults = pod.faults();
//! // ... run an engine over `pod` ...
//! println!("{} acks were lost", faults.fired(Kind::LostAck));
//! # }
//! ```

mod feed;
mod link;
mod log;
mod plan;
mod pod;
mod store;
mod stream;

use std::sync::Arc;

pub use self::{
    link::Link,
    plan::{Kind, Plan},
    pod::{Faults, Fired},
};
use self::{link::Sent, pod::Pod};
use crate::{BackendError, Backplane, Compactor, EventLog, Feed, Limits, Reply, Store};

/// One pod's connection to a backplane, with faults.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Backplane>,
    pod: Arc<Pod>,
}

impl Faulty {
    /// Wraps a pod's connection; `link` is shared by the connections of all pods.
    #[must_use]
    pub fn new(inner: Arc<dyn Backplane>, plan: Plan, link: &Link) -> Self {
        Self { inner, pod: Arc::new(Pod::new(plan, link.clone())) }
    }

    /// What this wrapper has done and may be told to do; it outlives the wrapper.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults::of(&self.pod)
    }

    /// A call that changes nothing, so that losing its answer is the same as not making it.
    async fn ask<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        match self.pod.send(name, false).await {
            Sent::Through(then) => {
                let answer = call.await;
                self.pod.answer(then).await;
                answer
            }
            Sent::Refused | Sent::RequestLost | Sent::AckLost(_) => Err(self.pod.unavailable()),
        }
    }
}

impl Backplane for Faulty {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn log(&self) -> &dyn EventLog {
        self
    }

    fn store(&self) -> &dyn Store {
        self
    }

    fn compactor(&self) -> Option<&dyn Compactor> {
        self.inner.compactor().map(|_| self as &dyn Compactor)
    }

    fn feed(&self) -> Option<&dyn Feed> {
        self.inner.feed().map(|_| self as &dyn Feed)
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn ping(&self) -> Reply<'_, Result<(), BackendError>> {
        Reply::later(self.ask("ping", self.inner.ping()))
    }

    fn close(&self) -> Reply<'_, ()> {
        // A client closes itself, whatever the network does; faults would only hide what is left open.
        self.inner.close()
    }
}
