//! The one place that spawns tasks: every task is named, counted, and stopped.

use std::{
    any::Any, borrow::Cow, collections::BTreeMap, fmt, future::Future, panic::AssertUnwindSafe, sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::retry;
use crate::BoxError;

/// Runs background tasks, and ends them all.
///
/// Tasks are futures on the tokio runtime the supervisor was used on first. Each learns of the stop through its
/// [`Stop`]; what has not ended when the grace period is over is dropped at its next await. While others drain, a task that
/// drains may still be started, because they may need it to come to their end. Cloning is a reference count.
///
/// ```
/// use std::time::Duration;
/// use via_backplane::{OnStop, Supervisor};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let supervisor = Supervisor::new();
/// supervisor.spawn("greeter", OnStop::Abort, |_stop| async {
///     std::future::pending::<()>().await;
///     Ok(())
/// });
/// assert_eq!(supervisor.tasks(), 1);
/// supervisor.stop(Duration::from_secs(1)).await.expect("nothing failed");
/// assert_eq!(supervisor.tasks(), 0);
/// # });
/// ```
#[derive(Clone, Default)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    tracker: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    next: u64,
    names: BTreeMap<u64, Cow<'static, str>>,
    fault: Option<Fault>,
}

/// Resolves when the supervisor stops.
pub type Stop = CancellationToken;

/// What becomes of a task when the supervisor stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// It is told, and ends by itself within the grace period.
    Drain,
    /// It is dropped at its next await.
    Abort,
}

/// What a failure of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// It is logged; the task has ended.
    Log,
    /// It is logged and the task is started again after a backoff.
    Restart,
    /// It is logged, kept as the first fault, and stops everything.
    StopApp,
}

/// A task that failed: by an error, or by a panic.
#[derive(Debug, thiserror::Error)]
#[error("the task `{task}` failed")]
pub struct Fault {
    /// Which task.
    pub task: Cow<'static, str>,
    /// What happened.
    #[source]
    pub cause: BoxError,
}

/// Why a supervised job has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// It panicked, with this message.
    #[error("panicked: {0}")]
    Panicked(String),
    /// The supervisor stopped before it ended.
    #[error("stopped before it ended")]
    Stopped,
}

impl Supervisor {
    /// A supervisor without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task once; a failure is logged.
    pub fn spawn<F, Fut>(&self, name: impl Into<Cow<'static, str>>, on_stop: OnStop, task: F)
    where
        F: FnOnce(Stop) -> Fut,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let task = task(self.stopping());
        self.launch(name.into(), on_stop, move |this, name| async move {
            if let Err(cause) = caught(task).await {
                this.failed(OnError::Log, Fault { task: name, cause });
            }
        });
    }

