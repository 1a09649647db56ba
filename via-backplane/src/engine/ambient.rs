//! What the engine takes from its surroundings: the time of day, chance, and which protocol rules hold.

use std::{sync::Arc, time::SystemTime};

use crate::EventId;

/// The time of day, for stamping events. Nothing is decided by it.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> SystemTime;
}

/// Random bits, for event ids and jitter.
pub trait Entropy: Send + Sync + 'static {
    /// 128 fresh bits.
    fn bits(&self) -> u128;
}

/// The operating system's clock and the thread's random generator.
pub(crate) struct System;

impl Clock for System {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl Entropy for System {
    fn bits(&self) -> u128 {
        rand::random()
    }
}

/// The rules of PROTOCOL §1 and §6 that a test can switch off, to show that each is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "tests alone may choose the rules"))]
pub struct Rules {
    /// §1: a changed epoch discards the projection.
    pub compare_epochs: bool,
    /// §1: a resuming tail compares the id of the record it stands on.
    pub compare_record_ids: bool,
    /// §1: an expectation is of the epoch its value was folded in; without it, of whichever epoch the log has.
    pub expect_epochs: bool,
    /// §6: finding my own nonce after an unknown outcome is success.
    pub resolve_by_nonce: bool,
    /// §6: an update that may have happened is reported, never re-run.
    pub report_unknown_updates: bool,
    /// §6: an append is repeated only with an id.
    pub repeat_only_with_id: bool,
}

impl Rules {
    /// Every rule holds.
    #[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "as for the type"))]
    pub const ALL: Self = Self {
        compare_epochs: true,
        compare_record_ids: true,
        expect_epochs: true,
        resolve_by_nonce: true,
        report_unknown_updates: true,
        repeat_only_with_id: true,
    };
}

/// What the engine takes from its surroundings.
#[derive(Clone)]
pub(crate) struct Ambient {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    #[cfg(feature = "testing")]
    pub(crate) rules: Rules,
    /// Whether a state is copied on the projector's own thread: only a simulation wants that, for its determinism.
    pub(crate) copy_inline: bool,
}

impl Ambient {
    pub(crate) fn system() -> Self {
        Self {
            clock: Arc::new(System),
            entropy: Arc::new(System),
            #[cfg(feature = "testing")]
            rules: Rules::ALL,
            copy_inline: false,
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn rules(&self) -> Rules {
        self.rules
    }

    /// Outside of tests the rules are constants, and the compiler sees that.
    #[cfg(not(feature = "testing"))]
    #[expect(clippy::unused_self, reason = "the signature it has in tests")]
    pub(crate) fn rules(&self) -> Rules {
        Rules::ALL
    }

    /// 64 fresh bits.
    pub(crate) fn seed(&self) -> u64 {
        self.entropy.bits() as u64
    }

    /// A fresh event id stamped with `now`: UUID version 7 (RFC 9562).
    pub(crate) fn event_id(&self, now: SystemTime) -> EventId {
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = since_epoch.as_secs() * 1_000 + u64::from(since_epoch.subsec_millis());
        let bits = self.entropy.bits().to_le_bytes();
        let tail = bits[..10].try_into().expect("ten of sixteen bytes");
        EventId(uuid::Builder::from_unix_timestamp_millis(millis, tail).into_uuid().into_bytes())
    }
}
