//! What was asked of the engines, and what they answered.

use via_backplane::{AppendFailed, DecideError, Family, Key, Position, UpdateError};

/// Every operation that writes, by its number.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) ops: Vec<Op>,
    /// Operations begun, those that only read among them.
    pub(crate) attempted: usize,
    /// Logs and stores that were recreated or restored under the engines.
    replaced: Vec<Replaced>,
    clock: u64,
}

#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) client: usize,
    pub(crate) what: &'static str,
    pub(crate) target: Target,
    pub(crate) began: u64,
    pub(crate) ended: Option<u64>,
    /// `None` for ever if its pod crashed meanwhile.
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Events, in this order, of these keys.
    Log(Vec<Key>),
    /// A cell that lists its updates.
    Tally(&'static str),
    /// A cell that holds the last one.
    Theme,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It took place; for a log, where the last event stands.
    Done(Option<Position>),
    /// It did not take place, and never will.
    Refused(String),
    /// Nobody knows.
    Unknown,
}

/// A log, or the store where there is no family, that was put back to what it was.
#[derive(Debug)]
struct Replaced {
    family: Option<Family>,
    /// The state it was put back to; 0 for the empty log.
    since: u64,
    at: u64,
}

impl History {
    pub(crate) fn begin(&mut self, client: usize, what: &'static str, target: Target) -> u32 {
        let began = self.now();
        self.ops.push(Op { client, what, target, began, ended: None, outcome: None });
        u32::try_from(self.ops.len() - 1).expect("a run has fewer than 2^32 operations")
    }

    pub(crate) fn end(&mut self, op: u32, outcome: Outcome) {
        let now = self.now();
        let op = &mut self.ops[op as usize];
        (op.ended, op.outcome) = (Some(now), Some(outcome));
    }

    /// Now, as operations begin and end.
    pub(crate) fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A log was put back to what it was at `since`.
    pub(crate) fn replace_log(&mut self, family: Family, since: u64) {
        let at = self.now();
        self.replaced.push(Replaced { family: Some(family), since, at });
    }

    /// The store was emptied.
    pub(crate) fn replace_store(&mut self) {
        let at = self.now();
        self.replaced.push(Replaced { family: None, since: 0, at });
    }

    /// Whether this family's log, or the store, was ever replaced.
    pub(crate) fn was_replaced(&self, family: Option<&Family>) -> bool {
        self.replaced.iter().any(|replaced| replaced.family.as_ref() == family)
    }
}

impl Op {
    /// The outcome as far as it still binds: what was done in a log that was replaced since may be gone, and what
    /// was under way then may be in either log.
    pub(crate) fn binding<'a>(&'a self, history: &History) -> &'a Outcome {
        const UNKNOWN: &Outcome = &Outcome::Unknown;
        let Some(outcome) = &self.outcome else { return UNKNOWN };
        let family = match &self.target {
            Target::Log(keys) => keys.first().map(Key::family),
            Target::Tally(_) | Target::Theme => None,
        };
        let may_be_undone = |replaced: &Replaced| {
            replaced.family.as_ref() == family
                && self.began < replaced.at
                && self.ended.is_none_or(|ended| ended > replaced.since)
        };
        if history.replaced.iter().any(may_be_undone) { UNKNOWN } else { outcome }
    }
}

impl Outcome {
    pub(crate) fn of_append(result: &Result<Position, AppendFailed>) -> Self {
        match result {
            Ok(position) => Self::Done(Some(position.clone())),
            Err(error) => Self::of_failed_append(error),
        }
    }

    fn of_failed_append(error: &AppendFailed) -> Self {
        match error {
            AppendFailed::MaybeCommitted { .. } => Self::Unknown,
            refused => Self::Refused(variant(refused)),
        }
    }

    pub(crate) fn of_decision(result: &Result<Option<Position>, DecideError<&str>>) -> Self {
        match result {
            Ok(Some(position)) => Self::Done(Some(position.clone())),
            Ok(None) => Self::Refused("nothing to do".to_owned()),
            Err(DecideError::Append(error)) => Self::of_failed_append(error),
            Err(refused) => Self::Refused(variant(refused)),
        }
    }

    pub(crate) fn of_update<R: std::fmt::Debug>(result: &Result<(), UpdateError<R>>) -> Self {
        match result {
            Ok(()) => Self::Done(None),
            Err(UpdateError::MaybeCommitted(_)) => Self::Unknown,
            Err(refused) => Self::Refused(variant(refused)),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done(Some(position)) => write!(f, "at {}", position.cursor.offset),
            Self::Done(None) => f.write_str("done"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The name of an error's variant, which says enough.
fn variant(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    text.chars().take_while(|character| character.is_alphanumeric()).collect()
}
