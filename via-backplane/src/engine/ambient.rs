//! What the engine takes from its surroundings: the time of day, time that passes, chance, and which protocol rules hold.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::EventId;

/// The time of day, for stamping events. Nothing is decided by it.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> SystemTime;
}

/// Time that passes, for measuring how long ago something was; waiting is done with `tokio::time`.
///
/// It never falls, and it counts the time for which the machine was suspended: to everybody else that time has passed, and what
/// this pod knew before may be long out of date (PROTOCOL §2).
pub trait Monotonic: Send + Sync + 'static {
    /// The time since some moment that stays the same for as long as this clock lives.
    fn now(&self) -> Duration;

    /// Some number that is cheaper to read than the time, and another one once time has passed: while it stays the same, no more than
    /// 10 milliseconds have, of those that this clock counts. `None` if there is none, and then the time itself is read.
    ///
    /// It saves reading the clock where that would cost as much as what is done in between, and is never relied on for long.
    fn tick(&self) -> Option<u64> {
        None
    }
}

/// Random bits, for event ids and jitter.
pub trait Entropy: Send + Sync + 'static {
    /// 128 fresh bits.
    fn bits(&self) -> u128;
}

/// The operating system's clock and the thread's random generator.
pub(crate) struct System;

impl Clock for System {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl Entropy for System {
    fn bits(&self) -> u128 {
        rand::random()
    }
}

/// The operating system's clock that counts suspension.
#[cfg(target_os = "linux")]
pub(crate) struct Uptime;

#[cfg(target_os = "linux")]
impl Uptime {
    pub(crate) fn new() -> Self {
        Self
    }
}

#[cfg(target_os = "linux")]
impl Monotonic for Uptime {
    fn now(&self) -> Duration {
        // `std::time::Instant` is CLOCK_MONOTONIC, which stands still while the machine sleeps.
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(since_boot).unwrap_or_default() // Time since boot is never negative.
    }

