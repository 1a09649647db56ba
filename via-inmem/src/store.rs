//! The cell store: one ordered map under one lock, and the watches on it.

mod cells;
mod watch;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;
use via_backplane::{
    BackendError, CasError, CellKey, CellSelector, Expected, Incarnation, Reply, Rev, Store, TooLarge, Ttl,
    Versioned, Watch,
};

pub(crate) use self::cells::Cells;
use self::watch::Watching;
use crate::pod::Pod;

impl Store for Pod {
    fn incarnation(&self) -> Reply<'_, Result<Incarnation, BackendError>> {
        Reply::ready(self.open().map(|()| self.memory.cells.incarnation()))
    }

    fn load<'a>(&'a self, key: &'a CellKey) -> Reply<'a, Result<Option<Versioned>, BackendError>> {
        Reply::ready(self.open().map(|()| self.memory.cells.load(key, Instant::now())))
    }

    fn cas<'a>(
        &'a self,
        key: &'a CellKey,
        expected: Expected,
        bytes: Bytes,
        ttl: Ttl,
    ) -> Reply<'a, Result<Rev, CasError>> {
        Reply::ready(self.cas_now(key, expected, bytes, ttl))
    }

    fn delete<'a>(&'a self, key: &'a CellKey, expected: Rev) -> Reply<'a, Result<(), CasError>> {
        let open = self.open().map_err(CasError::Backend);
        Reply::ready(open.and_then(|()| self.memory.cells.delete(key, expected, Instant::now())))
    }

    fn watch<'a>(&'a self, selector: &'a CellSelector) -> Reply<'a, Result<Watch, BackendError>> {
        Reply::ready(
            self.open()
                .map(|()| Watching::new(self.memory.cells.clone(), self.enrol(), selector.clone()).boxed()),
        )
    }
}

impl Pod {
    fn cas_now(&self, key: &CellKey, expected: Expected, bytes: Bytes, ttl: Ttl) -> Result<Rev, CasError> {
        self.open().map_err(CasError::Backend)?;
        let (size, limit) = (bytes.len(), self.memory.limits.max_cell);
        if size > limit {
            return Err(CasError::TooLarge(TooLarge { what: "cell", size, limit }));
        }
        self.memory.cells.cas(key, expected, bytes, ttl, Instant::now())
    }
}

#[cfg(test)]
mod tests;
