//! Snapshots under races, crashes, lost answers and damage.

use std::time::Duration;

use bytes::Bytes;

use super::{
    super::{
        map_store::{Counting, Fault, MapStore},
        owned_cell::{ChangeError, OwnedError},
    },
    *,
};
use crate::{CellKey, Cursor, Epoch, Family, Offset, RecordId, Retry, Ttl};

mod compaction;
mod crashes;
mod reading;
mod writing;

/// So small that a state of 3,000 bytes is chunked.
const MAX_CELL: usize = 1_200;
const WINDOW: Duration = Duration::from_secs(24 * 3600);
const EPOCH: Epoch = Epoch(0xe);
const SMALL: usize = 200;
const LARGE: usize = 3_000;
/// Every claim is taken for dead.
const ANY: Generation = Generation(u64::MAX);

fn store() -> MapStore {
    MapStore::with_max_cell(MAX_CELL)
}

fn key() -> Key {
    Key::of(&Family::new("posts").expect("a valid name"))
}

/// One pod's snapshots of the key.
struct Pod {
    store: MapStore,
    chance: Counting,
}

impl Pod {
    fn new(store: MapStore) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static PODS: AtomicU64 = AtomicU64::new(1);
        Self { store, chance: Counting::from(PODS.fetch_add(1, Ordering::Relaxed)) }
    }

    /// Another pod on the same store, without faults.
    fn another(&self) -> Self {
        Self::new(self.store.another())
    }

    fn snapshots(&self) -> Snapshots<'_> {
        Snapshots::of(&self.store, &self.chance, &key(), MAX_CELL, WINDOW)
    }

    async fn write(&self, draft: &Draft) -> Result<Outcome, WriteError> {
        self.snapshots().write(draft).await
    }

    /// Writes what must be written.
    async fn written(&self, draft: &Draft) -> Generation {
        match self.write(draft).await.expect("an outcome") {
            Outcome::Written { generation, bytes, .. } => {
                assert_eq!(bytes, draft.bytes.len());
                generation
            }
            other => panic!("{other:?}"),
        }
    }

    async fn manifest(&self) -> Manifest {
        self.snapshots().manifest().await.expect("it loads").map(|held| held.value).unwrap_or_default()
    }

    /// What a loader gets of each candidate.
    async fn read_all(&self) -> Vec<(u64, Read)> {
        let snapshots = self.snapshots();
        let mut candidates = snapshots.candidates().await.expect("it loads");
        let mut read = Vec::new();
        while let Some(candidate) = candidates.next() {
            read.push(read_one(&mut candidates, &candidate).await);
        }
        read
    }

    /// What the best candidates cover; all of them must be whole.
    async fn whole(&self) -> Vec<u64> {
        let each = self.read_all().await.into_iter().map(|(covered, read)| {
            let Read::Bytes(bytes) = read else { panic!("the snapshot at {covered} is {read:?}") };
            assert_eq!(bytes, state(covered, bytes.len()), "of the snapshot at {covered}");
            covered
        });
        each.collect()
    }

    /// Every cell there is must be named by the manifest, or be it.
    async fn no_garbage(&self) {
        let manifest = self.manifest().await;
        let names = Names::of(&key());
        let mut named: Vec<String> = vec![names.manifest().to_string()];
        for snapshot in manifest.snapshots() {
            named.extend((0..snapshot.chunks).map(|i| names.chunk(snapshot.generation(), i).to_string()));
        }
        named.sort();
        let marker = names.rollback().to_string();
        let found: Vec<String> = self.store.names().into_iter().filter(|name| *name != marker).collect();
        assert_eq!(found, named);
    }
}

async fn read_one(candidates: &mut read::Candidates<'_>, candidate: &Candidate) -> (u64, Read) {
    let read = candidates.read(candidate).await.expect("an answer");
    (candidate.header.covered.offset.0, read)
}

fn cursor(offset: u64) -> Cursor {
    Cursor { epoch: EPOCH, offset: Offset(offset), id: RecordId([offset as u8; 16]) }
}

/// A state that tells which snapshot, and which part of it, it is.
fn state(covered: u64, len: usize) -> Bytes {
    (0..len).map(|at| (at as u64 / 7 + covered) as u8).collect()
}

fn draft(covered: u64, len: usize) -> Draft {
    Draft {
        covered: cursor(covered),
        key_head: cursor(covered - 1),
        state: StateType { name: "Posts".to_owned(), version: 1 },
        bytes: state(covered, len),
        refuted: Vec::new(),
        unreadable: Vec::new(),
        clears_holds_up_to: None,
        displaces: ANY,
    }
}

fn of_version(version: u32, draft: Draft) -> Draft {
    Draft { state: StateType { version, ..draft.state.clone() }, ..draft }
}

/// Two pods' worth of history: snapshots at 10 and 20.
async fn with_two(len: usize) -> Pod {
    let pod = Pod::new(store());
    for covered in [10, 20] {
        pod.written(&draft(covered, len)).await;
    }
    pod
}

fn chunk(generation: u64, index: u32) -> CellKey {
    Names::of(&key()).chunk(Generation(generation), index)
}

fn manifest_cell() -> CellKey {
    Names::of(&key()).manifest().clone()
}
