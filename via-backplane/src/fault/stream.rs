//! Streams that come late, break off, or stop.

use std::sync::Arc;

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};

use super::{link::Cut, plan::Kind, pod::Pod};
use crate::BackendError;

/// Wraps a tail, a watch or a feed's messages.
pub(super) fn faulty<T: Send + 'static>(
    name: &'static str,
    inner: BoxStream<'static, Result<T, BackendError>>,
    pod: Arc<Pod>,
    cut: Cut,
) -> BoxStream<'static, Result<T, BackendError>> {
    let start = Some(Faulted { name, inner, pod, cut });
    stream::unfold(start, |stream| async move {
        let mut stream = stream?;
        match stream.next().await {
            Some(Ok(item)) => Some((Ok(item), Some(stream))),
            Some(Err(error)) => Some((Err(error), None)),
            None => None,
        }
    })
    // What is behind the end is asked for by a careless `select!`, and `unfold` would panic.
    .fuse()
    .boxed()
}

struct Faulted<T> {
    name: &'static str,
    inner: BoxStream<'static, Result<T, BackendError>>,
    pod: Arc<Pod>,
    cut: Cut,
}

impl<T> Faulted<T> {
    async fn next(&mut self) -> Option<Result<T, BackendError>> {
        let item = tokio::select! {
            biased;
            () = self.cut.happened() => {
                self.pod.strike(Kind::Interrupt, self.name);
                return Some(Err(self.pod.unavailable()));
            }
            item = self.inner.next() => item?,
        };
        self.pod.step(self.name).await;
        if item.is_ok() && self.pod.strikes(Kind::Disconnect, self.name) {
            // The item is lost with the connection; resuming brings it again.
            return Some(Err(self.pod.unavailable()));
        }
        if let Some(time) = self.pod.delay(self.name) {
            tokio::time::sleep(time).await;
        }
        Some(item)
    }
}
