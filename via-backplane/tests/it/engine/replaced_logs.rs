//! A log that was recreated, or put back from an older copy, under live pods (PROTOCOL §1).

use via_backplane::{Family, Waited};
use via_inmem::InMemory;

use super::{PATIENCE, note, noted, notes, start, stop, until};

fn family() -> Family {
    Family::new("notes").expect("a valid name")
}

#[tokio::test]
async fn a_recreated_log_is_folded_anew() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let notes = notes(&engine);
    note(&notes, "lost").await;
    let old = notes.append(noted("lost too")).await.expect("memory takes every append");
    memory.recreate_log(&family());
    note(&notes, "new").await;
    until(&notes, |notes| *notes == ["new"]).await;
    assert_eq!(notes.wait_for(&old, PATIENCE).await, Waited::EpochChanged);
    stop(&engine).await;
}

#[tokio::test]
async fn a_restored_log_is_folded_anew_though_its_epoch_is_the_same() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let notes = notes(&engine);
    note(&notes, "kept").await;
    let copy = memory.copy_log(&family());
    note(&notes, "undone").await;
    let undone = notes.append(noted("undone too")).await.expect("memory takes every append");
    assert_eq!(notes.wait_for(&undone, PATIENCE).await, Waited::Reached);
    memory.restore_log(&copy);
    // The offsets of what was undone are used again, by other records.
    for text in ["anew", "and on"] {
        notes.append(noted(text)).await.expect("memory takes every append");
    }
    until(&notes, |notes| *notes == ["kept", "anew", "and on"]).await;
    assert_eq!(notes.wait_for(&undone, PATIENCE).await, Waited::EpochChanged);
    let late = start(&memory);
    until(&super::notes(&late), |notes| *notes == ["kept", "anew", "and on"]).await;
    stop(&engine).await;
    stop(&late).await;
}

#[tokio::test]
async fn a_restored_log_that_has_not_grown_past_the_cursor_is_noticed() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let notes = notes(&engine);
    note(&notes, "kept").await;
    let copy = memory.copy_log(&family());
    for text in ["undone", "undone", "undone"] {
        note(&notes, text).await;
    }
    memory.restore_log(&copy);
    notes.append(noted("anew")).await.expect("memory takes every append");
    until(&notes, |notes| *notes == ["kept", "anew"]).await;
    stop(&engine).await;
}
