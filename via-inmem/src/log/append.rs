//! Appending: check, then commit; nothing in between can fail.

use tokio::time::Instant;
use via_backplane::{
    Append, AppendError, Appended, BackendError, Entries, Entry, ErrorKind, Expectation, Head, Limits,
    Offset, Offsets, TooLarge,
};

use super::family::{Log, State};

impl Log {
    pub(crate) fn append(&self, append: Append, limits: &Limits) -> Result<Appended, AppendError> {
        check(&append, limits)?;
        // The clock is read only where an id needs it.
        let now = append.id.as_ref().map(|_| Instant::now());
        let mut state = self.state.lock();
        let epoch = state.epoch;
        let appended =
            |(first, count)| Appended { epoch, offsets: Offsets::Run { first: Offset(first), count } };
        if let Some(known) = state.recall(&append, now) {
            return Ok(appended(known));
        }
        state.expect(&append.expect)?;
        let woken = state.sleeping.leave(append.entries.iter().map(|entry| &entry.key));
        let number = append.id.is_some().then(|| state.keys.number(&append.entries[0].key));
        let committed = state.commit(append.entries);
        if let (Some(id), Some(number), Some(now)) = (append.id, number, now) {
            state.ids.remember(number, id, committed, now, limits.id_window);
        }
        drop(state);
        if !woken.is_empty() {
            self.wake(woken);
        }
        Ok(appended(committed))
    }
}

fn check(append: &Append, limits: &Limits) -> Result<(), AppendError> {
    let too_large = |what, size, limit| Err(AppendError::TooLarge(TooLarge { what, size, limit }));
    if append.entries.len() > limits.max_batch {
        return too_large("batch", append.entries.len(), limits.max_batch);
    }
    let family = append.family();
    for Entry { key, record } in append.entries.iter() {
        if record.len() > limits.max_record {
            return too_large("record", record.len(), limits.max_record);
        }
        if key.family() != family {
            let error = "an append is of one family: split it, or put the keys into one family";
            return Err(AppendError::Backend(BackendError::new(ErrorKind::Misconfigured, error)));
        }
    }
    Ok(())
}

impl State {
    fn recall(&self, append: &Append, now: Option<Instant>) -> Option<(u64, usize)> {
        let number = self.keys.find(&append.entries[0].key)?;
        self.ids.recall(number, append.id.as_ref()?, now?)
    }

    fn expect(&self, expectations: &[Expectation]) -> Result<(), AppendError> {
        for Expectation { key, head } in expectations {
            let present = Head { epoch: self.epoch, offset: Offset(self.keys.head(key)) };
            if present != *head {
                return Err(AppendError::Conflict { head: Some(present) });
            }
        }
        Ok(())
    }

    /// Writes the entries and makes them visible together; answers the first offset and the count.
    fn commit(&mut self, entries: Entries) -> (u64, usize) {
        let first = self.head + 1;
        let started_in = self.open.chunk.first();
        let count = entries.len();
        match entries {
            Entries::One(entry) => self.write(entry),
            Entries::Many(entries) => entries.into_iter().for_each(|entry| self.write(entry)),
        }
        self.publish_from(started_in);
        (first, count)
    }

    fn write(&mut self, Entry { key, record }: Entry) {
        if self.open.filled == self.open.chunk.capacity() {
            self.open_next();
        }
        let number = self.keys.number(&key);
        let state = self.keys.get_mut(number);
        self.head += 1;
        state.runs.push(self.head);
        // Records share the family's own `Key`, so that readers tell them apart by pointer.
        self.open.chunk.write(self.open.filled, state.key.clone(), record);
        self.open.filled += 1;
    }

    fn publish_from(&mut self, started_in: u64) {
        if self.open.chunk.first() != started_in {
            for segment in self.segments.range(started_in..).map(|(_, segment)| segment) {
                segment.chunk().inspect(|chunk| chunk.publish(chunk.capacity()));
            }
        }
        self.open.chunk.publish(self.open.filled);
    }
}
