//! Compiles every case.

#[test]
fn every_refused_shape_says_what_to_do_instead() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("cases/*/*.rs");
}
