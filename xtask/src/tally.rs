//! Counts what the test runners report, and remembers the conformance cases.

use std::collections::BTreeMap;
use std::fmt;

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The program whose output is read; each reports in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    Nextest,
    /// `cargo test`: one closing line per test binary.
    Libtest,
}

/// Reads the output of one run.
pub(crate) struct Report {
    runner: Runner,
    tally: Option<Tally>,
    /// The test binary `cargo test` is running.
    binary: String,
    conformance: BTreeMap<String, String>,
}

impl Report {
    pub(crate) fn new(runner: Runner) -> Self {
        Self { runner, tally: None, binary: String::new(), conformance: BTreeMap::new() }
    }

    pub(crate) fn line(&mut self, line: &str) {
        match self.runner {
            Runner::Nextest => self.nextest_line(line),
            Runner::Libtest => self.libtest_line(line),
        }
    }

    /// The counts; a run that failed without naming a failed test counts as one failure.
    pub(crate) fn close(&self, passed: bool) -> Tally {
        let mut tally = self.tally.unwrap_or_default();
        if !passed && tally.failed == 0 {
            tally.failed = 1;
        }
        tally
    }

    /// Every conformance case with the adapter it ran on, and its outcome.
    pub(crate) fn conformance(&self) -> &BTreeMap<String, String> {
        &self.conformance
    }

    fn nextest_line(&mut self, line: &str) {
        // Runners indent their own lines to a column; what a failed test printed is indented by four.
        if let Some(summary) = line.strip_prefix("     Summary [") {
            self.tally = nextest_summary(summary).or(self.tally);
        } else if let Some((status, test)) = nextest_status(line) {
            self.case(test, status);
        }
    }

    fn libtest_line(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.tally.get_or_insert_default().add(libtest_result(counts));
        } else if let Some(binary) = line.trim_start().strip_prefix("Running ") {
            // `Running tests/all.rs (target/debug/deps/via_inmem-0123456789abcdef)`
            self.binary =
                binary.rsplit('/').next().unwrap_or(binary).split('-').next().unwrap_or(binary).to_owned();
        } else if let Some((test, status)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            let test = format!("{} {test}", self.binary);
            self.case(&test, status);
        }
    }

    fn case(&mut self, test: &str, status: &str) {
        // An example in the suite's documentation, `…/conformance.rs - conformance (line 7)`, is no case of it.
        if !test.contains("conformance") || test.contains(".rs - ") {
            return;
        }
        let outcome = match status {
            "PASS" | "ok" => "passed",
            "SKIP" => "skipped",
            ignored if ignored.starts_with("ignored") => "skipped",
            _ => "FAILED",
        };
        self.conformance.insert(test.to_owned(), outcome.to_owned());
    }
}

/// Adds up several runs.
impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |mut sum, tally| {
            sum.add(tally);
            sum
        })
    }
}

/// `0.171s] 4 tests run: 1 passed (1 slow), 1 failed, 1 timed out, 1 skipped`
fn nextest_summary(summary: &str) -> Option<Tally> {
    let (_, counts) = summary.split_once(" run: ")?;
    let mut tally = Tally::default();
    for count in without_parentheses(counts).split(',') {
        let (number, word) = count.trim().split_once(' ')?;
        let number: u64 = number.parse().ok()?;
        match word.trim() {
            "passed" => tally.passed += number,
            "skipped" => tally.skipped += number,
            // `failed`, `timed out`, `exec failed`: whatever else there is, it is no success.
            _ => tally.failed += number,
        }
    }
    Some(tally)
}

/// `        PASS [   0.022s] (1/2) via-inmem::all conformance::l1` → `PASS`, `via-inmem::all conformance::l1`
fn nextest_status(line: &str) -> Option<(&str, &str)> {
    let (status, rest) = line.split_once(" [")?;
    if !line.starts_with("    ") || status.len() != 12 || status.contains("SLOW") {
        return None;
    }
    let (_seconds, rest) = rest.split_once(']')?;
    let rest = rest.trim_start();
    let test =
        rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_number, test)| test);
    Some((status.trim_start(), test.trim_start()))
}

/// `ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn libtest_result(counts: &str) -> Tally {
    let mut tally = Tally::default();
    for count in counts.split(['.', ';']) {
        let Some((number, word)) = count.trim().split_once(' ') else { continue };
        let number = number.parse().unwrap_or(0);
        match word {
            "passed" => tally.passed += number,
            "failed" => tally.failed += number,
            "ignored" | "filtered out" => tally.skipped += number,
            _ => {}
        }
    }
    tally
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_u32;
    text.chars()
        .filter(|&character| {
            match character {
                '(' => depth += 1,
                ')' => {
                    depth = depth.saturating_sub(1);
                    return false;
                }
                _ => {}
            }
            depth == 0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(runner: Runner, output: &str) -> Report {
        let mut report = Report::new(runner);
        output.lines().for_each(|line| report.line(line));
        report
    }

    #[test]
    fn nextest_summary_is_counted_once_and_replayed_output_is_not() {
        let report = read(
            Runner::Nextest,
            "
        SKIP [         ] (────) via-inmem::all conformance::memory::f1
        PASS [   0.022s] (1/3) via-inmem::all conformance::memory::l1
        FAIL [   0.170s] (2/3) via-inmem::all conformance::memory::l2
    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.16s
 TERMINATING [> 60.000s] (3/3) via engine::slow
     TIMEOUT [  60.000s] (3/3) via engine::slow
     Summary [  60.171s] 5 tests run: 3 passed (1 slow, 1 leaky), 1 failed, 1 timed out, 1 skipped
        FAIL [   0.170s] (2/3) via-inmem::all conformance::memory::l2
",
        );
        assert_eq!(report.close(false), Tally { passed: 3, failed: 2, skipped: 1 });
        let cases: Vec<_> =
            report.conformance().iter().map(|(case, outcome)| format!("{case} {outcome}")).collect();
        assert_eq!(
            cases,
            [
                "via-inmem::all conformance::memory::f1 skipped",
                "via-inmem::all conformance::memory::l1 passed",
                "via-inmem::all conformance::memory::l2 FAILED",
            ]
        );
    }

    #[test]
    fn every_closing_line_of_cargo_test_is_added() {
        let report = read(
            Runner::Libtest,
            "
     Running tests/all.rs (target/debug/deps/via_inmem-0123456789abcdef)
test conformance::memory::l1 ... ok
test conformance::memory::f1 ... ignored, no feed
test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s
",
        );
        assert_eq!(report.close(false), Tally { passed: 6, failed: 2, skipped: 1 });
        assert_eq!(report.conformance()["via_inmem conformance::memory::l1"], "passed");
        assert_eq!(report.conformance()["via_inmem conformance::memory::f1"], "skipped");
    }

    #[test]
    fn a_run_that_dies_before_its_summary_counts_as_one_failure() {
        assert_eq!(read(Runner::Nextest, "error: could not compile").close(false).failed, 1);
        assert_eq!(read(Runner::Libtest, "").close(false).failed, 1);
        assert_eq!(read(Runner::Libtest, "").close(true), Tally::default());
    }
}
