//! The in-memory backplane passes the whole suite: bare, through a fault wrapper with nothing planned, and compacting silently.

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

    /// Readers are told of no hole, which the contract allows.
    #[cfg(feature = "testing")]
    async fn that_compacts_silently() -> Self {
        let memory = InMemory::builder().silent_compaction().build();
        Self { memory, ..Self::fresh().await }
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

#[cfg(feature = "testing")]
via_backplane::conformance! {
    adapter: memory_that_compacts_silently,
    fresh: Memory::that_compacts_silently,
    clock: Clock::Paused,
    skip: {}
}

/// What the suite says of a harness whose hooks do nothing.
mod idle_hooks {
    use super::*;
    use via_backplane::conformance::{Case, cases, run};

    struct Idle(Memory);

    impl Harness for Idle {
        fn connect(&self) -> Reply<'_, Arc<dyn Backplane>> {
            self.0.connect()
        }

        fn interrupt(&self) -> Reply<'_, ()> {
            Reply::ready(())
        }

        fn restore(&self) -> Reply<'_, ()> {
            Reply::ready(())
        }

        fn lose_next_ack(&self) -> Reply<'_, ()> {
            Reply::ready(())
        }
    }

    fn fails(case: Case) {
        let fresh = async || Idle(Memory::fresh().await);
        let ran = std::panic::catch_unwind(|| run(case, Clock::Paused, fresh));
        assert!(ran.is_err(), "`{}` passes though its hook does nothing", case.name);
    }

    #[test]
    fn fail_every_case_that_interrupts() {
        fails(cases::l4_an_interrupted_tail_says_so);
        fails(cases::l4_resuming_after_an_interruption_misses_nothing);
        fails(cases::l4_every_interruption_is_told_and_survived);
        fails(cases::l4_calls_say_that_the_backend_is_away);
        fails(cases::s2_the_store_says_that_it_is_away);
        fails(cases::s5_an_interrupted_watch_says_so_and_the_next_replays_the_present);
        fails(cases::f1_an_interrupted_feed_says_so);
    }

    #[test]
    fn fail_every_case_that_loses_an_ack() {
        fails(cases::l7_an_append_whose_ack_is_lost_is_an_unknown_outcome);
        fails(cases::l7_repeating_an_unknown_append_with_its_id_is_safe);
        fails(cases::l7_an_unknown_append_is_committed_where_its_expectation_held);
        fails(cases::l7_the_offsets_of_a_repeat_are_where_the_records_are);
        fails(cases::s2_a_cas_whose_ack_is_lost_is_an_unknown_outcome);
        fails(cases::s3_a_delete_whose_ack_is_lost_is_an_unknown_outcome);
    }
}
