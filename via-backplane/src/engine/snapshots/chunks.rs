//! The cells a large snapshot is kept in: the state's bytes, cut.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    super::retry::Delays,
    Generation, Snapshots, Unusable,
    manifest::{Chunks, Snapshot},
    write::WriteError,
};
use crate::{BackendError, CasError, CellKey, CodecId, ErrorKind, Expected, Ttl};

/// Attempts at one chunk whose outcome is unknown, or that somebody else touches.
const MAX_ATTEMPTS: usize = 8;
/// Bytes that are digested at a stretch, in some tens of microseconds.
const PIECE: usize = 64 << 10;
/// Chunks that are loaded at a time.
const LOADS: usize = 4;

impl Snapshots<'_> {
    /// Writes `bytes` under a generation that is this writer's alone.
    pub(super) async fn put_chunks(&self, generation: Generation, bytes: &Bytes) -> Result<(), WriteError> {
        for (index, start) in (0..).zip((0..bytes.len()).step_by(self.max_cell)) {
            let chunk = bytes.slice(start..bytes.len().min(start + self.max_cell));
            self.put_chunk(&self.names.chunk(generation, index), chunk).await?;
        }
        Ok(())
    }

    async fn put_chunk(&self, name: &CellKey, bytes: Bytes) -> Result<(), WriteError> {
        let mut expected = Expected::Absent;
        let mut delays = self.delays();
        for _ in 0..MAX_ATTEMPTS {
            match self.store.cas(name, expected, bytes.clone(), Ttl::Forever).await {
                Ok(_) => return Ok(()),
                Err(CasError::TooLarge(error)) => return Err(WriteError::ChunkTooLarge(error)),
                Err(CasError::Backend(error)) => return Err(WriteError::Chunk(error)),
                Err(CasError::MaybeCommitted(_)) => delays.wait().await,
                Err(CasError::Conflict { .. }) => {
                    let found = self.store.load(name).await.map_err(WriteError::Chunk)?;
                    expected = match found {
                        // An attempt of this writer, whose answer was lost.
                        Some(found) if found.bytes == bytes => return Ok(()),
                        // The generation is this writer's, so it is what another store's life left behind.
                        Some(found) => Expected::At(found.rev),
                        None => Expected::Absent,
                    };
                }
            }
        }
        Err(WriteError::Chunk(gave_up("written")))
    }

    /// Deletes the chunks of generations that nothing names any more.
    pub(super) async fn delete_chunks(&self, retired: &[Chunks]) -> Result<(), WriteError> {
        for chunks in retired {
            for index in 0..chunks.count {
                self.delete_chunk(&self.names.chunk(chunks.generation(), index)).await?;
            }
        }
        Ok(())
    }

    async fn delete_chunk(&self, name: &CellKey) -> Result<(), WriteError> {
        let mut delays = self.delays();
        for _ in 0..MAX_ATTEMPTS {
            let Some(found) = self.store.load(name).await.map_err(WriteError::Chunk)? else { return Ok(()) };
            match self.store.delete(name, found.rev).await {
                Ok(()) => return Ok(()),
                Err(CasError::Conflict { .. } | CasError::MaybeCommitted(_)) => delays.wait().await,
                Err(CasError::Backend(error)) => return Err(WriteError::Chunk(error)),
                Err(CasError::TooLarge(error)) => return Err(WriteError::ChunkTooLarge(error)),
            }
        }
        Err(WriteError::Chunk(gave_up("deleted")))
    }

    /// The state's bytes, if they are what the header says.
    pub(super) async fn bytes_of(
        &self,
        snapshot: &Snapshot,
    ) -> Result<Result<Bytes, Unusable>, BackendError> {
        if snapshot.header.format != CodecId::MESSAGE_PACK.0 {
            return Ok(Err(Unusable::Format(snapshot.header.format)));
        }
        let bytes = if snapshot.chunks == 0 {
            snapshot.inline.clone()
        } else {
            match self.load_chunks(snapshot).await? {
                Ok(bytes) => bytes,
                Err(index) => return Ok(Err(Unusable::Missing(index))),
            }
        };
        Ok(check(snapshot, bytes).await)
    }

    /// The chunks' bytes in a row, or the number of one that is missing.
    async fn load_chunks(&self, snapshot: &Snapshot) -> Result<Result<Bytes, u32>, BackendError> {
        let loads = stream::iter(0..snapshot.chunks).map(async |index| {
            let found = self.store.load(&self.names.chunk(snapshot.generation(), index)).await?;
            Ok::<_, BackendError>(found.map(|found| found.bytes).ok_or(index))
        });
        let chunks: Vec<Result<Bytes, u32>> = loads.buffered(LOADS).try_collect().await?;
        let chunks: Result<Vec<Bytes>, u32> = chunks.into_iter().collect();
        let chunks = match chunks {
            Ok(chunks) => chunks,
            Err(missing) => return Ok(Err(missing)),
        };
        let mut bytes = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
        for chunk in chunks {
            bytes.extend_from_slice(&chunk);
            tokio::task::yield_now().await;
        }
        Ok(Ok(bytes.freeze()))
    }

    pub(super) fn delays(&self) -> Delays {
        Delays::new(Duration::from_millis(1), Duration::from_millis(250), self.entropy.bits() as u64)
    }
}

async fn check(snapshot: &Snapshot, bytes: Bytes) -> Result<Bytes, Unusable> {
    let header = &snapshot.header;
    if bytes.len() as u64 != header.len {
        return Err(Unusable::Length { expected: header.len, found: bytes.len() as u64 });
    }
    if digest(&bytes).await[..] != header.digest[..] {
        return Err(Unusable::Digest);
    }
    Ok(bytes)
}

/// The BLAKE3 digest of a state's bytes. A large state is digested piece by piece, so that what shares its thread goes on meanwhile.
pub(super) async fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (index, piece) in bytes.chunks(PIECE).enumerate() {
        if index > 0 {
            tokio::task::yield_now().await;
        }
        hasher.update(piece);
    }
    *hasher.finalize().as_bytes()
}

fn gave_up(done: &'static str) -> BackendError {
    BackendError::new(ErrorKind::Unavailable, format!("a chunk could not be {done} for certain"))
}
