//! How long single operations took.

use std::time::Duration;

use serde::Serialize;

use crate::median::median;

/// The middle and the tail of many durations, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Latency {
    /// Of one run.
    ///
    /// # Panics
    /// If there are no durations.
    pub(crate) fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let at = |share: f64| {
            let index = (durations.len() as f64 * share) as usize;
            durations[index.min(durations.len() - 1)].as_secs_f64() * 1e6
        };
        Self { p50_us: at(0.50), p99_us: at(0.99) }
    }

    /// Of several runs: the median of each figure.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(runs.iter().map(figure));
        Self { p50_us: of(|run| run.p50_us), p99_us: of(|run| run.p99_us) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_what_one_in_a_hundred_exceeds() {
        let latency = Latency::of((1..=1_000).rev().map(Duration::from_micros).collect());
        assert!(
            (latency.p50_us - 501.0).abs() < 1e-6 && (latency.p99_us - 991.0).abs() < 1e-6,
            "{latency:?}"
        );
        let one = Latency::of(vec![Duration::from_micros(7)]);
        assert!((one.p99_us - 7.0).abs() < 1e-6, "{one:?}");
    }
}
