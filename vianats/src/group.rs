//! Grouping: whether many small appends travel one by one or in atomic batches, decided by what is faster here.
//!
//! A server that syncs before it acknowledges (`sync_interval: always`) syncs once per publish, and once per batch.
//! Without that, a batch is the slower of the two. Which server this is cannot be asked, so it is measured: whenever many
//! appends wait, the acks per second of both ways are compared, and the faster one is used until the next comparison.
//! Appends with an id or an expectation are never grouped: one that fails would fail its whole batch.

use std::time::Duration;

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use via_backplane::{Append, AppendError, Appended, BackendError, Entries, Entry, ErrorKind, Offsets};

use crate::pod::{MAX_BATCH, Pod};

/// So many appends have to wait for two ways to be compared; with fewer, the round trip is what is measured.
const SATURATED: u32 = 32;
/// What is measured spans so many acks, and at least this long: acks of batches come in bursts.
const SAMPLE_ACKS: u32 = 512;
const SAMPLE_TIME: Duration = Duration::from_millis(50);
/// A batch has costs of its own (it is staged, then committed), so grouping has to be clearly faster.
const CLEARLY: f64 = 1.25;
/// How long the winner is used before the other is tried again: doubling between these.
const SHORTEST_TERM: Duration = Duration::from_secs(10);
const LONGEST_TERM: Duration = Duration::from_secs(600);
/// Fewer than this are not worth a batch, which costs as much as some ten publishes (measured: 2.2 ms for ten).
const SMALLEST_GROUP: usize = 16;
/// Bytes of a group, so that a batch does not grow with the size of its records.
const MAX_GROUP_BYTES: usize = 4 << 20;
/// Batches of this pod that are under way at the same time: one is committed while the next one travels.
const MAX_UNDER_WAY: usize = 2;
/// So many waiting appends make the next group begin while one is under way.
const EARLY_GROUP: usize = 256;

/// How plain appends travel now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Single,
    Grouped,
}

/// Measures both ways and chooses one. It is told when an append begins to wait, and when it is acknowledged.
#[derive(Debug)]
pub(crate) struct Chooser {
    way: Way,
    phase: Phase,
    waiting: u32,
    sample: Sample,
    /// Acks per second of the way that was used before the trial.
    before: f64,
    term: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The way was chosen, until this moment; `None` before anything was measured.
    Chosen { until: Option<Instant> },
    /// The way has just changed: what is acknowledged now was sent the other way.
    Changing,
    /// The next sample decides.
    Trying,
}

/// Acks that came while many appends waited, and for how long that was.
#[derive(Debug, Default)]
struct Sample {
    acks: u32,
    took: Duration,
    /// Since when many wait.
    since: Option<Instant>,
}

impl Default for Chooser {
    fn default() -> Self {
        Self {
            way: Way::Single,
            phase: Phase::Chosen { until: None },
            waiting: 0,
            sample: Sample::default(),
            before: 0.0,
            term: SHORTEST_TERM,
        }
    }
}

impl Chooser {
    pub(crate) fn way(&self) -> Way {
        self.way
    }

    /// An append begins to wait.
    pub(crate) fn begins(&mut self, now: impl FnOnce() -> Instant) {
        self.waiting += 1;
        if self.waiting == SATURATED {
            self.sample.since = Some(now());
        }
    }

    /// An append waits no more.
    pub(crate) fn ends(&mut self, now: impl FnOnce() -> Instant) {
        let was_saturated = self.waiting >= SATURATED;
        self.waiting = self.waiting.saturating_sub(1);
        if !was_saturated {
            return;
        }
        self.sample.acks += 1;
        let is_saturated = self.waiting >= SATURATED;
        let is_enough = self.sample.acks >= SAMPLE_ACKS && self.sample.acks.is_multiple_of(64);
        if is_saturated && !is_enough {
            return;
        }
        let now = now();
        if let Some(since) = self.sample.since.replace(now) {
            self.sample.took += now - since;
        }
        if self.sample.acks >= SAMPLE_ACKS && self.sample.took >= SAMPLE_TIME {
            let rate = f64::from(self.sample.acks) / self.sample.took.as_secs_f64();
            (self.sample.acks, self.sample.took) = (0, Duration::ZERO);
            self.choose(rate, now);
        }
        if !is_saturated {
            self.sample.since = None;
        }
    }

    fn choose(&mut self, rate: f64, now: Instant) {
        match self.phase {
            Phase::Chosen { until } if until.is_some_and(|until| now < until) => {}
            Phase::Chosen { .. } => {
                self.before = rate;
                self.way = self.way.other();
                self.phase = Phase::Changing;
            }
            Phase::Changing => self.phase = Phase::Trying,
            Phase::Trying => {
                let is_better = match self.way {
                    Way::Grouped => rate > self.before * CLEARLY,
                    Way::Single => rate * CLEARLY > self.before,
                };
                tracing::debug!(tried = ?self.way, rate, before = self.before, is_better, "appends were measured");
                if is_better {
                    self.term = SHORTEST_TERM;
                } else {
                    self.way = self.way.other();
                }
                self.phase = Phase::Chosen { until: Some(now + self.term) };
                self.term = (self.term * 2).min(LONGEST_TERM);
            }
        }
    }
}

