//! Everything a run takes from its surroundings, decided by its seed: chance, and the time of day.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use tokio::time::Instant;
use via_backplane::{Clock, Entropy};

/// A stream of chance of its own for each purpose, so that a draw more in one place changes nothing in another.
pub(crate) fn stream(seed: u64, purpose: &[u64]) -> SmallRng {
    // SplitMix64's finalizer (Steele, Lea and Flood 2014) between the parts keeps nearby seeds apart.
    let mix = |state: u64, part: &u64| {
        let state = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^ (state >> 31)
    };
    SmallRng::seed_from_u64(purpose.iter().fold(mix(0, &seed), mix))
}

/// An engine's random bits.
pub(crate) struct Dice(Mutex<SmallRng>);

impl Dice {
    pub(crate) fn new(rng: SmallRng) -> Self {
        Self(Mutex::new(rng))
    }
}

impl Entropy for Dice {
    fn bits(&self) -> u128 {
        let mut rng = self.0.lock();
        u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())
    }
}

/// A pod's clock: it follows the paused time, and disagrees with the other pods'.
pub(crate) struct SkewedClock {
    start: Instant,
    at_start: SystemTime,
}

impl SkewedClock {
    pub(crate) fn new(start: Instant, skew: Duration) -> Self {
        Self { start, at_start: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + skew }
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> SystemTime {
        self.at_start + self.start.elapsed()
    }
}
