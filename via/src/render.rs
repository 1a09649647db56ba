//! Rendering a view: tracked, never waiting, and never with a panic that leaves it.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, join_all};
use tokio::time::timeout;
use via_backplane::Changes;

use crate::{frame::Frame, keyring::Keyring, page::Mounted, token::Params};

/// How often a view may find something new that is not loaded before the render is given up.
const ROUNDS: usize = 16;
/// How long what is not loaded is waited for, per round.
const PATIENCE: Duration = Duration::from_secs(10);

/// The outcome of a render, and what it depended on either way.
pub(crate) struct Rendered {
    pub(crate) frame: Result<Frame, NoFrame>,
    pub(crate) changes: Vec<Changes>,
}

/// Why a render has no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoFrame {
    /// The view panicked; the log has the detail.
    Panicked,
    /// What the view reads did not load in time.
    NotLoaded,
}

/// Renders until nothing the view reads is missing.
pub(crate) async fn render(page: &Mounted, params: &Arc<Params>, keys: &Keyring) -> Rendered {
    let mut changes = Vec::new();
    for _ in 0..ROUNDS {
        let attempt = once(page, params, keys);
        changes = attempt.changes;
        if attempt.missing.is_empty() {
            return Rendered { frame: attempt.frame, changes };
        }
        // A panic counts for nothing here: the view saw defaults, not the state.
        if timeout(PATIENCE, join_all(attempt.missing)).await.is_err() {
            break;
        }
    }
    tracing::warn!(page = &*page.path, "what the view reads did not load in time");
    page.metrics.render_failed("not_loaded");
    Rendered { frame: Err(NoFrame::NotLoaded), changes }
}

struct Attempt {
    frame: Result<Frame, NoFrame>,
    changes: Vec<Changes>,
    missing: Vec<BoxFuture<'static, ()>>,
}

fn once(page: &Mounted, params: &Arc<Params>, keys: &Keyring) -> Attempt {
    let cx = page.cx(params.clone(), keys);
    let start = Instant::now();
    // The view only reads, and its context is thrown away with a panic: nothing half-done is seen again.
    let html = catch_unwind(AssertUnwindSafe(|| page.component.view(&cx)));
    page.metrics.rendered.increment(1);
    page.metrics.render_seconds.record(start.elapsed().as_secs_f64());
    let reads = cx.into_reads();
    let frame = match html {
        Ok(view) => Ok(Frame::new(&view, &page.seeds)),
        Err(panic) => {
            if reads.missing.is_empty() {
                tracing::error!(page = &*page.path, panic = %message(&*panic), "a view panicked");
                page.metrics.render_failed("panicked");
            }
            Err(NoFrame::Panicked)
        }
    };
    Attempt { frame, changes: reads.changes, missing: reads.missing }
}

/// The text of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is not text")
}
