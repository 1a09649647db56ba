//! The bytes in `tests/golden` are what stores hold: an encoding that changes makes every snapshot unreadable.

use bytes::Bytes;

use super::{
    super::owned_cell,
    LogNotes, Manifest, Snapshot,
    manifest::{Chunks, StoredHeader},
    *,
};
use crate::{Cursor, Epoch, Offset, RecordId, internal_cell};

use crate::engine::golden_file::check;

fn snapshot(generation: u64, covered: u64, state: &'static [u8]) -> Snapshot {
    let epoch = Epoch(0x5b3c_9d2e_8f1a_4e70_a1b2_c3d4_e5f6_0718);
    let cursor = |offset, id| Cursor { epoch, offset: Offset(offset), id: RecordId([id; 16]) };
    let header = Header {
        covered: cursor(covered, 0xc1),
        key_head: cursor(covered - 2, 0xc2),
        state: StateType { name: "chat.posts".to_owned(), version: 2 },
        len: state.len() as u64,
        digest: Bytes::copy_from_slice(blake3::hash(state).as_bytes()),
    };
    let inline = Bytes::from_static(state);
    Snapshot { generation, header: StoredHeader::new(header), inline, chunks: 0 }
}

fn small() -> Manifest {
    Manifest { generation: 1, current: Some(snapshot(1, 7, b"\x91\xa5hello")), ..Manifest::default() }
}

fn full() -> Manifest {
    let in_chunks = |snapshot: Snapshot| Snapshot { inline: Bytes::new(), chunks: 2, ..snapshot };
    let mut notes = Vec::new();
    let log = LogNotes::of(&mut notes, Epoch(0x5b3c_9d2e_8f1a_4e70_a1b2_c3d4_e5f6_0718));
    (300..=365).for_each(|offset| log.hold(Offset(offset)));
    log.diverge(Offset(400));
    assert!(log.accept(Offset(200)));
    log.compact(Offset(90), Offset(90));
    Manifest {
        generation: 9,
        claim: Some(Chunks { generation: 9, count: 3 }),
        current: Some(in_chunks(snapshot(8, 450, b"\x91\xa5hello"))),
        previous: Some(in_chunks(snapshot(7, 420, b"\x91\xa5hello"))),
        rollback: Some(snapshot(5, 390, b"\x90")),
        retired: vec![Chunks { generation: 6, count: 2 }],
        notes,
    }
}

#[test]
fn golden_manifests() {
    for (name, manifest) in [("manifest-small", small()), ("manifest-full", full())] {
        let bytes = owned_cell::seal(&Bytes::from_static(b"nonce of 16 byte"), &manifest);
        check(name, &bytes, &manifest);
        let key = internal_cell(&["snapshots", "posts", "plain"]);
        let read: Manifest = owned_cell::unseal(&key, &bytes).expect("the golden bytes are readable");
        assert_eq!(read, manifest);
    }
}

#[test]
fn a_header_is_read_as_it_was_stored() {
    let header = small().current().expect("there is one").header();
    assert_eq!(StoredHeader::new(header), small().current().expect("there is one").header);
}
