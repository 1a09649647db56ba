//! The cell store: a bucket whose stream's sequences are the revisions.
//!
//! A stream's leader answers every read here: one of a replica may be older than what was acknowledged. Writing is next
//! door in `cells.rs`, watching in `watch.rs`.

use bytes::Bytes;
use via_backplane::{
    BackendError, CasError, CellKey, CellSelector, Expected, Incarnation, Reply, Rev, Store, TooLarge, Ttl,
    Versioned, Watch,
};

use crate::{cells::Write, pod::Pod, watch};

impl Store for Pod {
    fn incarnation(&self) -> Reply<'_, Result<Incarnation, BackendError>> {
        Reply::later(async move { Ok(Incarnation(self.look_at_cells().await?.number)) })
    }

    fn load<'a>(&'a self, key: &'a CellKey) -> Reply<'a, Result<Option<Versioned>, BackendError>> {
        Reply::later(async move {
            // A generation that is over has nothing below its subjects any more; nobody else's cell is met there.
            let latest = self.latest(&self.cell_generation(), key).await?;
            Ok(latest
                .and_then(|latest| latest.value.map(|bytes| Versioned { rev: Rev(latest.sequence), bytes })))
        })
    }

    fn cas<'a>(
        &'a self,
        key: &'a CellKey,
        expected: Expected,
        bytes: Bytes,
        ttl: Ttl,
    ) -> Reply<'a, Result<Rev, CasError>> {
        let (size, limit) = (bytes.len(), self.limits().max_cell);
        if size > limit {
            return Reply::ready(Err(CasError::TooLarge(TooLarge { what: "cell", size, limit })));
        }
        Reply::later(self.write_cell(key, expected, Write::Value { bytes, ttl }))
    }

    fn delete<'a>(&'a self, key: &'a CellKey, expected: Rev) -> Reply<'a, Result<(), CasError>> {
        Reply::later(
            async move { self.write_cell(key, Expected::At(expected), Write::Removal).await.map(drop) },
        )
    }

    fn watch<'a>(&'a self, selector: &'a CellSelector) -> Reply<'a, Result<Watch, BackendError>> {
        Reply::later(watch::open(self, selector))
    }
}
