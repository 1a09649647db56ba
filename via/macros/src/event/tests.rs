use super::*;

fn event_of(source: &str) -> Result<Event> {
    Event::of(&syn::parse_str(source).expect("the test is valid Rust"))
}

fn error_of(source: &str) -> String {
    event_of(source).err().expect("this is no event").to_string()
}

#[test]
fn everything_but_the_name_has_a_default() {
    let event = event_of(r#"#[event(name = "chat.posted")] struct Posted;"#).expect("an event");
    assert_eq!(event.name.value(), "chat.posted");
    assert_eq!(event.version.base10_digits(), "1");
    assert_eq!(event.codec, "MessagePack");
}

#[test]
fn keys_may_be_in_any_order_and_in_several_attributes() {
    let event = event_of(
        r#"#[event(codec = "json", version = 7)] #[serde(tag = "kind")] #[event(name = "a",)] enum A {}"#,
    )
    .expect("an event");
    assert_eq!((event.version.base10_digits(), event.codec.to_string().as_str()), ("7", "Json"));
}

#[test]
fn a_missing_name_is_answered_with_one() {
    let expected = "an event needs the name the log calls it by: `#[event(name = \"chat.posted\")]`";
    assert_eq!(error_of("struct ChatPosted;"), expected);
    assert_eq!(error_of("#[event(version = 2)] struct ChatPosted;"), expected);
}

#[test]
fn mistakes_are_named() {
    for (attribute, expected) in [
        (r#"name = """#, "the name is empty: the log could not tell this event from others"),
        (r#"name = "  ""#, "the name is empty: the log could not tell this event from others"),
        (r#"name = "a", name = "b""#, "this key is given twice"),
        (r#"name = "a", version = 0"#, "versions start at 1"),
        (r#"name = "a", version = 4294967296"#, "a version is a whole number from 1 to 4294967295"),
        (r#"name = "a", version = "1""#, "expected integer literal"),
        (
            r#"name = "a", codec = "xml""#,
            r#"unknown codec: choose "messagepack", "json", "bincode" or "protobuf""#,
        ),
        (r#"name = "a", verson = 1"#, "unknown key: an event has `name`, `version`, `codec` and `upcast`"),
        (
            r#"name = "a", serde::tag = 1"#,
            "unknown key: an event has `name`, `version`, `codec` and `upcast`",
        ),
        ("name", "expected `=`"),
        (
            r#"name = "a", version = 2, upcast = "AV1""#,
            "name the type of the version before: `upcast = PostedV1`, without quotes",
        ),
        (r#"name = "a", version = 2, upcast = AV1, upcast = AV0"#, "this key is given twice"),
        (
            r#"name = "a", upcast = AV1"#,
            "nothing is older than version 1: raise `version` when the shape of an event changes",
        ),
    ] {
        assert_eq!(error_of(&format!("#[event({attribute})] struct A;")), expected);
    }
}

#[test]
fn older_versions_are_decoded_by_the_type_that_is_named() {
    let source = r#"#[event(name = "a", version = 2, upcast = old::AV1)] struct A;"#;
    let expanded = event_of(source).expect("an event").expand(Home::Backplane).to_string();
    assert!(expanded.contains(":: codec :: decode_upcast :: <"), "{expanded}");
    assert!(
        expanded.contains("`old::AV1` is not older than `A`: its version has to be below 2"),
        "{expanded}"
    );
}

#[test]
fn shapes_that_cannot_be_events_are_refused() {
    assert_eq!(error_of(r#"#[event(name = "a")] union A { a: u8 }"#), "an event is a struct or an enum");
    for generics in ["<T>", "<'a>", "<const N: usize>"] {
        let error = error_of(&format!(r#"#[event(name = "a")] struct A{generics};"#));
        assert!(error.starts_with("an event has no generic parameters"), "{error}");
    }
}

#[test]
fn each_crate_finds_the_trait_through_its_own_manifest() {
    let expanded =
        |home| event_of(r#"#[event(name = "a")] struct A;"#).expect("an event").expand(home).to_string();
    assert!(expanded(Home::Backplane).contains("impl :: via_backplane :: Event for A"));
    assert!(expanded(Home::App).contains("impl :: via :: __private :: via_backplane :: Event for A"));
}
