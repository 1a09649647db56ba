//! What cases are written with.

use std::{collections::VecDeque, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::{sync::Barrier, task::JoinSet};

use super::{Harness, PATIENCE};
use crate::{
    Append, AppendError, AppendId, Appended, BackendError, Backplane, Batch, CasError, CellKey, CellSelector,
    Change, Compactor, Entries, Entry, Epoch, Expectation, Expected, Family, Feed, Head, Key, Offset,
    ReadRange, Resume, Rev, Selector, Subscription, Ttl, Watch,
};

/// A fresh backend and a pod connected to it.
pub struct Trial {
    pub(super) harness: Box<dyn Harness>,
    pub(super) pod: Pod,
    /// Whether time passes only when everybody waits.
    pub(super) paused: bool,
}

impl std::fmt::Debug for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trial").field("paused", &self.paused).finish_non_exhaustive()
    }
}

impl Trial {
    pub(super) async fn new(harness: Box<dyn Harness>, paused: bool) -> Self {
        let pod = Pod(harness.connect().await);
        Self { harness, pod, paused }
    }

    pub(super) async fn another_pod(&self) -> Pod {
        Pod(self.harness.connect().await)
    }

    pub(super) async fn interrupt(&self) {
        soon("the interruption", self.harness.interrupt()).await;
    }

    pub(super) async fn restore(&self) {
        soon("the restoration", self.harness.restore()).await;
    }

    pub(super) async fn lose_next_ack(&self) {
        soon("the hook", self.harness.lose_next_ack()).await;
    }
}

/// A pod's connection, with what cases do again and again. Where a case expects success, it says so by calling these.
#[derive(Clone)]
pub(super) struct Pod(pub(super) Arc<dyn Backplane>);

impl std::ops::Deref for Pod {
    type Target = dyn Backplane;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// A record as a case compares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) offset: Offset,
    pub(super) key: Key,
    pub(super) bytes: Vec<u8>,
}

impl Seen {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

pub(super) fn seen(batch: &Batch) -> impl Iterator<Item = Seen> {
    batch.iter().map(|record| Seen {
        offset: record.offset,
        key: record.key.clone(),
        bytes: record.bytes.to_vec(),
    })
}

pub(super) fn offsets(records: &[Seen]) -> Vec<Offset> {
    records.iter().map(|record| record.offset).collect()
}

pub(super) fn texts(records: &[Seen]) -> Vec<String> {
    records.iter().map(Seen::text).collect()
}

impl Pod {
    pub(super) async fn append(&self, key: &Key, record: impl Into<Bytes>) -> Offset {
        let appended = self.try_append(key, record, &[], None).await.expect("the append is accepted");
        appended.offsets.get(0).expect("one offset per entry")
    }

    /// Appends `records` one by one, in order.
    pub(super) async fn append_each(&self, key: &Key, records: std::ops::Range<usize>) -> Vec<Offset> {
        let mut offsets = Vec::new();
        for record in records {
            offsets.push(self.append(key, record.to_string()).await);
        }
        offsets
    }

    pub(super) async fn try_append(
        &self,
        key: &Key,
        record: impl Into<Bytes>,
        expect: &[(&Key, Offset)],
        id: Option<&AppendId>,
    ) -> Result<Appended, AppendError> {
        let entries = Entries::One(Entry { key: key.clone(), record: record.into() });
        self.try_entries(entries, expect, id).await
    }

    pub(super) async fn append_batch(&self, entries: &[(&Key, &str)]) -> Vec<Offset> {
        let appended = self.try_batch(entries, &[], None).await.expect("the batch is accepted");
        assert_eq!(appended.offsets.len(), entries.len(), "one offset per entry");
        appended.offsets.iter().collect()
    }

    pub(super) async fn try_batch(
        &self,
        entries: &[(&Key, &str)],
        expect: &[(&Key, Offset)],
        id: Option<&AppendId>,
    ) -> Result<Appended, AppendError> {
        let entry = |(key, record): &(&Key, &str)| Entry {
            key: (*key).clone(),
            record: Bytes::from((*record).to_owned()),
        };
        self.try_entries(Entries::Many(entries.iter().map(entry).collect()), expect, id).await
    }

    pub(super) async fn try_entries(
        &self,
        entries: Entries,
        expect: &[(&Key, Offset)],
        id: Option<&AppendId>,
    ) -> Result<Appended, AppendError> {
        // Cases name offsets; they mean the log that is there now.
        let epoch = match expect.first() {
            Some((key, _)) => self.epoch(key.family()).await,
            None => Epoch::default(),
        };
        let expect = expect.iter().map(|(key, offset)| (*key, Head { epoch, offset: *offset }));
        self.try_expecting(entries, expect, id).await
    }

