//! The app's secret: given, or created once in the Store so that all pods share it.

use std::{fmt, time::Duration};

use bytes::Bytes;
use via_backplane::{BackendError, CasError, CellKey, Expected, Store, Ttl, internal_cell};

use crate::keyring::{Keyring, MIN_SECRET};

/// The bytes of a secret this app makes for itself.
const LEN: usize = 32;
/// What a stored secret starts with, so that its form can change one day.
const FORMAT: &[u8] = b"via secret 1\n";
/// How often the Store is asked before the start fails, with waits that double from `FIRST_WAIT`: about 13 s.
const TRIES: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// The secret given by `with_secret`.
#[derive(Clone)]
pub(crate) struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error(
        "the app secret has {0} bytes and needs at least {MIN_SECRET}: give `with_secret` that many random ones"
    )]
    TooShort(usize),
    #[error(
        "the cell `via/secret` holds something else: remove it, or give the app a secret with `with_secret`"
    )]
    Unreadable,
    #[error("the app secret could not be loaded from the backplane")]
    Load(#[source] BackendError),
    #[error("the app secret could not be created in the backplane")]
    Create(#[source] CasError),
}

impl Secret {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(crate) fn keyring(&self) -> Result<Keyring, SecretError> {
        if self.0.len() < MIN_SECRET {
            return Err(SecretError::TooShort(self.0.len()));
        }
        Ok(Keyring::new(&self.0))
    }
}

/// The secret all pods on this Store share: loaded, or created by whoever comes first.
///
/// The cell is written once and never changed, so whatever a load finds is the secret, however stale the load. That is
/// also how an unknown outcome is resolved: by looking again.
pub(crate) async fn shared(store: &dyn Store) -> Result<Keyring, SecretError> {
    let cell = internal_cell(&["secret"]);
    let mine: Bytes = [FORMAT, &rand::random::<[u8; LEN]>()].concat().into();
    let mut wait = FIRST_WAIT;
    for tries in 1.. {
        let failure = match attempt(store, &cell, &mine).await {
            Ok(stored) => return read(&stored),
            Err(failure) if tries == TRIES || !failure.is_worth_retrying() => return Err(failure),
            Err(failure) => failure,
        };
        tracing::debug!(%failure, "the app secret is not there yet");
        // Half of it at random: pods that start together must not race together again.
        tokio::time::sleep(wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        wait *= 2;
    }
    unreachable!("the last try returns")
}

async fn attempt(store: &dyn Store, cell: &CellKey, mine: &Bytes) -> Result<Bytes, SecretError> {
    if let Some(stored) = store.load(cell).await.map_err(SecretError::Load)? {
        return Ok(stored.bytes);
    }
    match store.cas(cell, Expected::Absent, mine.clone(), Ttl::Forever).await {
        Ok(_) => Ok(mine.clone()),
        Err(error) => Err(SecretError::Create(error)),
    }
}

impl SecretError {
    fn is_worth_retrying(&self) -> bool {
        use via_backplane::Retry;
        match self {
            Self::Load(error) => error.retry() == Retry::Safe,
            // Somebody else created it, or I may have: the next load tells.
            Self::Create(CasError::Conflict { .. } | CasError::MaybeCommitted(_)) => true,
            Self::Create(error) => error.retry() != Retry::Never,
            Self::TooShort(_) | Self::Unreadable => false,
        }
    }
}

fn read(stored: &[u8]) -> Result<Keyring, SecretError> {
    match stored.strip_prefix(FORMAT) {
        Some(secret) if secret.len() >= MIN_SECRET => Ok(Keyring::new(secret)),
        _ => Err(SecretError::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use via_backplane::{Backplane as _, CellSelector, ErrorKind, Incarnation, Reply, Rev, Versioned, Watch};
    use via_inmem::InMemory;

    use super::*;

    /// A store that misbehaves so many times, each time as a real one can.
    struct Moody {
        memory: InMemory,
        stale_loads: AtomicU32,
        lost_acks: AtomicU32,
        outages: AtomicU32,
    }

    impl Moody {
        fn over(memory: &InMemory) -> Self {
            let [stale_loads, lost_acks, outages] = [0, 0, 0].map(AtomicU32::new);
            Self { memory: memory.clone(), stale_loads, lost_acks, outages }
        }
    }

    fn once(left: &AtomicU32) -> bool {
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    fn away() -> BackendError {
        BackendError::new(ErrorKind::Unavailable, "away")
    }

    impl Store for Moody {
        fn incarnation(&self) -> Reply<'_, Result<Incarnation, BackendError>> {
            self.memory.store().incarnation()
        }

        fn load<'a>(&'a self, key: &'a CellKey) -> Reply<'a, Result<Option<Versioned>, BackendError>> {
            if once(&self.outages) {
                return Reply::ready(Err(away()));
            }
            if once(&self.stale_loads) {
                return Reply::ready(Ok(None));
            }
            self.memory.store().load(key)
        }

        fn cas<'a>(
            &'a self,
            key: &'a CellKey,
            expected: Expected,
            bytes: Bytes,
            ttl: Ttl,
        ) -> Reply<'a, Result<Rev, CasError>> {
            let written = self.memory.store().cas(key, expected, bytes, ttl);
            if once(&self.lost_acks) {
                return Reply::later(async move {
                    written.await?;
                    Err(CasError::MaybeCommitted(away()))
                });
            }
            written
        }

        fn delete<'a>(&'a self, key: &'a CellKey, expected: Rev) -> Reply<'a, Result<(), CasError>> {
            self.memory.store().delete(key, expected)
        }

        fn watch<'a>(&'a self, selector: &'a CellSelector) -> Reply<'a, Result<Watch, BackendError>> {
            self.memory.store().watch(selector)
        }
    }

    /// What tells two keyrings apart.
    fn sign(keys: &Keyring) -> String {
        keys.seal("test", [], b"")
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_first_makes_the_secret_and_all_share_it() {
        let memory = InMemory::new();
        let (first, second) = (Moody::over(&memory), Moody::over(&memory));
        // Both believe that there is none, and both write: one loses, and looks again.
        first.stale_loads.store(1, Ordering::SeqCst);
        second.stale_loads.store(1, Ordering::SeqCst);
        let (first, second) = tokio::join!(shared(&first), shared(&second));
        let late = shared(&Moody::over(&memory)).await.expect("a secret");
        assert_eq!(sign(&first.expect("a secret")), sign(&late));
        assert_eq!(sign(&second.expect("a secret")), sign(&late));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_ack_and_an_outage_are_survived() {
        let memory = InMemory::new();
        let store = Moody::over(&memory);
        store.lost_acks.store(1, Ordering::SeqCst);
        store.outages.store(3, Ordering::SeqCst);
        let made = shared(&store).await.expect("a secret");
        let found = shared(&Moody::over(&memory)).await.expect("a secret");
        assert_eq!(sign(&made), sign(&found));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stays_away_fails_the_start() {
        let store = Moody::over(&InMemory::new());
        store.outages.store(u32::MAX, Ordering::SeqCst);
        let error = shared(&store).await.err().expect("no secret");
        assert!(matches!(error, SecretError::Load(_)), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cell_that_holds_something_else_is_not_overwritten() {
        let memory = InMemory::new();
        let cell = internal_cell(&["secret"]);
        let junk = Bytes::from_static(b"junk");
        memory.store().cas(&cell, Expected::Absent, junk, Ttl::Forever).await.expect("a write");
        let error = shared(memory.store()).await.err().expect("no secret");
        assert!(matches!(error, SecretError::Unreadable), "{error}");
    }
}
