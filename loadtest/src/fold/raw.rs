//! The baseline: the same event through a channel between two threads, without via.

use std::{hint::black_box, sync::mpsc, thread, time::Instant};

use super::events::Added;

/// How many events may be under way.
const WINDOW: usize = 1_024;

/// Seconds from the first event encoded to the last one folded.
pub(super) fn seconds(count: usize) -> f64 {
    let (send, receive) = mpsc::sync_channel::<Vec<u8>>(WINDOW);
    let started = Instant::now();
    let folder = thread::spawn(move || {
        let mut total = 0;
        for payload in receive {
            let event: Added = rmp_serde::from_slice(&payload).expect("it was encoded a moment ago");
            total += event.by;
        }
        total
    });
    for index in 0..count {
        let payload = rmp_serde::to_vec_named(&black_box(Added::example(index))).expect("a number encodes");
        send.send(payload).expect("the folder reads to the end");
    }
    drop(send);
    let total = folder.join().expect("the folder does not panic");
    assert_eq!(usize::try_from(total), Ok(count), "every event is folded once");
    started.elapsed().as_secs_f64()
}