    pub(super) async fn try_expecting(
        &self,
        entries: Entries,
        expect: impl IntoIterator<Item = (&Key, Head)>,
        id: Option<&AppendId>,
    ) -> Result<Appended, AppendError> {
        let expect = expect.into_iter().map(|(key, head)| Expectation { key: key.clone(), head }).collect();
        soon("an append", self.log().append(Append { entries, expect, id: id.cloned() })).await
    }

    pub(super) async fn epoch(&self, family: &Family) -> Epoch {
        let selector = Selector::Family(family.clone());
        soon("a head", self.log().head(&selector)).await.expect("the head is known").epoch
    }

    pub(super) async fn read(
        &self,
        selector: &Selector,
        after: Offset,
        up_to: Offset,
        limit: usize,
    ) -> Vec<Seen> {
        let range = ReadRange { after, up_to, limit };
        let batch = soon("a read", self.log().read(selector, range)).await.expect("the read succeeds");
        seen(&batch).collect()
    }

    pub(super) async fn read_all(&self, selector: &Selector) -> Vec<Seen> {
        self.read(selector, Offset::BEGIN, Offset(u64::MAX), usize::MAX).await
    }

    /// Reads until exactly these are left: what was dropped may be seen a moment longer, what was not is never missing.
    pub(super) async fn read_left(&self, selector: &Selector, left: &[Offset]) -> Vec<Seen> {
        soon("what was dropped to be gone", async {
            loop {
                let seen = self.read_all(selector).await;
                let found = offsets(&seen);
                let missing: Vec<_> = left.iter().filter(|offset| !found.contains(offset)).collect();
                assert!(missing.is_empty(), "{missing:?} are gone: {found:?}");
                if found == left {
                    return seen;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    pub(super) async fn head(&self, selector: &Selector) -> Offset {
        soon("a head", self.log().head(selector)).await.expect("the head is known").offset
    }

    pub(super) async fn tail(&self, selector: &Selector, from: Resume) -> Tail {
        let reply = self.log().subscribe(selector, from);
        Tail::of(soon("a subscription", reply).await.expect("the subscription is established"))
    }

    /// The compactor. A backend without one skips the cases that need it by name.
    pub(super) fn compaction(&self) -> &dyn Compactor {
        self.compactor().expect("this adapter has no compactor: skip this case by name")
    }

    pub(super) async fn compact(&self, key: &Key, before: Offset) -> Offset {
        soon("a compaction", self.compaction().compact(key, before)).await.expect("the compaction succeeds")
    }

    pub(super) async fn floor(&self, key: &Key) -> Offset {
        soon("a floor", self.compaction().floor(key)).await.expect("the floor is known")
    }

    pub(super) async fn is_compacted(&self, family: &Family) -> bool {
        soon("an answer", self.compaction().is_compacted(family)).await.expect("the answer is known")
    }

    /// The feed. A backend without one skips the cases that need it by name.
    pub(super) fn broadcast(&self) -> &dyn Feed {
        self.feed().expect("this adapter has no feed: skip this case by name")
    }

    pub(super) async fn load(&self, cell: &CellKey) -> Option<(Rev, Bytes)> {
        let value = soon("a load", self.store().load(cell)).await.expect("the load succeeds");
        value.map(|value| (value.rev, value.bytes))
    }

    pub(super) async fn try_cas(
        &self,
        cell: &CellKey,
        expected: Expected,
        value: impl Into<Bytes>,
    ) -> Result<Rev, CasError> {
        soon("a cas", self.store().cas(cell, expected, value.into(), Ttl::Forever)).await
    }

    pub(super) async fn cas(&self, cell: &CellKey, expected: Expected, value: impl Into<Bytes>) -> Rev {
        self.try_cas(cell, expected, value).await.expect("the cas is accepted")
    }

    pub(super) async fn cas_for(&self, cell: &CellKey, expected: Expected, time: Duration) -> Rev {
        let reply = self.store().cas(cell, expected, Bytes::from_static(b"mortal"), Ttl::For(time));
        soon("a cas", reply).await.expect("the cas is accepted")
    }

    pub(super) async fn try_delete(&self, cell: &CellKey, expected: Rev) -> Result<(), CasError> {
        soon("a delete", self.store().delete(cell, expected)).await
    }

    pub(super) async fn watch(&self, selector: &CellSelector) -> Watching {
        let reply = self.store().watch(selector);
        Watching(soon("a watch", reply).await.expect("the watch is established"))
    }
}

/// A subscription, read record by record.
pub(super) struct Tail {
    subscription: Subscription,
    ready: VecDeque<Seen>,
    pub(super) holes: Vec<(Key, Offset)>,
}

impl Tail {
    fn of(subscription: Subscription) -> Self {
        Self { subscription, ready: VecDeque::new(), holes: Vec::new() }
    }

    pub(super) async fn next(&mut self) -> Seen {
        while self.ready.is_empty() {
            let item = soon("a batch", self.subscription.next()).await;
            let batch = item.expect("a tail never ends silently").expect("the tail goes on");
            self.take_in(&batch);
        }
        self.ready.pop_front().expect("it was just filled")
    }

    fn take_in(&mut self, batch: &Batch) {
        assert!(!batch.is_empty() || batch.hole().is_some(), "a batch brings a record or a hole");
        self.holes.extend(batch.hole().into_iter().flat_map(|hole| hole.floors.iter().cloned()));
        self.ready.extend(seen(batch));
    }

    pub(super) async fn take(&mut self, count: usize) -> Vec<Seen> {
        let mut records = Vec::new();
        for _ in 0..count {
            records.push(self.next().await);
        }
        records
    }

    /// Whatever is ready now, without waiting.
    pub(super) fn ready(&mut self) -> Vec<Seen> {
        while let Some(item) = self.subscription.next().now_or_never() {
            self.take_in(&item.expect("a tail never ends silently").expect("the tail goes on"));
        }
        self.ready.drain(..).collect()
    }

    /// Waits for the error a subscription has to end with, then for its end.
    pub(super) async fn fails(mut self) -> BackendError {
        loop {
            match soon("the error of an ended tail", self.subscription.next()).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let after = soon("the end after the error", self.subscription.next()).await;
                    assert!(after.is_none(), "an error is the last item");
                    return error;
                }
                None => panic!("the tail ended silently"),
            }
        }
    }
}

/// A watch, read change by change.
pub(super) struct Watching(Watch);

impl Watching {
    pub(super) async fn next(&mut self) -> Change {
        let item = soon("a change", self.0.next()).await;
        item.expect("a watch never ends silently").expect("the watch goes on")
    }

    /// The present: what is replayed up to `End`, in no order. Revisions only, because values may be left out.
    pub(super) async fn present(&mut self) -> Vec<(CellKey, Rev)> {
        assert_eq!(self.next().await, Change::Begin, "the present comes first");
        let mut present = std::collections::BTreeMap::new();
        loop {
            match self.next().await {
                Change::Put { key, rev, .. } => {
                    present.insert(key, rev);
                }
                Change::Gone { key, .. } => {
                    present.remove(&key);
                }
                Change::End => return present.into_iter().collect(),
                Change::Begin => panic!("the present begins once"),
            }
        }
    }

    pub(super) async fn fails(mut self) -> BackendError {
        loop {
            match soon("the error of an ended watch", self.0.next()).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    assert!(
                        soon("the end after the error", self.0.next()).await.is_none(),
                        "an error is the last item"
                    );
                    return error;
                }
                None => panic!("the watch ended silently"),
            }
        }
    }
}

/// Waits for a fact, and says which one did not come.
pub(super) async fn soon<T>(what: &str, fact: impl Future<Output = T>) -> T {
    tokio::select! {
        // Looked at first: a fact that is only found because somebody looks again when time is up was never told.
        biased;
        () = tokio::time::sleep(PATIENCE) => panic!("waited {PATIENCE:?} for {what}, in vain"),
        fact = fact => fact,
    }
}

/// Runs `count` tasks that start at the same moment; answers what they answered, in order.
pub(super) async fn together<T, F>(count: usize, task: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(count));
    let mut tasks = JoinSet::new();
    for index in 0..count {
        let (start, task) = (start.clone(), task(index));
        tasks.spawn(async move {
            start.wait().await;
            (index, task.await)
        });
    }
    let mut answers = soon("all tasks", tasks.join_all()).await;
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Polls a call once and drops it, whatever it was about to answer.
pub(super) fn abandon<T>(call: impl Future<Output = T>) {
    drop(call.now_or_never());
}

pub(super) fn family(name: &str) -> Family {
    Family::new(name).expect("a valid name")
}

pub(super) fn key(family: &Family, instance: &str) -> Key {
    Key::instance(family, instance).expect("a valid name")
}

pub(super) fn cell<const N: usize>(path: [&str; N]) -> CellKey {
    CellKey::new(path).expect("a valid path")
}

pub(super) fn id(name: &str) -> AppendId {
    AppendId::new(name).expect("a valid name")
}
