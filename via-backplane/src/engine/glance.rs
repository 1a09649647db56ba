//! A look at the clock before each of many small things.

use std::time::Duration;

use super::ambient::Monotonic;

/// So many looks in a row may rest on one reading, whatever the ticks say: they may be late where a machine's own
/// processors are taken away from it.
const AT_MOST: u32 = 16;

/// The time, for somebody who asks before each of many small things.
///
/// On Linux reading CLOCK_BOOTTIME takes 40 ns, a fifth of what handling a small event takes, and looking whether the kernel has ticked
/// 10. So the clock is read where it has, and at every sixteenth look. A pod that stood still finds that out at its next look, as if it
/// had read the clock: the kernel ticks without it.
#[derive(Default)]
pub(crate) struct Glance {
    now: Duration,
    tick: Option<u64>,
    looks: u32,
}

impl Glance {
    /// How far a look may be behind: one tick.
    pub(crate) const BEHIND: Duration = Duration::from_millis(10);

    /// The time now.
    pub(crate) fn read(&mut self, clock: &dyn Monotonic) -> Duration {
        // In this order: what happens in between is found at the next look.
        self.tick = clock.tick();
        self.now = clock.now();
        self.looks = 0;
        self.now
    }

    /// The time now, or a moment ago.
    pub(crate) fn look(&mut self, clock: &dyn Monotonic) -> Duration {
        self.looks += 1;
        if self.looks < AT_MOST && self.tick.is_some() && clock.tick() == self.tick {
            return self.now;
        }
        self.read(clock)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::engine::ambient::Uptime;

    /// A clock that a test moves by hand, and its ticks, if it has some.
    #[derive(Default)]
    struct Hand {
        millis: AtomicU64,
        tick: Option<AtomicU64>,
    }

    impl Hand {
        fn pass(&self, millis: u64) {
            self.millis.fetch_add(millis, Ordering::Relaxed);
        }
    }

    impl Monotonic for Hand {
        fn now(&self) -> Duration {
            Duration::from_millis(self.millis.load(Ordering::Relaxed))
        }

        fn tick(&self) -> Option<u64> {
            self.tick.as_ref().map(|tick| tick.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn the_clock_is_read_once_it_has_ticked() {
        let (clock, mut glance) =
            (Hand { tick: Some(AtomicU64::new(0)), ..Hand::default() }, Glance::default());
        assert_eq!(glance.read(&clock), Duration::ZERO);
        clock.pass(5);
        assert_eq!(glance.look(&clock), Duration::ZERO, "it was read where nothing said that it has moved");
        clock.tick.as_ref().expect("it has ticks").store(7, Ordering::Relaxed);
        assert_eq!(glance.look(&clock), Duration::from_millis(5));
    }

    #[test]
    fn a_clock_whose_ticks_are_late_is_read_all_the_same() {
        let (clock, mut glance) =
            (Hand { tick: Some(AtomicU64::new(0)), ..Hand::default() }, Glance::default());
        glance.read(&clock);
        clock.pass(60_000);
        let looks = (1..).take_while(|_| glance.look(&clock).is_zero()).count();
        assert_eq!(looks, AT_MOST as usize - 1);
    }

    #[test]
    fn a_clock_without_ticks_is_read_at_each_look() {
        let (clock, mut glance) = (Hand::default(), Glance::default());
        glance.read(&clock);
        clock.pass(1);
        assert_eq!(glance.look(&clock), Duration::from_millis(1));
    }

    /// The kernel's ticks tell of time that passes while this thread stands still.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_systems_clock_has_ticked_once_more_than_a_tick_has_passed() {
        let clock = Uptime::new();
        let (tick, started) = (clock.tick(), clock.now());
        std::thread::park_timeout(Glance::BEHIND * 5);
        while clock.now() < started + Glance::BEHIND * 5 {}
        assert_ne!(clock.tick(), tick);
    }
}
