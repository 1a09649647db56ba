//! The frames every tab of a page shares: rendered once per change, not once per tab.

use std::{collections::HashMap, fmt, future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::select_all;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use via_backplane::{Changes, OnStop, Stop, Supervisor};

use crate::{
    frame::{self, FrameId},
    keyring::Keyring,
    metrics::Counted,
    page::Mounted,
    refusal::GENERIC,
    render::{NoFrame, render},
    token::Params,
};

/// The least time between two frames of a page: a screen shows no more than 60 per second, and a burst of changes
/// must not render once each.
const GAP: Duration = Duration::from_millis(16);
/// How long a render that could not load its state is put off.
const PUT_OFF: Duration = Duration::from_secs(2);

/// What the tabs of a page were told last: nothing yet, or this.
pub(crate) type Latest = Option<Arc<Sent>>;

/// One event for every tab of a page, encoded once.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Which frame it shows; a notice shows none.
    pub(crate) frame: Option<FrameId>,
    pub(crate) event: Bytes,
}

/// One task per (page, parameters) that has a tab, and the last frame of each.
pub(crate) struct Frames {
    sources: Mutex<HashMap<Source, Arc<watch::Sender<Latest>>>>,
    supervisor: Supervisor,
    keys: Keyring,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Source {
    page: Arc<str>,
    params: Arc<Params>,
}

impl Frames {
    pub(crate) fn new(supervisor: Supervisor, keys: Keyring) -> Self {
        Self { sources: Mutex::default(), supervisor, keys }
    }

    /// The frames of a page from now on: the last one at once, then each change's; slow readers skip.
    pub(crate) fn follow(
        self: &Arc<Self>,
        page: &Arc<Mounted>,
        params: Arc<Params>,
    ) -> watch::Receiver<Latest> {
        let source = Source { page: page.path.clone(), params };
        let mut sources = self.sources.lock();
        if let Some(latest) = sources.get(&source) {
            return latest.subscribe();
        }
        let (latest, first) = watch::channel(None);
        let latest = Arc::new(latest);
        sources.insert(source.clone(), latest.clone());
        drop(sources);
        self.launch(page.clone(), source, latest);
        first
    }

    fn launch(self: &Arc<Self>, page: Arc<Mounted>, source: Source, latest: Arc<watch::Sender<Latest>>) {
        // Dropped with the task, however that ends: a source without a task would leave its tabs waiting for ever.
        // Its tabs then reconnect, and the first of them starts it anew.
        let listed = Listed { frames: self.clone(), source, latest };
        self.supervisor.spawn(format!("frames {}", page.path), OnStop::Drain, move |stop| async move {
            let _counted = Counted::new(&page.metrics.frame_tasks);
            listed.run(&page, stop).await;
            Ok(())
        });
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("sources", &self.sources.lock().len()).finish()
    }
}

struct Listed {
    frames: Arc<Frames>,
    source: Source,
    latest: Arc<watch::Sender<Latest>>,
}

impl Listed {
    async fn run(&self, page: &Mounted, stop: Stop) {
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                next = self.refresh(page) => next,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.latest.closed() => if self.retire() { return },
                () = next.due() => {}
            }
        }
    }

    /// Renders and tells the tabs what they do not know yet. Answers what to wait for.
    async fn refresh(&self, page: &Mounted) -> Next {
        let started = Instant::now();
        let rendered = render(page, &self.source.params, &self.frames.keys).await;
        let retry = match rendered.frame {
            Ok(frame) => {
                let shown = self.latest.borrow().as_ref().and_then(|sent| sent.frame);
                if shown != Some(frame.id) {
                    let event = frame.event();
                    page.metrics.published.increment(1);
                    page.metrics.frame_bytes.record(event.len() as f64);
                    self.latest.send_replace(Some(Arc::new(Sent { frame: Some(frame.id), event })));
                }
                None
            }
            Err(NoFrame::Panicked) => {
                let notice = Sent { frame: None, event: frame::notice(GENERIC) };
                self.latest.send_replace(Some(Arc::new(notice)));
                None
            }
            Err(NoFrame::NotLoaded) => Some(Instant::now() + PUT_OFF),
        };
        Next { changes: rendered.changes, not_before: started + GAP, retry }
    }

    /// Takes the source off the list if its last tab is gone; a tab that came meanwhile keeps it.
    fn retire(&self) -> bool {
        let mut sources = self.frames.sources.lock();
        let gone = self.latest.receiver_count() == 0;
        if gone {
            sources.remove(&self.source);
        }
        gone
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut sources = self.frames.sources.lock();
        if sources.get(&self.source).is_some_and(|listed| Arc::ptr_eq(listed, &self.latest)) {
            sources.remove(&self.source);
        }
    }
}

/// When a view is rendered again.
struct Next {
    changes: Vec<Changes>,
    not_before: Instant,
    retry: Option<Instant>,
}

impl Next {
    async fn due(self) {
        tokio::select! {
            () = any(self.changes) => {}
            () = at(self.retry) => {}
        }
        sleep_until(self.not_before).await;
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

/// Waits until one of them changes. A stopped engine changes nothing any more.
async fn any(changes: Vec<Changes>) {
    let waits = changes.into_iter().map(|mut changes| {
        Box::pin(async move {
            if !changes.changed().await {
                pending::<()>().await;
            }
        })
    });
    let waits: Vec<_> = waits.collect();
    match waits.is_empty() {
        true => pending().await,
        false => drop(select_all(waits).await),
    }
}
