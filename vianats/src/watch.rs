//! Watches: all cells below a path by a consumer, one cell by a subscription.

mod below;
mod one;

use std::future::Future;

use async_nats::HeaderMap;
use futures_util::{Stream, StreamExt as _, stream};
use via_backplane::{BackendError, CellKey, CellSelector, Change, Rev, Watch};

use self::{below::Below, one::One};
use crate::{
    cells::{Latest, is_removal},
    pod::Pod,
};

/// Begins to watch.
pub(crate) async fn open(pod: &Pod, selector: &CellSelector) -> Result<Watch, BackendError> {
    Ok(match selector {
        CellSelector::One(key) => changes(One::open(pod, key.clone()).await?).boxed(),
        CellSelector::Below(prefix) => changes(Below::open(pod, prefix).await?).boxed(),
    })
}

/// What tells of changes, until an error that is the last thing it tells.
trait Tells: Send + Sized {
    fn next(&mut self) -> impl Future<Output = Result<Change, BackendError>> + Send;
}

fn changes(watch: impl Tells) -> impl Stream<Item = Result<Change, BackendError>> + Send {
    stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        let change = watch.next().await;
        let goes_on = change.is_ok();
        Some((change, goes_on.then_some(watch)))
    })
}

/// What a message of a cell's subject says.
fn said(sequence: u64, headers: Option<&HeaderMap>, payload: bytes::Bytes) -> Latest {
    let header = |name: &str| headers.and_then(|headers| headers.get(name)).map(|value| value.as_str());
    Latest { sequence, value: (!is_removal(header)).then_some(payload) }
}

fn change(key: CellKey, latest: Latest) -> Change {
    let rev = Rev(latest.sequence);
    match latest.value {
        Some(bytes) => Change::Put { key, rev, bytes: Some(bytes) },
        None => Change::Gone { key, rev },
    }
}
