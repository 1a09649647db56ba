//! What goes wrong in a run.

use std::{fmt, str::FromStr, time::Duration};

use rand::RngExt as _;
use via_backplane::fault::{Kind, Plan};

use super::{chance, pod::GRACE};

/// The fault a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    /// Calls and items take their time.
    Delay,
    /// Writes are committed, at once or later, and nobody is told.
    LostAck,
    /// Calls are refused, or lost before they are committed.
    FailBefore,
    /// Tails and watches break off.
    Disconnect,
    /// Loads answer older values.
    StaleLoad,
    /// Pods crash between two awaits, and start again.
    Stop,
    /// The whole backend goes away, and comes back.
    Interrupt,
    /// Pods stand still for longer than what is to be dropped is announced, and go on.
    Pause,
    /// Logs and the store are recreated, or a log is restored from an older copy.
    Replaced,
    /// All of it, except that nothing is replaced.
    All,
}

const NAMES: [(Fault, &str); 11] = [
    (Fault::Nothing, "nothing"),
    (Fault::Delay, "delay"),
    (Fault::LostAck, "lost-ack"),
    (Fault::FailBefore, "fail-before"),
    (Fault::Disconnect, "disconnect"),
    (Fault::StaleLoad, "stale-load"),
    (Fault::Stop, "stop"),
    (Fault::Interrupt, "interrupt"),
    (Fault::Pause, "pause"),
    (Fault::Replaced, "replaced"),
    (Fault::All, "all"),
];

impl Fault {
    /// The wrapper's kinds that have to fire over the seeds of this fault.
    pub(crate) fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Nothing => &[],
            Self::Delay => &[Kind::Delay],
            Self::LostAck => &[Kind::LostAck, Kind::LateCommit],
            Self::FailBefore => &[Kind::Refused, Kind::LostRequest],
            Self::Disconnect | Self::Replaced => &[Kind::Disconnect],
            Self::StaleLoad => &[Kind::StaleLoad],
            Self::Stop => &[Kind::Stop],
            Self::Interrupt => &[Kind::Interrupt],
            Self::Pause => &[Kind::Pause],
            Self::All => &Kind::ALL,
        }
    }

    /// What may happen to one life of a pod.
    pub(crate) fn plan(self, seed: u64, pod: u64, life: u64) -> Plan {
        let mut rng = chance::stream(seed, &[1, pod, life]);
        // Without delays a call is one step of virtual time, and no two pods would ever be inside one at once.
        let mut plan = Plan::seeded(rng.random())
            .odds(Kind::Delay, 0.15)
            .max_delay(Duration::from_millis(40))
            .max_staleness(GRACE / 4);
        for kind in self.kinds() {
            plan = match kind {
                Kind::Delay => plan.odds(Kind::Delay, 0.25).max_delay(Duration::from_millis(120)),
                Kind::Stop if life < LIVES => plan.stop_after(rng.random_range(20..400)),
                Kind::Stop | Kind::Interrupt | Kind::Pause => plan,
                Kind::Disconnect => plan.odds(Kind::Disconnect, 0.05),
                Kind::StaleLoad => plan.odds(Kind::StaleLoad, 0.3),
                kind => plan.odds(*kind, 0.06),
            };
        }
        plan
    }

    pub(crate) fn interrupts(self) -> bool {
        self.kinds().contains(&Kind::Interrupt)
    }

    pub(crate) fn pauses(self) -> bool {
        self.kinds().contains(&Kind::Pause)
    }
}

/// How many lives of a pod may end by a crash; the next one lasts.
pub(crate) const LIVES: u64 = 2;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = NAMES.iter().find(|(fault, _)| fault == self).expect("every fault has a name");
        f.write_str(name)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(fault, _)| *fault).ok_or_else(|| {
            let names: Vec<_> = NAMES.iter().map(|(_, name)| *name).collect();
            format!("`{text}` is no fault; there are {}", names.join(", "))
        })
    }
}
