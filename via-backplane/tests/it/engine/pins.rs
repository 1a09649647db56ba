//! What others need of a log is kept for them.

use std::sync::Arc;

use via_backplane::{Backplane, Head, Offset, PinError, Rebuilt, Retry, Selector, internal_cell};

use super::{
    compaction::{compacting, floor, note_until_dropped, silent},
    note, notes, start, stop,
};

#[tokio::test]
async fn a_pin_of_a_pod_that_is_gone_still_holds() {
    let memory = silent();
    let gone = start(&memory);
    let head = memory.log().head(&Selector::Key(notes(&gone).key().clone())).await.expect("memory answers");
    let fifth = Head { epoch: head.epoch, offset: Offset(5) };
    assert_eq!(gone.pin("notes", "ship", fifth).await.expect("nothing was dropped"), fifth);
    stop(&gone).await;

    let engine = compacting(Arc::new(memory.clone())).start();
    let here = notes(&engine);
    note_until_dropped(&memory, &here, Offset::BEGIN).await;
    for n in 0..40 {
        note(&here, &n.to_string()).await;
    }
    assert_eq!(floor(&memory, &here).await, fifth.offset, "it stands there however much is appended");
    let pins = engine.pins("notes").await.expect("the cell is there");
    assert_eq!(pins.iter().map(|pin| (pin.name.as_str(), pin.at)).collect::<Vec<_>>(), [("ship", fifth)]);

    // Pinned again, it stays where it was; moved on, it lets go.
    let later = Head { offset: Offset(20), ..fifth };
    assert_eq!(engine.pin("notes", "ship", later).await.expect("it has a pin"), fifth);
    engine.move_pin("notes", "ship", later).await.expect("it is above the ceiling");
    note_until_dropped(&memory, &here, Offset(19)).await;
    assert_eq!(floor(&memory, &here).await, later.offset);
    assert!(engine.unpin("notes", "ship").await.expect("it is there"));
    assert!(!engine.unpin("notes", "ship").await.expect("the cell is there"));
    note_until_dropped(&memory, &here, Offset(20)).await;
    stop(&engine).await;
}

#[tokio::test]
async fn nobody_begins_where_records_may_be_gone() {
    let memory = silent();
    let engine = compacting(Arc::new(memory.clone())).start();
    let here = notes(&engine);
    note_until_dropped(&memory, &here, Offset::BEGIN).await;
    let first = Head { epoch: here.covered().epoch, offset: Offset(1) };
    let refused = engine.pin("notes", "late", first).await.expect_err("it is below the ceiling");
    let PinError::BelowCeiling { lowest, .. } = refused else { panic!("{refused:?}") };
    assert!(lowest > Offset(1), "{lowest}");
    let lowest = Head { offset: lowest, ..first };
    // It may have risen since.
    let pinned = engine.pin("notes", "late", Head { offset: here.covered().offset, ..lowest }).await;
    pinned.expect("the head can always be pinned");
    let refused = engine.move_pin("notes", "late", first).await.expect_err("it is below the ceiling");
    assert!(matches!(refused, PinError::BelowCeiling { .. }), "{refused:?}");
    let refused = engine.move_pin("notes", "nobody", lowest).await.expect_err("nobody has that name");
    assert!(matches!(refused, PinError::NotPinned { .. }), "{refused:?}");
    assert_eq!(refused.retry(), Retry::Never);
    stop(&engine).await;
}

#[tokio::test]
async fn a_lost_control_cell_stops_everything_until_it_is_rebuilt() {
    let memory = silent();
    let engine = compacting(Arc::new(memory.clone())).start();
    let here = notes(&engine);
    note_until_dropped(&memory, &here, Offset::BEGIN).await;
    stop(&engine).await;
    let cell = internal_cell(&["control", "notes"]);
    let stored = memory.store().load(&cell).await.expect("memory answers").expect("it is there");
    memory.store().delete(&cell, stored.rev).await.expect("nobody else writes");

    let engine = start(&memory);
    let here = notes(&engine);
    here.loaded().await;
    let head = here.covered().head();
    let refused = engine.pin("notes", "late", head).await.expect_err("nobody knows what may be gone");
    assert!(matches!(refused, PinError::ControlLost { .. }), "{refused:?}");
    assert!(refused.to_string().contains("engine.rebuild_control(\"notes\")"), "{refused}");
    let rebuilt = engine.rebuild_control("notes").await.expect("memory answers");
    assert!(matches!(rebuilt, Rebuilt::Anew { ceiling } if ceiling == head), "{rebuilt:?} {head:?}");
    assert_eq!(engine.pin("notes", "late", head).await.expect("it is at the ceiling"), head);
    let again = engine.rebuild_control("notes").await.expect("memory answers");
    assert!(matches!(again, Rebuilt::Whole { .. }), "{again:?}");
    assert_eq!(engine.pins("notes").await.expect("the cell is there").len(), 1, "it is whole");
    stop(&engine).await;
}
