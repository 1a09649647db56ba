//! Digests of values after records that are chosen by chance, the same ones on every pod: what pods are compared by while they run.

use std::{num::NonZeroU64, sync::Arc};

use super::{
    Core,
    digest::{self, Digest},
    projection::Published,
    supervisor::JobError,
};
use crate::{FoldState, Head, RecordId};

/// What digests may cost: so many bytes are written down per event, however large the state is.
const BYTES_PER_EVENT: u64 = 1_024;

/// What a key's value came to after one of its records.
///
/// Pods that took a digest after the same record, of the same version of the state, folded the same value if the digests are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sampled {
    /// The record.
    pub at: Head,
    /// The digest of the value that has it as the last one.
    pub digest: Digest,
}

/// How digests of one key are going.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    /// One is being computed.
    pub(super) is_running: bool,
    /// How many bytes the last one was of.
    bytes: u64,
    /// How many there were.
    taken: u32,
}

/// What computing one came to.
#[derive(Debug)]
pub(super) enum Sample {
    Taken {
        sampled: Sampled,
        bytes: u64,
    },
    /// The state is written in no order of its own, or cannot be written: its digests say nothing.
    Meaningless,
}

impl Sampling {
    /// Whether a digest is due after this record.
    ///
    /// A large state is sampled less often, each time by half: what a pod chooses that knows a large one, every pod chooses that
    /// knows a smaller one.
    pub(super) fn chooses(&self, one_in: NonZeroU64, id: RecordId) -> bool {
        let affordable = self.bytes.div_ceil(BYTES_PER_EVENT).div_ceil(one_in.get()).next_power_of_two();
        let one_in = one_in.get().saturating_mul(affordable);
        mixed(id).is_multiple_of(one_in) && !self.is_running
    }

    pub(super) fn begin(&mut self) -> bool {
        self.is_running = true;
        self.taken = self.taken.saturating_add(1);
        // Looking costs more than a digest: less and less often.
        self.taken.is_power_of_two()
    }

    pub(super) fn end(&mut self, sample: Option<&Sample>) {
        self.is_running = false;
        if let Some(Sample::Taken { bytes, .. }) = sample {
            self.bytes = *bytes;
        }
    }
}

/// A number that depends on every bit of an id, which may be the user's: two steps of SplitMix64 (Steele, Lea and Flood 2014).
fn mixed(id: RecordId) -> u64 {
    let [high, low] = [u128::from_be_bytes(id.0) >> 64, u128::from_be_bytes(id.0)].map(|half| half as u64);
    let step = |number: u64| {
        let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    };
    step(step(high) ^ low)
}

/// Computes the digest of a value, off the fold path; looks whether it says anything if `looks`.
pub(super) async fn sample<S: FoldState>(
    core: &Core,
    value: Arc<Published<S>>,
    looks: bool,
) -> Result<Sample, JobError> {
    let sample = move || {
        let Ok(encoded) = digest::bytes_of(&value.state) else { return Sample::Meaningless };
        if looks && !digest::is_canonical::<S>(&encoded) {
            return Sample::Meaningless;
        }
        let sampled = Sampled { at: value.key_head.head(), digest: Digest::of_bytes(&encoded) };
        Sample::Taken { sampled, bytes: encoded.len() as u64 }
    };
    core.copy("digest of a state".to_owned(), sample).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> RecordId {
        RecordId(number.to_be_bytes())
    }

    fn one_in(number: u64) -> NonZeroU64 {
        NonZeroU64::new(number).expect("it is not zero")
    }

    #[test]
    fn ids_that_count_up_are_chosen_as_often_as_others() {
        let sampling = Sampling::default();
        let chosen = (0..100_000).filter(|number| sampling.chooses(one_in(100), id(*number))).count();
        assert!((900..1_100).contains(&chosen), "{chosen} of 100,000");
        let chosen = (0..100_000).filter(|number| sampling.chooses(one_in(100), id(number << 64))).count();
        assert!((900..1_100).contains(&chosen), "{chosen} of 100,000");
        assert!(sampling.chooses(one_in(1), id(7)), "one in one is every one");
    }

    #[test]
    fn a_large_state_is_sampled_less_and_only_where_a_small_one_is() {
        let (small, large) = (Sampling::default(), Sampling { bytes: 1 << 20, ..Sampling::default() });
        let chosen = |sampling: &Sampling| -> Vec<u128> {
            (0..100_000).filter(|number| sampling.chooses(one_in(10), id(*number))).collect()
        };
        let (often, seldom) = (chosen(&small), chosen(&large));
        // A megabyte is worth 1,024 events, and 10 × 128 is the next step.
        assert!((50..110).contains(&seldom.len()), "{} of 100,000", seldom.len());
        assert!(seldom.iter().all(|number| often.contains(number)));
    }
}
