//! What this program says: reports on its output, progress beside them.

use serde::Serialize;

/// Prints a line of a report.
#[expect(clippy::print_stdout, reason = "the report is what this program is for")]
pub(crate) fn print(line: &str) {
    println!("{line}");
}

/// Prints a report as one line of JSON.
pub(crate) fn print_json(report: &impl Serialize) {
    print(&serde_json::to_string(report).expect("a report is plain numbers"));
}

/// Says what is being done, where it does not disturb a report that is read by a program.
#[expect(clippy::print_stderr, reason = "whoever waits wants to see that something happens")]
pub(crate) fn progress(line: &str) {
    eprintln!("{line}");
}
