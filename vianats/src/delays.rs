//! Waits between attempts: doubling, jittered, bounded.

use std::time::Duration;

/// The waits between attempts of one call.
#[derive(Debug)]
pub(crate) struct Delays {
    next: Duration,
    longest: Duration,
}

impl Delays {
    /// For what is over in milliseconds: a write on its way, a leader that changes.
    pub(crate) fn short() -> Self {
        Self { next: Duration::from_millis(1), longest: Duration::from_millis(100) }
    }

    /// Waits, and longer the next time.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn wait(&mut self) {
        let delay = self.next();
        tokio::time::sleep(delay).await;
    }

    fn next(&mut self) -> Duration {
        let delay = self.next.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.next = (self.next * 2).min(self.longest);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut delays = Delays::short();
        let waits: Vec<_> = (0..20).map(|_| delays.next()).collect();
        assert!(waits[0] <= Duration::from_millis(1));
        assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(100)));
        assert!(waits[19] >= Duration::from_millis(50), "{waits:?}");
    }
}