impl Way {
    fn other(self) -> Self {
        match self {
            Self::Single => Self::Grouped,
            Self::Grouped => Self::Single,
        }
    }
}

/// Where appends wait for their group.
pub(crate) struct Groups {
    chooser: Mutex<Chooser>,
    queue: mpsc::Sender<Waiting>,
}

/// An append that waits for its group.
pub(crate) struct Waiting {
    entry: Entry,
    answer: Answer,
}

type Answer = oneshot::Sender<Result<Appended, AppendError>>;

/// An append that waits, for as long as this lives.
pub(crate) struct Counted<'a> {
    chooser: &'a Mutex<Chooser>,
    /// How it should travel.
    pub(crate) way: Way,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.chooser.lock().ends(Instant::now);
    }
}

impl Groups {
    /// Room for what may be in flight at all; the receiver is for [`gather`].
    pub(crate) fn new(capacity: usize) -> (Self, mpsc::Receiver<Waiting>) {
        let (queue, waiting) = mpsc::channel(capacity);
        (Self { chooser: Mutex::default(), queue }, waiting)
    }

    /// A record that nothing is expected of begins to wait; says which way is faster now.
    pub(crate) fn begin(&self) -> Counted<'_> {
        let mut chooser = self.chooser.lock();
        chooser.begins(Instant::now);
        Counted { chooser: &self.chooser, way: chooser.way() }
    }

    /// Appends a record in a group.
    pub(crate) async fn append(&self, entry: Entry) -> Result<Appended, AppendError> {
        let (answer, answered) = oneshot::channel();
        // The queue has room for everything that has a turn; it is gone only with the backplane.
        let queued = self.queue.send(Waiting { entry, answer }).await;
        queued.map_err(|_| AppendError::Backend(BackendError::closed()))?;
        answered.await.unwrap_or_else(|_| Err(AppendError::MaybeCommitted(BackendError::closed())))
    }
}

/// Takes what waits, and sends it in groups. While one group is under way the next one gathers, so that the slower the
/// server the larger the groups.
pub(crate) async fn gather(pod: Pod, mut waiting: mpsc::Receiver<Waiting>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        let may_begin =
            under_way.is_empty() || under_way.len() < MAX_UNDER_WAY && waiting.len() >= EARLY_GROUP;
        tokio::select! {
            biased;
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            first = waiting.recv(), if may_begin => {
                let Some(first) = first else { return };
                let group = take_group(first, &mut waiting).await;
                under_way.push(send(&pod, group));
            }
        }
    }
}

/// Whoever was just answered may be about to append again: as long as more come, the group waits for them.
async fn take_group(first: Waiting, waiting: &mut mpsc::Receiver<Waiting>) -> Vec<Waiting> {
    let mut before = 0;
    while waiting.len() > before && waiting.len() < MAX_BATCH {
        before = waiting.len();
        tokio::task::yield_now().await;
    }
    let mut bytes = first.entry.record.len();
    let mut group = vec![first];
    while group.len() < MAX_BATCH && bytes < MAX_GROUP_BYTES {
        let Ok(one) = waiting.try_recv() else { break };
        bytes += one.entry.record.len();
        group.push(one);
    }
    group
}

async fn send(pod: &Pod, group: Vec<Waiting>) {
    let (entries, answers): (Vec<_>, Vec<_>) =
        group.into_iter().map(|waiting| (waiting.entry, waiting.answer)).unzip();
    if entries.len() < SMALLEST_GROUP {
        return send_singly(pod, entries, answers).await;
    }
    let append = Append::new(Entries::Many(entries));
    let outcome = pod.append_alone(&append).await;
    match append.entries {
        // Nothing was stored, and what the server refuses (so large a batch, for instance) it may not refuse each of them.
        Entries::Many(entries) if is_refused(&outcome) => send_singly(pod, entries, answers).await,
        _ => {
            for (index, answer) in answers.into_iter().enumerate() {
                answer.send(share_of(&outcome, index)).ok(); // The caller may have left; that is its right.
            }
        }
    }
}

async fn send_singly(pod: &Pod, entries: Vec<Entry>, answers: Vec<Answer>) {
    let singly = entries.into_iter().zip(answers).map(async |(entry, answer)| {
        let appended = pod.append_alone(&Append::new(Entries::One(entry))).await;
        answer.send(appended).ok(); // As above.
    });
    join_all(singly).await;
}

/// Whether a group as a whole was refused, for what may not be true of each of its appends.
fn is_refused(outcome: &Result<Appended, AppendError>) -> bool {
    match outcome {
        Ok(_) | Err(AppendError::MaybeCommitted(_)) => false,
        Err(AppendError::Backend(error)) => {
            !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Closed)
        }
        Err(_) => true,
    }
}

