//! Files that pin bytes which outlive the binary that wrote them.
//!
//! `VIA_WRITE_GOLDEN=1 cargo test -p via-backplane --all-features golden` writes missing ones, and overwrites those that
//! are there. Only do the latter before a first release.

use std::{env, fmt::Debug, fs, path::PathBuf};

/// Checks `bytes` against a golden file, and what people read against the text beside it.
pub(crate) fn check(name: &str, bytes: &[u8], value: &impl Debug) {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let (binary, text) = (golden.join(format!("{name}.bin")), golden.join(format!("{name}.txt")));
    let readable = format!("{value:#?}\n\n{}", hex_dump(bytes));
    if env::var_os("VIA_WRITE_GOLDEN").is_some() {
        fs::write(&binary, bytes).expect("tests/golden can be written");
        fs::write(&text, &readable).expect("tests/golden can be written");
    }
    let expected = fs::read(&binary).unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    assert_eq!(
        hex_dump(bytes),
        hex_dump(&expected),
        "the encoding of {name} changed: every log written so far would be read wrongly"
    );
    let expected = fs::read_to_string(&text).unwrap_or_else(|error| panic!("{}: {error}", text.display()));
    assert_eq!(readable, expected, "{name}.txt is out of date");
}

pub(crate) fn hex_dump(bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).map(|line| {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            line.iter().map(|&byte| if (b' '..=b'~').contains(&byte) { byte as char } else { '.' }).collect();
        format!("{:<47}  {text}\n", hex.join(" "))
    });
    lines.collect()
}
