//! The whole history of a family's log, dropped records included, folded without an engine.

use std::collections::BTreeMap;

use via_backplane::{Backplane as _, Cursor, Envelope, EventId, Family, Key, Offset, Position, Selector};

use super::{
    facts::{Book as _, Fact, Tag},
    world::World,
};

pub(crate) struct Log<E: Fact> {
    pub(crate) family: Family,
    pub(crate) records: Vec<Record>,
    pub(crate) last: Option<Position>,
    books: BTreeMap<Key, E::Book>,
}

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) key: Key,
    pub(crate) offset: Offset,
    pub(crate) id: EventId,
    pub(crate) tag: Tag,
}

impl<E: Fact> Log<E> {
    pub(crate) async fn read(world: &World, family: &str) -> Self {
        Self::read_up_to(world, family, Offset(u64::MAX)).await
    }

    pub(crate) async fn read_up_to(world: &World, family: &str, up_to: Offset) -> Self {
        let family = Family::new(family).expect("a valid name");
        let selector = Selector::Family(family.clone());
        let history = world.witness.history(&world.memory, &family).await;
        let epoch = world.memory.log().head(&selector).await.expect("the memory is open").epoch;
        let mut log = Self { family, records: Vec::new(), last: None, books: BTreeMap::new() };
        for stored in history.iter().filter(|stored| stored.offset <= up_to) {
            let envelope = Envelope::decode(&stored.bytes).expect("an engine wrote it");
            let event =
                E::decode(envelope.version, envelope.codec, envelope.payload).expect("an engine wrote it");
            let (key, offset, id, tag) = (stored.key.clone(), stored.offset, envelope.id, event.tag());
            event.fold(log.books.entry(key.clone()).or_default(), &envelope.recorded(offset));
            log.records.push(Record { key: key.clone(), offset, id, tag });
            log.last = Some(Position { key, cursor: Cursor { epoch, offset, id: id.into() } });
        }
        if let Some(broken) = log.books.values().find_map(E::Book::broken) {
            world.violation(format!("a decision broke its guard: {broken}"));
        }
        if !log.records.is_sorted_by(|one, next| one.offset < next.offset) {
            world.violation(format!("offsets of {} do not increase", log.family));
        }
        log
    }

    /// The last record of a key.
    pub(crate) fn head(&self, key: &Key) -> Offset {
        let last = self.records.iter().rev().find(|record| record.key == *key);
        last.map_or(Offset::BEGIN, |record| record.offset)
    }

    /// What a key's records fold to.
    pub(crate) fn book(&self, key: &Key) -> E::Book {
        self.books.get(key).cloned().unwrap_or_default()
    }
}
