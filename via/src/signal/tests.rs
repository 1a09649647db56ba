use proptest::prelude::*;

use super::*;

fn read<T: SignalValue + fmt::Debug>(json: &str) -> Result<T, SignalProblem> {
    let signals = Signals::parse(json.as_bytes()).expect("an object");
    signals.decode("x").map_err(|error| {
        assert_eq!(error.field, "x");
        error.problem
    })
}

#[test]
fn numbers_travel_as_text_and_stay_exact() {
    assert_eq!(read::<u64>(r#"{"x":"18446744073709551615"}"#), Ok(u64::MAX));
    assert_eq!(read::<i8>(r#"{"x":"-128"}"#), Ok(-128));
    assert_eq!(read::<f64>(r#"{"x":"-1.5e3"}"#), Ok(-1500.0));
}

#[test]
fn what_is_not_the_type_is_never_a_default() {
    use SignalProblem::{Empty, Missing, OutOfRange, WrongType};
    assert_eq!(read::<u8>(r#"{"x":"256"}"#), Err(OutOfRange));
    assert_eq!(read::<u8>(r#"{"x":"-1"}"#), Err(OutOfRange));
    assert_eq!(read::<i8>(r#"{"x":"-129"}"#), Err(OutOfRange));
    assert_eq!(read::<u8>(r#"{"x":"1.5"}"#), Err(WrongType));
    assert_eq!(read::<u8>(r#"{"x":" 1"}"#), Err(WrongType));
    assert_eq!(read::<u8>(r#"{"x":"-"}"#), Err(WrongType));
    assert_eq!(read::<u8>(r#"{"x":1}"#), Err(WrongType));
    assert_eq!(read::<u8>(r#"{"x":null}"#), Err(WrongType));
    assert_eq!(read::<u8>(r#"{"x":""}"#), Err(Empty));
    assert_eq!(read::<f64>(r#"{"x":""}"#), Err(Empty));
    assert_eq!(read::<f64>(r#"{"x":"inf"}"#), Err(WrongType));
    assert_eq!(read::<f64>(r#"{"x":"NaN"}"#), Err(WrongType));
    assert_eq!(read::<f32>(r#"{"x":"1e39"}"#), Err(OutOfRange));
    assert_eq!(read::<u8>("{}"), Err(Missing));
    assert_eq!(read::<String>(r#"{"x":["a"]}"#), Err(WrongType));
}

#[test]
fn empty_is_none_where_the_number_is_optional() {
    assert_eq!(read::<Option<u32>>(r#"{"x":""}"#), Ok(None));
    assert_eq!(read::<Option<u32>>(r#"{"x":"7"}"#), Ok(Some(7)));
    assert_eq!(read::<Option<u32>>(r#"{"x":"x"}"#), Err(SignalProblem::WrongType));
    assert_eq!(Option::<u32>::default().to_text(), "");
}

#[test]
fn only_an_object_holds_signals() {
    for body in ["", "[]", "1", "{", "null", "{\"x\":\"1\"}x"] {
        assert!(Signals::parse(body.as_bytes()).is_err(), "{body}");
    }
}

fn seed(type_name: &'static str, place: &'static str) -> Seed {
    Seed { type_name, place, text: String::new() }
}

#[test]
fn seeds_nest_by_the_dots_of_their_keys() {
    let mut seeds = Seeds::default();
    for key in ["draft", "left.name", "left.age"] {
        seeds.add(key, seed("String", "a::B.c")).expect("a valid key");
    }
    assert_eq!(seeds.to_json(), r#"{"draft":"","left":{"age":"","name":""}}"#);
}

#[test]
fn one_key_with_two_types_names_both_places_and_the_fix() {
    let mut seeds = Seeds::default();
    seeds.add("age", seed("u8", "a::Form.age")).expect("the first");
    seeds.add("age", seed("u8", "a::Form.again")).expect("the same type");
    let error = seeds.add("age", seed("String", "b::Form.age")).expect_err("another type").to_string();
    for part in ["a::Form.age", "b::Form.age", "u8", "String", "#[state(key"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_key_the_browser_cannot_name_or_nest_is_refused() {
    let mut seeds = Seeds::default();
    for key in ["", "_x", "1x", "a b", "a..b", "a-b", "a__b", "é", "a.$"] {
        let error = seeds.add(key, seed("u8", "a::B.c")).expect_err(key);
        assert!(matches!(error, BadSignal::Key { .. }), "{error}");
    }
    seeds.add("a.b", seed("u8", "a::B.c")).expect("a valid key");
    for key in ["a", "a.b.c"] {
        let error = seeds.add(key, seed("u8", "a::B.d")).expect_err(key);
        assert!(matches!(error, BadSignal::Nested { .. }), "{error}");
    }
}

proptest! {
    #[test]
    fn every_number_comes_back_as_it_was_sent(unsigned: u64, signed: i128, float in any::<f64>().prop_filter("finite", |it| it.is_finite())) {
        prop_assert_eq!(u64::from_text(&unsigned.to_text()), Ok(unsigned));
        prop_assert_eq!(i128::from_text(&signed.to_text()), Ok(signed));
        prop_assert_eq!(f64::from_text(&float.to_text()), Ok(float));
    }

    #[test]
    fn no_body_makes_decoding_panic(body: Vec<u8>, text: String) {
        let _ignored = Signals::parse(&body).is_ok();
        let _ignored = (u8::from_text(&text).is_ok(), f32::from_text(&text).is_ok(), Option::<i64>::from_text(&text).is_ok());
    }
}
