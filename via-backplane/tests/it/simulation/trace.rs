//! What happened, in order: the text that one seed always gives.

use std::fmt;

use tokio::time::Instant;

/// The lines of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    start: Instant,
    lines: Vec<String>,
}

impl Trace {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, lines: Vec::new() }
    }

    pub(crate) fn add(&mut self, who: impl fmt::Display, what: impl fmt::Display) {
        let micros = self.start.elapsed().as_micros();
        let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
        self.lines.push(format!("{seconds:>4}.{rest:06} {who}: {what}"));
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}
