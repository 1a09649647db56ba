//! Waits for facts that only show when looked for.

use std::time::{Duration, Instant};

/// How long to look away between two looks: short beside what any of these facts takes to come about.
const GLANCE: Duration = Duration::from_millis(5);

/// Looks until there is something to see, every few milliseconds; nothing if `patience` ends first.
///
/// It blocks the thread: it is for what has nothing to wait on, such as another process's state.
pub fn wait_for<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if start.elapsed() > patience {
            return None;
        }
        glance();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process's state has no notification to wait for; every loop around this is bounded"
)]
fn glance() {
    std::thread::sleep(GLANCE);
}
