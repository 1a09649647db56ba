//! Counts heap allocations, and tells those of one future from all others.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::Future,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::{Context, Poll},
};

/// The system's allocator, counted.
pub(crate) struct Counting;

/// Threads that count get in each other's way, which only those should pay who want to know.
static WANTED: AtomicBool = AtomicBool::new(false);
static OTHER: AtomicU64 = AtomicU64::new(0);
static WATCHED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count() {
    if !WANTED.load(Ordering::Relaxed) {
        return;
    }
    let counter = if WATCHING.try_with(Cell::get).unwrap_or(false) { &WATCHED } else { &OTHER };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts from now on.
pub(crate) fn start_counting() {
    WANTED.store(true, Ordering::Relaxed);
}

/// How many allocations there were.
#[derive(Clone, Copy)]
pub(crate) struct Allocations {
    /// While a [`watched`] future was polled.
    pub(crate) watched: u64,
    /// At any other time.
    pub(crate) other: u64,
}

impl Allocations {
    pub(crate) fn so_far() -> Self {
        Self { watched: WATCHED.load(Ordering::Relaxed), other: OTHER.load(Ordering::Relaxed) }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self { watched: self.watched - before.watched, other: self.other - before.other }
    }
}

/// Counts a future's own allocations apart from everybody else's.
pub(crate) async fn watched<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(move |cx| poll_watched(future.as_mut(), cx)).await
}

fn poll_watched<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    WATCHING.set(true);
    let polled = future.poll(cx);
    WATCHING.set(false);
    polled
}
