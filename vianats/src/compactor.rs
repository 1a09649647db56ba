//! Compaction: a key's floor is a message of the event stream itself, written before anything is dropped.

use async_nats::HeaderMap;
use bytes::Bytes;
use via_backplane::{BackendError, Compactor, ErrorKind, Family, Key, Offset, Reply, Selector};

use crate::{
    ack::{self, NotStored},
    api::{self, Purge},
    delays::Delays,
    generation::Generation,
    link::unavailable,
    names::LogSubjects,
    pod::Pod,
};

/// How often a floor is raised anew when others raise it at the same time.
const MAX_ATTEMPTS: usize = 16;

impl Compactor for Pod {
    fn compact<'a>(&'a self, key: &'a Key, before: Offset) -> Reply<'a, Result<Offset, BackendError>> {
        Reply::later(self.compact_key(key, before))
    }

    fn floor<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<Offset, BackendError>> {
        Reply::later(async move {
            let generation = self.look_at_log().await?;
            Ok(self.recorded(&generation, key).await?.floor)
        })
    }

    fn is_compacted<'a>(&'a self, family: &'a Family) -> Reply<'a, Result<bool, BackendError>> {
        Reply::later(async move {
            let generation = self.look_at_log().await?;
            // Any floor will do, and the last one is found as fast as a key's own. None is ever at the beginning, and those of
            // another incarnation are under other subjects. What is not understood counts: taken for nothing, it could
            // let records be missed; taken for a floor, it has the floors of keys looked at.
            let floors = generation.subjects.floors(family);
            Ok(api::last_message(self.link(), self.stream(), &floors).await?.is_some())
        })
    }
}

/// A key's floor as the log holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Recorded {
    floor: Offset,
    /// The message that says so, 0 if there is none.
    sequence: u64,
}

impl Pod {
    async fn compact_key(&self, key: &Key, before: Offset) -> Result<Offset, BackendError> {
        let mut delays = Delays::short();
        for _ in 0..MAX_ATTEMPTS {
            let generation = self.look_at_log().await?;
            let recorded = self.recorded(&generation, key).await?;
            let head = self.head_of(&generation, &Selector::Key(key.clone())).await?;
            let floor = before.min(head).max(recorded.floor);
            if floor == Offset::BEGIN {
                return Ok(floor);
            }
            if floor > recorded.floor && !self.record(&generation, key, floor, recorded.sequence).await? {
                delays.wait().await;
                continue;
            }
            self.drop_below(&generation, key, floor).await?;
            return Ok(floor);
        }
        Err(unavailable("others raise this key's floor at the same time"))
    }

    async fn recorded(
        &self,
        generation: &Generation<LogSubjects>,
        key: &Key,
    ) -> Result<Recorded, BackendError> {
        let subject = generation.subjects.floor(key);
        let last = api::last_message(self.link(), self.stream(), &subject).await?;
        let Some(held) = last else { return Ok(Recorded { floor: Offset::BEGIN, sequence: 0 }) };
        let floor = parse(&held.payload, generation.incarnation).ok_or_else(|| {
            BackendError::new(
                ErrorKind::Internal,
                format!("the floor of `{key}` at {} was not understood", held.sequence),
            )
        })?;
        Ok(Recorded { floor, sequence: held.sequence })
    }

    /// Writes a floor, unless somebody else has written one since.
    async fn record(
        &self,
        generation: &Generation<LogSubjects>,
        key: &Key,
        floor: Offset,
        last: u64,
    ) -> Result<bool, BackendError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", last.to_string());
        let subject = generation.subjects.floor(key);
        let payload = Bytes::from(format(floor, generation.incarnation));
        let answer = self.link().request(subject.clone(), Some(headers), payload).await;
        // A floor whose ack is lost may be there or not: the caller is told to try again, and finds out.
        let answer = answer.map_err(|failed| failed.error(&subject))?;
        match ack::read(&answer) {
            Ok(_) => Ok(true),
            Err(NotStored::Refused(refusal))
                if matches!(refusal.err_code, ack::WRONG_LAST_SEQUENCE | ack::UNDECIDED_LAST_SEQUENCE) =>
            {
                Ok(false)
            }
            Err(NotStored::Refused(refusal)) => Err(refusal.into()),
            Err(NotStored::Garbled(error)) => Err(error),
        }
    }

    /// Drops what a recorded floor covers. A crash before this leaves records that the next compaction drops.
    async fn drop_below(
        &self,
        generation: &Generation<LogSubjects>,
        key: &Key,
        floor: Offset,
    ) -> Result<(), BackendError> {
        let (link, stream) = (self.link(), self.stream());
        let records = generation.subjects.events(key);
        api::purge(link, stream, &records, Purge::Below { seq: floor.0 }).await?;
        let floors = generation.subjects.floor(key);
        api::purge(link, stream, &floors, Purge::Keep { keep: 1 }).await?;
        Ok(())
    }
}

/// A floor as the log holds it: `<floor> <incarnation>`. A floor of another incarnation is about other records.
fn format(floor: Offset, incarnation: u128) -> String {
    format!("{floor} {incarnation:032x}")
}

fn parse(payload: &[u8], incarnation: u128) -> Option<Offset> {
    let (floor, of) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    let floor = Offset(floor.parse().ok()?);
    (u128::from_str_radix(of, 16).ok()? == incarnation).then_some(floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_says_of_which_log_it_is() {
        assert_eq!(parse(format(Offset(514), 7).as_bytes(), 7), Some(Offset(514)));
        assert_eq!(parse(format(Offset(514), 7).as_bytes(), 8), None);
        for wrong in ["", "514", "x 7", "514 xyz", "-1 7"] {
            assert_eq!(parse(wrong.as_bytes(), 7), None, "{wrong}");
        }
    }
}
