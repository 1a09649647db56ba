//! Appends, tails, reads and compaction, with faults.

use super::{
    Faulty,
    link::{Sent, When},
    stream::faulty,
};
use crate::{
    Append, AppendError, Appended, BackendError, Batch, Compactor, EventLog, Family, Head, Key, Offset, Page,
    ReadRange, Reply, Resume, Selector, Subscription,
};

impl EventLog for Faulty {
    fn append(&self, append: Append) -> Reply<'_, Result<Appended, AppendError>> {
        if self.pod.is_clear() {
            return self.inner.log().append(append);
        }
        Reply::later(self.append_with_faults(append))
    }

    fn subscribe<'a>(
        &'a self,
        selector: &'a Selector,
        from: Resume,
    ) -> Reply<'a, Result<Subscription, BackendError>> {
        Reply::later(async move {
            // Looked at before the call, so that no cut falls between it and the stream.
            let cut = self.pod.link.watch();
            let tail = self.ask("subscribe", self.inner.log().subscribe(selector, from)).await?;
            Ok(faulty("tail", tail, self.pod.clone(), cut))
        })
    }

    fn read<'a>(
        &'a self,
        selector: &'a Selector,
        range: ReadRange,
    ) -> Reply<'a, Result<Batch, BackendError>> {
        if self.pod.is_clear() {
            return self.inner.log().read(selector, range);
        }
        Reply::later(async move { self.ask("read", self.inner.log().read(selector, range)).await })
    }

    fn instances<'a>(&'a self, family: &'a Family, page: Page) -> Reply<'a, Result<Vec<Key>, BackendError>> {
        if self.pod.is_clear() {
            return self.inner.log().instances(family, page);
        }
        Reply::later(async move { self.ask("instances", self.inner.log().instances(family, page)).await })
    }

    fn head<'a>(&'a self, selector: &'a Selector) -> Reply<'a, Result<Head, BackendError>> {
        if self.pod.is_clear() {
            return self.inner.log().head(selector);
        }
        Reply::later(async move { self.ask("head", self.inner.log().head(selector)).await })
    }
}

impl Faulty {
    async fn append_with_faults(&self, append: Append) -> Result<Appended, AppendError> {
        let unknown = || Err(AppendError::MaybeCommitted(self.pod.unavailable()));
        match self.pod.send("append", true).await {
            Sent::Through(then) => {
                let answer = self.inner.log().append(append).await;
                self.pod.answer(then).await;
                answer
            }
            Sent::Refused => Err(AppendError::Backend(self.pod.unavailable())),
            Sent::RequestLost => unknown(),
            Sent::AckLost(When::Later) => {
                let inner = self.inner.clone();
                self.pod.postpone(Box::pin(async move {
                    inner.log().append(append).await.ok(); // Nobody is left to hear how it went.
                }));
                unknown()
            }
            Sent::AckLost(When::Now) => {
                let answer = self.inner.log().append(append).await;
                self.pod.step("answer").await;
                // A refusal has no ack that could be lost.
                answer.and_then(|_| unknown())
            }
        }
    }
}

impl Compactor for Faulty {
    fn compact<'a>(&'a self, key: &'a Key, before: Offset) -> Reply<'a, Result<Offset, BackendError>> {
        Reply::later(async move {
            let compactor = self.inner.compactor().expect("`Faulty::compactor` answered");
            match self.pod.send("compact", true).await {
                Sent::Through(then) => {
                    let answer = compactor.compact(key, before).await;
                    self.pod.answer(then).await;
                    answer
                }
                Sent::AckLost(When::Now) => {
                    compactor.compact(key, before).await?;
                    self.pod.step("answer").await;
                    Err(self.pod.unavailable())
                }
                Sent::Refused | Sent::RequestLost | Sent::AckLost(When::Later) => Err(self.pod.unavailable()),
            }
        })
    }

    fn floor<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<Offset, BackendError>> {
        let compactor = self.inner.compactor().expect("`Faulty::compactor` answered");
        Reply::later(self.ask("floor", compactor.floor(key)))
    }

    fn is_compacted<'a>(&'a self, family: &'a Family) -> Reply<'a, Result<bool, BackendError>> {
        let compactor = self.inner.compactor().expect("`Faulty::compactor` answered");
        Reply::later(self.ask("is compacted", compactor.is_compacted(family)))
    }
}