/// What a group's outcome means for one of its appends.
fn share_of(outcome: &Result<Appended, AppendError>, index: usize) -> Result<Appended, AppendError> {
    let again = |error: &BackendError| BackendError::new(error.kind(), error.to_string());
    match outcome {
        Ok(appended) => {
            let first = appended.offsets.get(index).expect("one offset per append of the group");
            Ok(Appended { epoch: appended.epoch, offsets: Offsets::Run { first, count: 1 } })
        }
        Err(AppendError::MaybeCommitted(error)) => Err(AppendError::MaybeCommitted(again(error))),
        Err(AppendError::Backend(error)) => Err(AppendError::Backend(again(error))),
        // Nothing was expected, and no id was given.
        Err(other) => Err(AppendError::Backend(BackendError::new(
            ErrorKind::Internal,
            format!("a group was refused: {other}"),
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use via_backplane::Offset;

    /// Runs appends against a pretended server of so many acks per second, and says which way is used then.
    struct Bench {
        chooser: Chooser,
        now: Instant,
        single: f64,
        grouped: f64,
    }

    impl Bench {
        fn new(single: f64, grouped: f64) -> Self {
            Self { chooser: Chooser::default(), now: Instant::now(), single, grouped }
        }

        /// `callers` append again and again, until so many were acknowledged.
        fn run(&mut self, callers: u32, acks: u32) -> Way {
            for _ in 0..callers {
                self.chooser.begins(|| self.now);
            }
            for _ in 0..acks {
                let rate = match self.chooser.way() {
                    Way::Single => self.single,
                    Way::Grouped => self.grouped,
                };
                self.now += Duration::from_secs_f64(1.0 / rate);
                self.chooser.ends(|| self.now);
                self.chooser.begins(|| self.now);
            }
            for _ in 0..callers {
                self.chooser.ends(|| self.now);
            }
            self.chooser.way()
        }
    }

    #[test]
    fn groups_are_used_where_each_publish_is_synced() {
        let mut bench = Bench::new(3_000.0, 100_000.0);
        assert_eq!(bench.run(1_000, 20_000), Way::Grouped);
    }

    #[test]
    fn single_publishes_are_used_where_they_are_faster() {
        let mut bench = Bench::new(200_000.0, 130_000.0);
        assert_eq!(bench.run(1_000, 100_000), Way::Single);
    }

    #[test]
    fn a_small_gain_is_not_worth_groups() {
        let mut bench = Bench::new(50_000.0, 55_000.0);
        assert_eq!(bench.run(1_000, 100_000), Way::Single);
    }

    #[test]
    fn few_appends_at_a_time_are_never_grouped() {
        let mut bench = Bench::new(3_000.0, 100_000.0);
        assert_eq!(bench.run(SATURATED - 2, 50_000), Way::Single);
    }

    #[test]
    fn bursts_with_pauses_are_measured_too() {
        let mut bench = Bench::new(3_000.0, 100_000.0);
        let mut grouped = 0;
        for _ in 0..200 {
            grouped += u32::from(bench.chooser.way() == Way::Grouped);
            for _ in 0..200 {
                bench.chooser.begins(|| bench.now);
            }
            for _ in 0..200 {
                let rate = if bench.chooser.way() == Way::Single { 3_000.0 } else { 100_000.0 };
                bench.now += Duration::from_secs_f64(1.0 / rate);
                bench.chooser.ends(|| bench.now);
            }
            bench.now += Duration::from_secs(1); // Nobody appends: no time that counts.
        }
        // Now and then the other way is tried again.
        assert!(grouped > 150, "{grouped} of 200 bursts went in groups");
    }

    #[test]
    fn a_server_that_changes_is_noticed() {
        let mut bench = Bench::new(3_000.0, 100_000.0);
        assert_eq!(bench.run(1_000, 20_000), Way::Grouped);
        bench.single = 200_000.0;
        bench.now += LONGEST_TERM;
        assert_eq!(bench.run(1_000, 200_000), Way::Single);
        bench.single = 3_000.0;
        bench.now += LONGEST_TERM;
        assert_eq!(bench.run(1_000, 200_000), Way::Grouped);
    }

    #[test]
    fn a_groups_outcome_is_shared_by_its_appends() {
        let appended = Appended {
            epoch: via_backplane::Epoch(7),
            offsets: Offsets::Run { first: Offset(40), count: 3 },
        };
        let second = share_of(&Ok(appended), 1).expect("appended");
        assert_eq!(second.offsets, Offsets::Run { first: Offset(41), count: 1 });
        let unknown = AppendError::MaybeCommitted(BackendError::new(ErrorKind::Unavailable, "no answer"));
        let shared = share_of(&Err(unknown), 0).expect_err("unknown");
        assert!(matches!(shared, AppendError::MaybeCommitted(_)), "{shared:?}");
    }
}
