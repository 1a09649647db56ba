//! Waiting longer after every failure, with jitter.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The delays between attempts: exponential, jittered, capped, and without an end of their own.
///
/// The jitter is backon's, a random share of the delay on top of it, so that pods that fail together do not
/// come back together.
pub(crate) struct Delays {
    builder: ExponentialBuilder,
    backoff: ExponentialBackoff,
    max: Duration,
}

impl Delays {
    /// Delays from `min`, doubled up to `max`; `seed` decides the jitter.
    pub(crate) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        let builder = ExponentialBuilder::default()
            .with_min_delay(min)
            .with_max_delay(max)
            .with_jitter()
            .with_jitter_seed(seed)
            .without_max_times();
        Self { backoff: builder.build(), builder, max }
    }

    /// Starts over, after a success.
    pub(crate) fn reset(&mut self) {
        self.backoff = self.builder.build();
    }

    /// Waits for the next delay.
    pub(crate) async fn wait(&mut self) {
        let delay = self.next();
        tokio::time::sleep(delay).await;
    }

    /// Waits for the longest delay, jitter on top, however few there were before.
    pub(crate) async fn wait_longest(&mut self) {
        let mut delay = self.next();
        while delay < self.max {
            delay = self.next();
        }
        tokio::time::sleep(delay).await;
    }

    /// The next delay, for whoever waits himself.
    pub(crate) fn next(&mut self) -> Duration {
        self.backoff.next().unwrap_or(self.max)
    }
}

impl Default for Delays {
    /// 50 ms, doubled up to 5 s: a restart is noticed within seconds and a long outage costs little.
    fn default() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(5), rand::random())
    }
}