    /// Runs a task for as long as the supervisor lives, with a policy for its failures.
    pub fn supervise<F, Fut>(
        &self,
        name: impl Into<Cow<'static, str>>,
        on_stop: OnStop,
        on_error: OnError,
        mut make: F,
    ) where
        F: FnMut(Stop) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.launch(name.into(), on_stop, move |this, name| async move {
            let mut delays = retry::Delays::default();
            while let Err(cause) = caught(make(this.stopping())).await {
                this.failed(on_error, Fault { task: name.clone(), cause });
                if on_error != OnError::Restart {
                    return;
                }
                delays.wait().await;
            }
        });
    }

    /// Runs a job and waits for its result. The job goes on when the caller is dropped.
    ///
    /// # Errors
    /// [`JobError::Panicked`] with the panic's message, [`JobError::Stopped`] if the supervisor stopped first.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the result, not the job.
    pub async fn run<T: Send + 'static>(
        &self,
        name: impl Into<Cow<'static, str>>,
        on_stop: OnStop,
        job: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JobError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.launch(name.into(), on_stop, |_, _| async move {
            let outcome = AssertUnwindSafe(job).catch_unwind().await;
            reply.send(outcome.map_err(|panic| JobError::Panicked(message(&*panic)))).ok(); // The caller may have left.
        });
        answer.await.unwrap_or(Err(JobError::Stopped))
    }

    /// Runs a computation on a thread for blocking work and waits for its result.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Cancel safety
    /// Dropping the future abandons the result, not the computation.
    pub async fn offload<T: Send + 'static>(
        &self,
        name: impl Into<Cow<'static, str>>,
        compute: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobError> {
        let Some(entry) = self.enter(name.into(), OnStop::Drain) else { return Err(JobError::Stopped) };
        let task = self.shared.tracker.spawn_blocking(move || {
            let _entry = entry;
            compute()
        });
        task.await.map_err(|error| match error.try_into_panic() {
            Ok(panic) => JobError::Panicked(message(&*panic)),
            Err(_) => JobError::Stopped,
        })
    }

    /// How many tasks run.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.shared.ledger.lock().names.len()
    }

    /// The names of the tasks that run, oldest first.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.shared.ledger.lock().names.values().map(ToString::to_string).collect()
    }

    /// Resolves when the supervisor stops, by [`stop`](Self::stop) or by a failure that stops everything.
    #[must_use]
    pub fn stopping(&self) -> Stop {
        self.shared.stop.clone()
    }

    /// Ends every task: told first, dropped when the grace period is over. Idempotent.
    ///
    /// # Errors
    /// The first fault of a task whose failure stops everything.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the supervisor stopping; call it again to wait.
    pub async fn stop(&self, grace: Duration) -> Result<(), Fault> {
        let deadline = Instant::now() + grace;
        self.shared.stop.cancel();
        self.shared.tracker.close();
        if timeout_at(deadline, self.shared.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = ?self.names(), "tasks outlived the grace period and are dropped");
            self.shared.kill.cancel();
            self.shared.tracker.wait().await;
        }
        self.shared.ledger.lock().fault.take().map_or(Ok(()), Err)
    }

    /// Drops every task at its next await, telling none: what a crash does.
    #[cfg(feature = "testing")]
    pub async fn kill(&self) {
        self.shared.kill.cancel();
        self.shared.stop.cancel();
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
    }

    fn launch<F, Fut>(&self, name: Cow<'static, str>, on_stop: OnStop, body: F)
    where
        F: FnOnce(Self, Cow<'static, str>) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let Some(entry) = self.enter(name.clone(), on_stop) else { return };
        let body = body(self.clone(), name);
        let (stop, kill) = (self.shared.stop.clone(), self.shared.kill.clone());
        self.shared.tracker.spawn(async move {
            let _entry = entry;
            tokio::select! {
                biased;
                () = kill.cancelled() => {}
                () = stop.cancelled(), if on_stop == OnStop::Abort => {}
                () = body => {}
            }
        });
    }

    /// Adds a task to the ledger, unless no more are taken: while those that are there drain, only what they may need.
    fn enter(&self, name: Cow<'static, str>, on_stop: OnStop) -> Option<Entry> {
        let mut ledger = self.shared.ledger.lock();
        if self.shared.tracker.is_closed() && (on_stop == OnStop::Abort || ledger.names.is_empty()) {
            return None;
        }
        let id = ledger.next;
        ledger.next += 1;
        ledger.names.insert(id, name);
        Some(Entry { id, shared: self.shared.clone() })
    }

    fn failed(&self, on_error: OnError, fault: Fault) {
        tracing::error!(task = %fault.task, cause = %fault.cause, ?on_error, "a background task failed");
        metrics::counter!(super::metrics::TASK_FAILURES, "task" => family_of(&fault.task)).increment(1);
        if on_error == OnError::StopApp {
            self.shared.ledger.lock().fault.get_or_insert(fault);
            self.shared.stop.cancel();
        }
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("tasks", &self.names()).finish()
    }
}

/// A task's line in the ledger; dropping it strikes the line out.
struct Entry {
    id: u64,
    shared: Arc<Shared>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.ledger.lock().names.remove(&self.id);
    }
}

