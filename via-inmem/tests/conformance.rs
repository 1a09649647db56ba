//! The in-memory backplane passes the whole suite, bare and through a fault wrapper with nothing planned.

use std::sync::Arc;

use via_backplane::{
    Backplane, Reply,
    conformance::{Clock, Harness},
    fault::{Faulty, Link, Plan},
};
use via_inmem::InMemory;

/// A memory whose pods are connected through the fault wrapper, which is how it can go away.
struct Memory {
    memory: InMemory,
    link: Link,
    plan: Plan,
}

impl Memory {
    fn with(plan: Plan) -> Self {
        Self { memory: InMemory::new(), link: Link::new(), plan }
    }

    /// Calls go straight to the memory unless a hook is at work.
    async fn fresh() -> Self {
        Self::with(Plan::none())
    }

    /// Calls take the long way through the wrapper, where every fault is decided against.
    async fn through_faults() -> Self {
        Self::with(Plan::seeded(1))
    }
}

impl Harness for Memory {
    fn connect(&self) -> Reply<'_, Arc<dyn Backplane>> {
        let pod = Arc::new(self.memory.clone());
        Reply::ready(Arc::new(Faulty::new(pod, self.plan.clone(), &self.link)))
    }

    fn interrupt(&self) -> Reply<'_, ()> {
        self.link.interrupt();
        Reply::ready(())
    }

    fn restore(&self) -> Reply<'_, ()> {
        self.link.restore();
        Reply::ready(())
    }

    fn lose_next_ack(&self) -> Reply<'_, ()> {
        self.link.lose_next_ack();
        Reply::ready(())
    }
}

via_backplane::conformance! {
    adapter: memory,
    fresh: Memory::fresh,
    clock: Clock::Paused,
    skip: {}
}

via_backplane::conformance! {
    adapter: memory_through_faults,
    fresh: Memory::through_faults,
    clock: Clock::Paused,
    skip: {}
}