    /// The time of day as of the kernel's last tick, of which there are between 100 and 1,000 a second. It jumps after a suspension, as
    /// CLOCK_MONOTONIC_COARSE does not; there is no coarse CLOCK_BOOTTIME.
    fn tick(&self) -> Option<u64> {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        Some((at.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(at.tv_nsec as u64))
    }
}

/// The operating system's clock, where none is known that counts suspension.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Uptime(std::time::Instant);

#[cfg(not(target_os = "linux"))]
impl Uptime {
    pub(crate) fn new() -> Self {
        Self(std::time::Instant::now())
    }
}

#[cfg(not(target_os = "linux"))]
impl Monotonic for Uptime {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The runtime's own clock, which a simulation pauses and moves on.
#[cfg(any(test, feature = "testing"))]
#[derive(Default)]
pub(crate) struct Simulated {
    /// Taken when it is first asked: an engine may be configured before its runtime, and so its clock, is there.
    origin: std::sync::OnceLock<tokio::time::Instant>,
}

#[cfg(any(test, feature = "testing"))]
impl Monotonic for Simulated {
    fn now(&self) -> Duration {
        let now = tokio::time::Instant::now();
        now.saturating_duration_since(*self.origin.get_or_init(|| now))
    }
}

/// The rules of PROTOCOL that a test can switch off, to show that each is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "tests alone may choose the rules"))]
pub struct Rules {
    /// §1: a changed epoch discards the projection.
    pub compare_epochs: bool,
    /// §1: a resuming tail compares the id of the record it stands on.
    pub compare_record_ids: bool,
    /// §1: an expectation is of the epoch its value was folded in; without it, of whichever epoch the log has.
    pub expect_epochs: bool,
    /// §2: a load looks whether the key's floor is above what it began with.
    pub check_floors: bool,
    /// §2: what is to be dropped was public for the grace period before.
    pub announce_ceiling: bool,
    /// §2: a tail reads the ceiling before it crosses a hole; without it, it believes whatever it read last.
    pub read_ceiling: bool,
    /// §3: what decides whether a key may be compacted is confirmed by a write right before.
    pub confirm_by_cas: bool,
    /// §3: the ceiling is raised to no consumer's pin or above.
    pub respect_pins: bool,
    /// §3: a key that something holds is compacted only below that.
    pub respect_holds: bool,
    /// §4: a key is compacted below its previous snapshot, not below its current one.
    pub keep_previous: bool,
    /// §4: a snapshot is committed at exactly the revision of its claim.
    pub commit_at_claim: bool,
    /// §4: the manifest is loaded again before a missing chunk is believed lost.
    pub reload_manifest: bool,
    /// §4: a projection that skipped a record writes no snapshot.
    pub dirty_writes_none: bool,
    /// §5: a contender counts only time between looks that were answered.
    pub count_answered_looks: bool,
    /// §5: a contender takes exactly the revision whose stillness it timed.
    pub take_what_was_timed: bool,
    /// §5: an owner begins nothing later than two thirds of its lease.
    pub begin_within_lease: bool,
    /// §5: a successor begins once nothing more is committed by the consumer whose place it takes.
    pub succeed_what_rests: bool,
    /// §5: an owner that went without a word has attempted the first record that is not committed.
    pub count_deaths: bool,
    /// §5: only pods that know the event which the last owner did not contend.
    pub contend_if_known: bool,
    /// §5: a dead letter is known by the place of its record; without it, by who gave it up.
    pub know_letters_by_place: bool,
    /// §7: a load reads up to a head that was asked for after its key's records began to be kept.
    pub load_to_head: bool,
    /// §7: a key's records are kept for it while it is being loaded.
    pub buffer_while_loading: bool,
    /// §7: eviction leaves a load in progress what was kept for it.
    pub spare_loads: bool,
    /// §6: finding my own nonce after an unknown outcome is success.
    pub resolve_by_nonce: bool,
    /// §6: an update that may have happened is reported, never re-run.
    pub report_unknown_updates: bool,
    /// §6: an append is repeated only with an id.
    pub repeat_only_with_id: bool,
}

impl Rules {
    /// Every rule holds.
    #[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "as for the type"))]
    pub const ALL: Self = Self {
        compare_epochs: true,
        compare_record_ids: true,
        expect_epochs: true,
        check_floors: true,
        announce_ceiling: true,
        read_ceiling: true,
        confirm_by_cas: true,
        respect_pins: true,
        respect_holds: true,
        keep_previous: true,
        commit_at_claim: true,
        reload_manifest: true,
        dirty_writes_none: true,
        count_answered_looks: true,
        take_what_was_timed: true,
        begin_within_lease: true,
        succeed_what_rests: true,
        count_deaths: true,
        contend_if_known: true,
        know_letters_by_place: true,
        load_to_head: true,
        buffer_while_loading: true,
        spare_loads: true,
        resolve_by_nonce: true,
        report_unknown_updates: true,
        repeat_only_with_id: true,
    };
}

/// What the engine takes from its surroundings.
#[derive(Clone)]
pub(crate) struct Ambient {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) monotonic: Arc<dyn Monotonic>,
    pub(crate) entropy: Arc<dyn Entropy>,
    #[cfg(feature = "testing")]
    pub(crate) rules: Rules,
    /// Whether a state is copied on the projector's own thread: only a simulation wants that, for its determinism.
    pub(crate) copy_inline: bool,
}

impl Ambient {
    pub(crate) fn system() -> Self {
        Self {
            clock: Arc::new(System),
            monotonic: Arc::new(Uptime::new()),
            entropy: Arc::new(System),
            #[cfg(feature = "testing")]
            rules: Rules::ALL,
            copy_inline: false,
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn rules(&self) -> Rules {
        self.rules
    }

    /// Outside of tests the rules are constants, and the compiler sees that.
    #[cfg(not(feature = "testing"))]
    #[expect(clippy::unused_self, reason = "the signature it has in tests")]
    pub(crate) fn rules(&self) -> Rules {
        Rules::ALL
    }

    /// 64 fresh bits.
    pub(crate) fn seed(&self) -> u64 {
        self.entropy.bits() as u64
    }

    /// A fresh event id stamped with `now`: UUID version 7 (RFC 9562).
    pub(crate) fn event_id(&self, now: SystemTime) -> EventId {
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = since_epoch.as_secs() * 1_000 + u64::from(since_epoch.subsec_millis());
        let bits = self.entropy.bits().to_le_bytes();
        let tail = bits[..10].try_into().expect("ten of sixteen bytes");
        EventId(uuid::Builder::from_unix_timestamp_millis(millis, tail).into_uuid().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_and_never_falls() {
        let clock = Uptime::new();
        let before = clock.now();
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_millis(2) {}
        let after = clock.now();
        assert!(after >= before + Duration::from_millis(1), "{before:?}, then {after:?}");
    }

    /// `/proc/uptime` counts suspension too, so that the two differ by what lies between the looks and by its precision.
    #[cfg(target_os = "linux")]
    #[test]
    fn suspension_is_counted() {
        let text = std::fs::read_to_string("/proc/uptime").expect("a Linux without /proc");
        let seconds: f64 = text.split(' ').next().expect("two numbers").parse().expect("a number");
        let difference = Uptime::new().now().as_secs_f64() - seconds;
        assert!((-0.02..60.0).contains(&difference), "{difference} s apart");
    }

    #[tokio::test(start_paused = true)]
    async fn simulated_time_is_the_runtimes() {
        let clock = Simulated::default();
        let before = clock.now();
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(clock.now() - before, Duration::from_secs(3_600));
    }
}
