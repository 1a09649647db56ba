//! The crash matrix on the in-memory backplane, and on one that tells no reader of what was dropped.

use std::sync::Arc;

use via_backplane::Backplane;
use via_inmem::InMemory;

use super::crash_matrix::{Size, Time, every_row_holds};

async fn on_memory(adapter: &str, size: Size, memory: impl Fn() -> InMemory) -> usize {
    let fresh = async || {
        let memory = memory();
        async move || Arc::new(memory.clone()) as Arc<dyn Backplane>
    };
    every_row_holds(adapter, size, Time::Simulated, fresh).await
}

#[tokio::test(start_paused = true)]
async fn a_pod_may_die_at_any_write() {
    for size in [Size::Inline, Size::Chunked] {
        let bare = on_memory("memory", size, InMemory::new).await;
        let silent =
            on_memory("silent memory", size, || InMemory::builder().silent_compaction().build()).await;
        // Appends, two snapshots, an announcement, two confirmations and a compaction, twice each.
        assert!(bare.min(silent) >= 2 * 14, "{size:?}: {bare} and {silent} rows");
    }
}
