//! The future every contract method returns.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// The answer of a backend: at once where it is known, else a boxed future.
///
/// A contract trait must be usable as `dyn`, and a boxed future per call would be the largest cost of an
/// append in memory. A `Reply` that is ready never allocates.
///
/// ```
/// use via_backplane::Reply;
/// # futures_executor::block_on(async {
/// assert_eq!(Reply::ready(7).await, 7);
/// assert_eq!(Reply::later(async { 8 }).await, 8);
/// # });
/// ```
#[must_use = "a reply does nothing until it is awaited"]
pub struct Reply<'a, T>(State<'a, T>);

enum State<'a, T> {
    Ready(Option<T>),
    Later(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
}

impl<'a, T> Reply<'a, T> {
    /// An answer that is already known.
    pub fn ready(value: T) -> Self {
        Self(State::Ready(Some(value)))
    }

    /// An answer that has to be waited for.
    pub fn later(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self(State::Later(Box::pin(future)))
    }

    /// The answer if it is already known, else the reply again.
    ///
    /// # Errors
    /// The reply itself, when it has to be waited for.
    pub fn now(self) -> Result<T, Self> {
        match self.0 {
            State::Ready(Some(value)) => Ok(value),
            state => Err(Self(state)),
        }
    }
}

// The value is moved out, never pinned in place.
impl<T> Unpin for Reply<'_, T> {}

impl<T> Future for Reply<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            State::Ready(value) => {
                Poll::Ready(value.take().expect("a reply is polled again after its answer"))
            }
            State::Later(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for Reply<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Ready(_) => "Reply::Ready",
            State::Later(_) => "Reply::Later",
        })
    }
}
