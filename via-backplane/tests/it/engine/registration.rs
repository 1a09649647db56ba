//! One name, one meaning.

use serde::{Deserialize, Serialize};
use via_backplane::{Event, Fold, Recorded, RegisterError};
use via_inmem::InMemory;

use super::{Noted, Notes, notes, start, stop};

#[derive(Serialize, Deserialize, Event)]
#[event(name = "test.noted")]
struct Impostor;

impl Fold<u32> for Impostor {
    fn fold(self, count: &mut u32, _at: &Recorded) {
        *count += 1;
    }
}

impl Fold<usize> for Noted {
    fn fold(self, count: &mut usize, _at: &Recorded) {
        *count += 1;
    }
}

#[tokio::test]
async fn the_same_declaration_twice_is_one_state() {
    let engine = start(&InMemory::new());
    let (one, two) = (notes(&engine), notes(&engine));
    super::note(&one, "hello").await;
    assert_eq!(*two.loaded().await, ["hello"]);
    stop(&engine).await;
}

#[tokio::test]
async fn one_key_with_two_types_names_both_places() {
    let engine = start(&InMemory::new());
    engine.events_at::<Noted, Notes>("notes", "app::Left.notes").expect("the first");
    let error = engine.events_at::<Noted, usize>("notes", "app::Right.count").expect_err("another type");
    assert!(matches!(error, RegisterError::OtherType { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("app::Left.notes") && text.contains("app::Right.count"), "{text}");
    engine.cell_at::<u32>("n", "app::Left.n").expect("the first");
    let error = engine.cell_at::<u64>("n", "app::Right.n").expect_err("another type");
    assert!(error.to_string().contains("app::Right.n"), "{error}");
    // A cell and a log of one name are two types of one key, too.
    for error in [
        engine.cell_at::<u32>("notes", "app::Right.notes").expect_err("it is a log"),
        engine.events_at::<Noted, Notes>("n", "app::Right.n").expect_err("it is a cell"),
    ] {
        let text = error.to_string();
        assert!(text.contains("app::Left.") && text.contains("app::Right."), "{text}");
    }
    stop(&engine).await;
}

#[tokio::test]
async fn one_event_name_of_two_types_names_both_places() {
    let engine = start(&InMemory::new());
    engine.events_at::<Noted, Notes>("notes", "app::Left.notes").expect("the first");
    let error =
        engine.events_at::<Impostor, u32>("others", "app::Right.others").expect_err("the name is taken");
    assert!(matches!(error, RegisterError::EventNameTaken { event: "test.noted", .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("app::Left.notes") && text.contains("app::Right.others"), "{text}");
    stop(&engine).await;
}

#[derive(Serialize, Deserialize, Event)]
#[event(name = "test.measured")]
struct Measured;

impl Fold<u32> for Measured {
    fn fold(self, count: &mut u32, _at: &Recorded) {
        *count += 1;
    }
}

#[tokio::test]
async fn what_is_appended_under_a_name_is_of_one_type() {
    let engine = start(&InMemory::new());
    notes(&engine);
    engine.appender::<Noted>("notes").expect("of the same type");
    engine.appender::<Measured>("measures").expect("the first");
    engine.appender::<Measured>("measures").expect("the same again");
    engine.cell::<u32>("n").expect("the first");
    for error in [
        engine.appender::<Measured>("notes").expect_err("its events are others"),
        engine.appender::<Noted>("measures").expect_err("another appender has it"),
        engine.events::<Noted, Notes>("measures").expect_err("an appender has it"),
        engine.appender::<Measured>("n").expect_err("it is a cell"),
        engine.cell::<u32>("measures").expect_err("an appender has it"),
    ] {
        assert!(matches!(error, RegisterError::OtherType { .. }), "{error:?}");
    }
    engine.events::<Measured, u32>("measures").expect("of the same type");
    let error = engine.appender::<Impostor>("others").expect_err("the event's name is taken");
    assert!(matches!(error, RegisterError::EventNameTaken { event: "test.noted", .. }), "{error:?}");
    let error = engine.appender::<Measured>("").expect_err("it has no name");
    assert!(matches!(error, RegisterError::InvalidKey { .. }), "{error:?}");
    stop(&engine).await;
}

#[tokio::test]
async fn a_name_that_is_no_key_is_refused() {
    let engine = start(&InMemory::new());
    let error = engine.events::<Noted, Notes>("").expect_err("it has no name");
    assert!(matches!(error, RegisterError::InvalidKey { .. }), "{error:?}");
    let error = engine.cell::<u32>("").expect_err("it has no name");
    assert!(matches!(error, RegisterError::InvalidKey { .. }), "{error:?}");
    stop(&engine).await;
}
