//! Cells and watches, with faults.

use bytes::Bytes;

use super::{
    Faulty,
    link::{Sent, When},
    stream::faulty,
};
use crate::{
    BackendError, CasError, CellKey, CellSelector, Expected, Incarnation, Reply, Rev, Store, Ttl, Versioned,
    Watch,
};

impl Store for Faulty {
    fn incarnation(&self) -> Reply<'_, Result<Incarnation, BackendError>> {
        Reply::later(self.ask("incarnation", self.inner.store().incarnation()))
    }

    fn load<'a>(&'a self, key: &'a CellKey) -> Reply<'a, Result<Option<Versioned>, BackendError>> {
        if self.pod.is_clear() {
            return self.inner.store().load(key);
        }
        Reply::later(async move {
            let answer = self.ask("load", self.inner.store().load(key)).await?;
            Ok(self.pod.maybe_stale(key, answer))
        })
    }

    fn cas<'a>(
        &'a self,
        key: &'a CellKey,
        expected: Expected,
        bytes: Bytes,
        ttl: Ttl,
    ) -> Reply<'a, Result<Rev, CasError>> {
        if self.pod.is_clear() {
            return self.inner.store().cas(key, expected, bytes, ttl);
        }
        let write = Write::Cas { expected, bytes, ttl };
        Reply::later(async move {
            let rev = self.write("cas", key, write).await?;
            Ok(rev.expect("a compare-and-swap answers a revision"))
        })
    }

    fn delete<'a>(&'a self, key: &'a CellKey, expected: Rev) -> Reply<'a, Result<(), CasError>> {
        if self.pod.is_clear() {
            return self.inner.store().delete(key, expected);
        }
        Reply::later(async move { self.write("delete", key, Write::Delete { expected }).await.map(drop) })
    }

    fn watch<'a>(&'a self, selector: &'a CellSelector) -> Reply<'a, Result<Watch, BackendError>> {
        Reply::later(async move {
            let cut = self.pod.link.watch();
            let watch = self.ask("watch", self.inner.store().watch(selector)).await?;
            Ok(faulty("watch", watch, self.pod.clone(), cut))
        })
    }
}

/// A change of a cell, which may have to wait.
enum Write {
    Cas { expected: Expected, bytes: Bytes, ttl: Ttl },
    Delete { expected: Rev },
}

impl Write {
    async fn make(self, store: &dyn Store, key: &CellKey) -> Result<Option<Rev>, CasError> {
        match self {
            Self::Cas { expected, bytes, ttl } => store.cas(key, expected, bytes, ttl).await.map(Some),
            Self::Delete { expected } => store.delete(key, expected).await.map(|()| None),
        }
    }
}

impl Faulty {
    async fn write(&self, name: &'static str, key: &CellKey, write: Write) -> Result<Option<Rev>, CasError> {
        let unknown = || Err(CasError::MaybeCommitted(self.pod.unavailable()));
        match self.pod.send(name, true).await {
            Sent::Through(then) => {
                let answer = write.make(self.inner.store(), key).await;
                self.pod.answer(then).await;
                answer
            }
            Sent::Refused => Err(CasError::Backend(self.pod.unavailable())),
            Sent::RequestLost => unknown(),
            Sent::AckLost(When::Later) => {
                let (inner, key) = (self.inner.clone(), key.clone());
                self.pod.postpone(Box::pin(async move {
                    write.make(inner.store(), &key).await.ok(); // Nobody is left to hear how it went.
                }));
                unknown()
            }
            Sent::AckLost(When::Now) => {
                let answer = write.make(self.inner.store(), key).await;
                self.pod.step("answer").await;
                // A refusal has no ack that could be lost.
                answer.and_then(|_| unknown())
            }
        }
    }
}
