//! Examples of what consumers store, to the byte: whatever is in a store must stay readable.

use std::time::Duration;

use bytes::Bytes;

use super::{
    cell::{ConsumerCell, Needs, Owner},
    letters::{Burial, Happened, Place, Raw},
};
use crate::{
    CodecId, Cursor, Epoch, Event as _, Family, Key, Offset, RecordId, Selector, engine::owned_cell,
    internal_cell,
};

use crate::engine::golden_file::check;

const LEASE: Duration = Duration::from_secs(20);

fn at(offset: u64) -> Cursor {
    Cursor { epoch: Epoch(0x0102_0304), offset: Offset(offset), id: RecordId([7; 16]) }
}

/// One that an owner left in the middle of its work.
fn left() -> ConsumerCell {
    let family = Family::new("orders").expect("a valid name");
    let key = Key::instance(&family, "eu").expect("a valid name");
    let mut cell = ConsumerCell::new(&Selector::Key(key), at(90));
    cell.claim(&Owner::of(1), 513, LEASE);
    cell.note_attempts([(Offset(91), 3), (Offset(95), 1)], Offset(99), "the endpoint is closed");
    cell.claim(&Owner::of(2), 513, LEASE);
    cell
}

/// One that was paused, and retired before that, with every field that the other one has not.
fn retired() -> ConsumerCell {
    let family = Family::new("orders").expect("a valid name");
    let mut cell = ConsumerCell::new(&Selector::Family(family), at(90)).waiting_for("ship-1");
    cell.paused = true;
    cell.needs = Some(Needs { name: "order.placed".to_owned(), version: 3 });
    cell.retire("ship-3");
    cell
}

#[test]
fn golden_consumer_cells() {
    for (name, cell) in [("consumer-left", left()), ("consumer-retired", retired())] {
        let bytes = owned_cell::seal(&Bytes::from_static(b"nonce of 16 byte"), &cell);
        check(name, &bytes, &cell);
        let key = internal_cell(&["consumers", "orders", "ship"]);
        let read: ConsumerCell = owned_cell::unseal(&key, &bytes).expect("the golden bytes are readable");
        assert_eq!(read, cell);
    }
}

#[test]
fn golden_dead_letters() {
    let place = Place::new(Epoch(0x0102_0304), Offset(91));
    let burial = Burial {
        place,
        instance: Some("eu".to_owned()),
        record: Raw(Bytes::from_static(b"the record")),
        attempts: 10,
        cause: "the endpoint is closed".to_owned(),
        first_failed: 1_764_000_000_000_000,
        last_failed: 1_764_000_030_000_000,
        wanted: 1,
    };
    let events = [
        ("dead-letter-buried", Happened::Buried(burial)),
        ("dead-letter-wanted", Happened::Wanted { places: vec![place] }),
        ("dead-letter-begun", Happened::Begun { place, term: 7 }),
        ("dead-letter-handled", Happened::Handled { place }),
        ("dead-letter-dropped", Happened::Dropped { places: vec![place] }),
    ];
    for (name, event) in events {
        let mut payload = Vec::new();
        event.encode(&mut payload).expect("it encodes");
        check(name, &payload, &event);
        let read = Happened::decode(Happened::VERSION, CodecId::MESSAGE_PACK, &payload)
            .expect("it was just written");
        assert_eq!(format!("{read:?}"), format!("{event:?}"));
    }
}
