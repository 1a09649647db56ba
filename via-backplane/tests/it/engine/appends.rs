//! Appending: one, many, with an id, with an expectation.

use via_backplane::{
    AppendFailed, AppendId, AppendOptions, Backplane, Head, Offset, ReadRange, Retry, Selector, Waited,
};
use via_inmem::InMemory;

use super::{Noted, PATIENCE, note, noted, notes, start, stop, until};

#[tokio::test]
async fn a_repeat_with_an_id_appends_nothing_and_answers_the_same() {
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    let with_id = || AppendOptions::default().id(AppendId::new("order-1").expect("a valid id"));
    let first = notes.append_with(noted("once"), with_id()).await.expect("memory takes every append");
    let again = notes.append_with(noted("once"), with_id()).await.expect("a repeat is no error");
    assert_eq!(first, again);
    until(&notes, |notes| *notes == ["once"]).await;
    stop(&engine).await;
}

#[tokio::test]
async fn a_failed_expectation_says_where_the_head_is() {
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    let expect = |head| AppendOptions::default().expect_head(head);
    let empty = notes.loaded().await.key_head();
    let first = notes.append_with(noted("one"), expect(empty)).await.expect("the key is empty");
    let error = notes.append_with(noted("two"), expect(empty)).await.expect_err("the key is not empty");
    assert!(
        matches!(&error, AppendFailed::Conflict { head, .. } if *head == Some(first.cursor.head())),
        "{error:?}"
    );
    assert_eq!(error.retry(), Retry::Never);
    notes.append_with(noted("two"), expect(first.cursor.head())).await.expect("the head is as expected");
    stop(&engine).await;
}

#[tokio::test]
async fn a_view_knows_its_own_keys_head() {
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    let room = notes.instance("room").expect("valid");
    let first = notes.append(noted("one")).await.expect("memory takes every append");
    until(&notes, |notes| *notes == ["one"]).await;
    let held = notes.loaded().await;
    // The family moves on, and so does the key; what is held does not.
    room.append(noted("elsewhere")).await.expect("memory takes every append");
    let second = notes.append(noted("two")).await.expect("memory takes every append");
    until(&notes, |notes| *notes == ["one", "two"]).await;
    assert_eq!(held.key_head(), first.cursor.head());
    assert_eq!(notes.loaded().await.key_head(), second.cursor.head());
    let untouched = notes.instance("nobody").expect("valid").loaded().await.key_head();
    assert_eq!(untouched, Head { epoch: first.cursor.epoch, offset: Offset::BEGIN });
    stop(&engine).await;
}

#[tokio::test]
async fn an_expectation_of_a_log_that_was_recreated_fails() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let (notes, room) = (notes(&engine), notes(&engine).instance("room").expect("valid"));
    note(&notes, "old").await;
    let (seen, empty) = (notes.loaded().await.key_head(), room.loaded().await.key_head());
    memory.recreate_log(notes.key().family());
    // The new log's first record stands where the old one's stood.
    let anew = notes.append(noted("new")).await.expect("memory takes every append");
    assert_eq!(anew.cursor.offset, seen.offset);
    for (state, head) in [(&notes, seen), (&room, empty)] {
        let stale = AppendOptions::default().expect_head(head);
        let error = state.append_with(noted("late"), stale).await.expect_err("the log is another one");
        let AppendFailed::Conflict { head: Some(present), .. } = error else { panic!("{error:?}") };
        assert_eq!((present.epoch, present.offset), (anew.cursor.epoch, head.offset));
    }
    until(&notes, |notes| *notes == ["new"]).await;
    stop(&engine).await;
}

#[tokio::test]
async fn a_batch_across_instances_is_all_or_none() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let notes = notes(&engine);
    let (left, right) = (notes.instance("left").expect("valid"), notes.instance("right").expect("valid"));
    let both = || [(left.clone(), noted("to the left")), (right.clone(), noted("to the right"))];
    let positions = via_backplane::Events::append_across(both(), AppendOptions::default())
        .await
        .expect("memory takes it");
    assert_eq!(positions[0].key, *left.key());
    assert_eq!(positions[1].cursor.offset.0, positions[0].cursor.offset.0 + 1, "adjacent");
    let empty = Head { offset: Offset::BEGIN, ..positions[0].cursor.head() };
    let stale = AppendOptions::default().expect_head(empty);
    let error = via_backplane::Events::append_across(both(), stale).await.expect_err("left has a record");
    assert!(matches!(error, AppendFailed::Conflict { .. }), "{error:?}");
    until(&right, |notes| *notes == ["to the right"]).await;
    let range = ReadRange { after: Offset::BEGIN, up_to: Offset(u64::MAX), limit: 10 };
    let selector = Selector::Family(left.key().family().clone());
    let records = memory.log().read(&selector, range).await.expect("memory reads");
    assert_eq!(records.iter().count(), 2, "the refused batch left nothing");
    stop(&engine).await;
}

#[tokio::test]
async fn what_cannot_be_appended_says_why() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let notes = notes(&engine);
    let error = notes.append_batch([]).await.expect_err("there is nothing to append");
    assert!(matches!(error, AppendFailed::Empty), "{error:?}");
    let limit = memory.limits().max_record;
    let error = notes.append(noted(&"x".repeat(limit))).await.expect_err("it is over the limit");
    assert!(matches!(&error, AppendFailed::TooLarge { source, .. } if source.limit == limit), "{error:?}");
    let many = memory.limits().max_batch + 1;
    let error = notes.append_batch((0..many).map(|_| noted("x"))).await.expect_err("it is over the limit");
    assert!(matches!(&error, AppendFailed::TooLarge { source, .. } if source.size == many), "{error:?}");
    engine.shutdown(PATIENCE).await.expect("no task failed");
    let error = notes.append(noted("late")).await.expect_err("the backplane is closed");
    assert!(matches!(error, AppendFailed::Backend { .. }), "{error:?}");
}

#[tokio::test]
async fn a_pod_that_only_appends_folds_nothing_and_others_fold_what_it_appended() {
    let memory = InMemory::new();
    let (writing, reading) = (start(&memory), start(&memory));
    let appender = writing.appender::<Noted>("notes").expect("a valid declaration");
    let room = appender.instance("room").expect("valid");
    let tasks = writing.supervisor().names();
    assert!(!tasks.iter().any(|task| task.contains("notes")), "{tasks:?}");
    let shown = notes(&reading);
    appender.append(noted("one")).await.expect("memory takes every append");
    let last =
        appender.append_batch([noted("two"), noted("three")]).await.expect("memory takes every append");
    assert_eq!(shown.wait_for(&last, PATIENCE).await, Waited::Reached);
    assert_eq!(*shown.loaded().await, ["one", "two", "three"]);
    let position = room.append(noted("elsewhere")).await.expect("memory takes every append");
    let elsewhere = shown.instance("room").expect("valid");
    assert_eq!(elsewhere.wait_for(&position, PATIENCE).await, Waited::Reached);
    // One that a handle with state gives is the same.
    let again = shown.appender().append(noted("four")).await.expect("memory takes every append");
    assert_eq!(again.key, last.key);
    assert!(writing.health().catching_up.is_empty(), "{:?}", writing.health());
    stop(&writing).await;
    stop(&reading).await;
}
