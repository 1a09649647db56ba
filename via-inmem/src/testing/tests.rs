//! What an operator does to a log or a store is seen by those who read it.

use bytes::Bytes;
use futures_util::StreamExt;
use via_backplane::{
    Append, Appended, Backplane, CellKey, CellSelector, Entries, Entry, ErrorKind, Expected, Family, Key,
    Offset, ReadRange, Resume, Selector, Ttl,
};

use crate::InMemory;

fn family() -> Family {
    Family::new("posts").expect("a valid name")
}

fn selector() -> Selector {
    Selector::Family(family())
}

async fn append(backplane: &InMemory, text: &'static str) -> Appended {
    let entry = Entry { key: Key::of(&family()), record: Bytes::from_static(text.as_bytes()) };
    backplane.log().append(Append::new(Entries::One(entry))).await.expect("appended")
}

async fn texts(backplane: &InMemory) -> Vec<String> {
    let all = ReadRange { after: Offset::BEGIN, up_to: Offset(u64::MAX), limit: usize::MAX };
    let batch = backplane.log().read(&selector(), all).await.expect("read");
    batch.iter().map(|record| String::from_utf8_lossy(record.bytes).into_owned()).collect()
}

#[tokio::test]
async fn a_recreated_log_starts_over_in_another_epoch() {
    let backplane = InMemory::new();
    let before = append(&backplane, "before").await;
    let mut tail =
        backplane.log().subscribe(&selector(), Resume::After(Offset(1))).await.expect("subscribed");
    backplane.recreate_log(&family());
    let error = tail.next().await.expect("never ends silently").expect_err("the log was replaced");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(tail.next().await.is_none());
    let after = append(&backplane, "after").await;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.offsets, before.offsets);
    assert_eq!(texts(&backplane).await, ["after"]);
}

#[tokio::test]
async fn a_restored_log_keeps_its_epoch_and_reuses_offsets() {
    let backplane = InMemory::new();
    let first = append(&backplane, "1").await;
    let copy = backplane.copy_log(&family());
    let lost = append(&backplane, "lost").await;
    for round in ["a", "b"] {
        let mut tail =
            backplane.log().subscribe(&selector(), Resume::After(Offset(9))).await.expect("subscribed");
        backplane.restore_log(&copy);
        tail.next().await.expect("never ends silently").expect_err("the log was replaced");
        assert_eq!(texts(&backplane).await, ["1"]);
        let reused = append(&backplane, round).await;
        assert_eq!((reused.epoch, &reused.offsets), (first.epoch, &lost.offsets));
        assert_eq!(texts(&backplane).await, ["1", round]);
    }
}

#[tokio::test]
async fn a_copy_does_not_follow_the_log_it_was_taken_from() {
    let backplane = InMemory::new();
    for _ in 0..40 {
        append(&backplane, "kept").await;
    }
    let copy = backplane.copy_log(&family());
    let compactor = backplane.compactor().expect("memory compacts");
    compactor.compact(&Key::of(&family()), Offset(40)).await.expect("compacted");
    assert_eq!(texts(&backplane).await.len(), 1);
    backplane.restore_log(&copy);
    assert_eq!(texts(&backplane).await.len(), 40);
    let floor = compactor.floor(&Key::of(&family())).await.expect("known");
    assert_eq!(floor, Offset::BEGIN, "a floor is kept with its log and ends with it");
    assert!(!compactor.is_compacted(&family()).await.expect("known"));
    let compacted = backplane.copy_log(&family());
    compactor.compact(&Key::of(&family()), Offset(40)).await.expect("compacted");
    assert!(compactor.is_compacted(&family()).await.expect("known"));
    backplane.restore_log(&compacted);
    assert!(!compactor.is_compacted(&family()).await.expect("known"), "the copy was not compacted");
    compactor.compact(&Key::of(&family()), Offset(40)).await.expect("compacted");
    let compacted = backplane.copy_log(&family());
    backplane.recreate_log(&family());
    append(&backplane, "new").await;
    assert!(!compactor.is_compacted(&family()).await.expect("known"), "the new log was not compacted");
    backplane.restore_log(&compacted);
    assert!(compactor.is_compacted(&family()).await.expect("known"), "and the copy was");
}

#[tokio::test]
async fn a_recreated_store_has_another_incarnation_and_revisions_restart() {
    let backplane = InMemory::new();
    let store = backplane.store();
    let cell = CellKey::new(["app", "theme"]).expect("a valid path");
    let write = || store.cas(&cell, Expected::Absent, Bytes::new(), Ttl::Forever);
    let before = (store.incarnation().await.expect("known"), write().await.expect("written"));
    let mut watch = store.watch(&CellSelector::One(cell.clone())).await.expect("watching");
    watch.next().await.expect("begins").expect("a change");
    backplane.recreate_store();
    let error = watch.next().await.expect("never ends silently").expect_err("the store was replaced");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let after = (store.incarnation().await.expect("known"), write().await.expect("absent again"));
    assert_ne!(after.0, before.0);
    assert_eq!(after.1, before.1);
}

#[tokio::test]
async fn one_seed_gives_one_set_of_names() {
    let names = |seed| async move {
        let backplane = InMemory::builder().seed(seed).build();
        let epoch = append(&backplane, "x").await.epoch;
        backplane.recreate_log(&family());
        (epoch, append(&backplane, "x").await.epoch, backplane.store().incarnation().await.expect("known"))
    };
    assert_eq!(names(7).await, names(7).await);
    assert_ne!(names(7).await, names(8).await);
}