async fn caught(task: impl Future<Output = Result<(), BoxError>>) -> Result<(), BoxError> {
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => Err(Box::new(JobError::Panicked(message(&*panic)))),
    }
}

/// The text of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not text".to_owned())
}

/// The part of a task's name before the first space: names may carry instances, labels must not.
fn family_of(task: &str) -> String {
    task.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failing_task_is_restarted_until_it_ends_well() {
        let supervisor = Supervisor::new();
        let (done, finished) = tokio::sync::oneshot::channel();
        let mut done = Some(done);
        let mut failures = 3;
        supervisor.supervise("flaky", OnStop::Abort, OnError::Restart, move |_| {
            failures -= 1;
            let done = (failures == 0).then(|| done.take().expect("it ends well once"));
            async move {
                match done {
                    Some(done) => done.send(()).map_err(|()| "nobody listens".into()),
                    None => Err("not yet".into()),
                }
            }
        });
        finished.await.expect("the third run ends well");
        supervisor.stop(Duration::from_secs(1)).await.expect("restarts are not faults");
        assert_eq!(supervisor.tasks(), 0, "{:?}", supervisor.names());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fatal_panic_stops_everything_and_is_the_fault() {
        let supervisor = Supervisor::new();
        supervisor.spawn("bystander", OnStop::Abort, |_| std::future::pending());
        supervisor.supervise("fatal", OnStop::Abort, OnError::StopApp, |_| async { panic!("out of cheese") });
        supervisor.stopping().cancelled().await;
        let fault = supervisor.stop(Duration::from_secs(1)).await.expect_err("the panic is the first fault");
        assert_eq!(fault.task, "fatal");
        assert_eq!(fault.cause.to_string(), "panicked: out of cheese");
        assert_eq!(supervisor.tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_drain_is_dropped_after_the_grace_period() {
        let supervisor = Supervisor::new();
        supervisor.spawn("stubborn", OnStop::Drain, |_| std::future::pending());
        supervisor.stop(Duration::from_secs(5)).await.expect("it is no fault");
        assert_eq!(supervisor.tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_drains_may_start_what_it_needs() {
        let supervisor = Supervisor::new();
        let (told, outcome) = tokio::sync::oneshot::channel();
        let jobs = supervisor.clone();
        supervisor.spawn("last words", OnStop::Drain, |stop| async move {
            stop.cancelled().await;
            // Closed to all others by now.
            tokio::task::yield_now().await;
            let drained = jobs.run("word", OnStop::Drain, async { 7 }).await;
            let computed = jobs.offload("thought", || 8).await;
            let aborted = jobs.run("chatter", OnStop::Abort, async { 9 }).await;
            told.send((drained.ok(), computed.ok(), aborted.ok())).expect("somebody listens");
            Ok(())
        });
        supervisor.stop(Duration::from_secs(5)).await.expect("nothing failed");
        assert_eq!(outcome.await, Ok((Some(7), Some(8), None)));
        assert_eq!(supervisor.tasks(), 0, "{:?}", supervisor.names());
    }

    #[tokio::test]
    async fn a_job_outlives_its_caller_and_a_panic_is_its_result() {
        let supervisor = Supervisor::new();
        let (done, finished) = tokio::sync::oneshot::channel();
        let caller = supervisor.run("job", OnStop::Drain, async move { done.send(7) });
        assert!(caller.now_or_never().is_none(), "the job has not run yet");
        assert_eq!(finished.await, Ok(7), "the job went on without its caller");
        let panicked = supervisor.run("job", OnStop::Drain, async { panic!("oh no") }).await;
        assert!(matches!(panicked, Err::<(), _>(JobError::Panicked(text)) if text == "oh no"));
        supervisor.stop(Duration::from_secs(1)).await.expect("jobs are not faults");
        let late = supervisor.run("late", OnStop::Drain, async {}).await;
        assert!(matches!(late, Err(JobError::Stopped)), "{late:?}");
    }
}
