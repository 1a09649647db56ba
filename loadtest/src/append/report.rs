//! What appending came to.

use std::time::Duration;

use serde::Serialize;

use super::Slice;
use crate::{
    cpu::{CpuEach, Total},
    latency::Latency,
    median::median,
    print::print,
    target::{Described, Failure},
};

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) server: Described,
    pub(super) sync_always: bool,
    pub(super) runs: usize,
    pub(super) windows: Vec<Row>,
    /// Appends that wait together become atomic batches; measured where the server syncs before it acknowledges.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) grouping: Vec<Grouping>,
}

/// One record size and window.
#[derive(Serialize)]
pub(super) struct Row {
    record_bytes: usize,
    window: usize,
    raw_per_s: f64,
    ours_per_s: f64,
    ratio_to_raw: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Latencies>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_per_append: Option<CpuPerAppend>,
    /// What the raw loop reached where the budgets were set.
    facts_raw_per_s: f64,
    raw_runs_per_s: Vec<f64>,
    ours_runs_per_s: Vec<f64>,
}

#[derive(Serialize)]
struct Latencies {
    raw: Latency,
    ours: Latency,
    p50_ratio_to_raw: f64,
    p99_ratio_to_raw: f64,
}

/// Of all runs together.
#[derive(Clone, Copy, Serialize)]
struct CpuPerAppend {
    raw: CpuEach,
    ours: CpuEach,
}

#[derive(Serialize)]
pub(super) struct Grouping {
    record_bytes: usize,
    concurrent: usize,
    raw_ungrouped_per_s: f64,
    raw_batches_per_s: f64,
    grouped_per_s: f64,
    grouped_to_raw_ungrouped: f64,
    grouped_to_raw_batches: f64,
    facts_raw_batches_per_s: f64,
    raw_batches_runs_per_s: Vec<f64>,
    grouped_runs_per_s: Vec<f64>,
}

/// Appends per second of a raw loop, where the budgets were set.
#[derive(Clone, Copy)]
pub(super) struct Facts {
    one: f64,
    some: f64,
    many: f64,
    pub(super) batches_per_s: f64,
}

impl Facts {
    /// Measured with 16, 128 and 1,024 bytes; the row for other sizes is the next larger one's.
    pub(super) fn of(bytes: usize, sync_always: bool) -> Self {
        let row = |one, some, many, batches_per_s| Self { one, some, many, batches_per_s };
        match (bytes, sync_always) {
            // Without group commit, a window is worth little; 1,000 a second is the least that was seen.
            (..=16, true) => row(3_300.0, 1_000.0, 1_000.0, 133_000.0),
            (..=128, true) => row(3_400.0, 1_000.0, 1_000.0, 96_000.0),
            (_, true) => row(2_700.0, 1_000.0, 1_000.0, 31_000.0),
            (..=16, false) => row(7_600.0, 79_000.0, 156_000.0, 138_000.0),
            (..=128, false) => row(7_500.0, 117_000.0, 218_000.0, 137_000.0),
            (_, false) => row(7_200.0, 103_000.0, 170_000.0, 34_000.0),
        }
    }

    pub(super) fn per_s(self, window: usize) -> f64 {
        match window {
            1 => self.one,
            ..=64 => self.some,
            _ => self.many,
        }
    }
}

/// The runs of one side.
#[derive(Default)]
pub(super) struct Rates {
    per_s: Vec<f64>,
    latencies: Vec<Latency>,
    cpu: Total,
}

impl Rates {
    /// Adds a run, which is never without appends: each turn of a side ends with what it began.
    pub(super) fn add(&mut self, run: Vec<Slice>) {
        let count = run.iter().map(|slice| slice.count).sum::<usize>();
        let lasted = run.iter().map(|slice| slice.lasted).sum::<Duration>();
        self.per_s.push(count as f64 / lasted.as_secs_f64());
        let mut each = Vec::new();
        for slice in run {
            self.cpu.add(slice.cpu, slice.count);
            each.extend(slice.each);
        }
        if !each.is_empty() {
            self.latencies.push(Latency::of(each));
        }
    }

    fn median(&self) -> f64 {
        median(self.per_s.iter().copied())
    }

    fn latency(&self) -> Option<Latency> {
        (!self.latencies.is_empty()).then(|| Latency::median(&self.latencies))
    }
}

impl Row {
    pub(super) fn of(record_bytes: usize, window: usize, facts: f64, raw: Rates, ours: Rates) -> Self {
        let latency = raw.latency().zip(ours.latency()).map(|(raw, ours)| Latencies {
            p50_ratio_to_raw: ours.p50_us / raw.p50_us,
            p99_ratio_to_raw: ours.p99_us / raw.p99_us,
            raw,
            ours,
        });
        let cpu = raw.cpu.each().zip(ours.cpu.each());
        Self {
            cpu_per_append: cpu.map(|(raw, ours)| CpuPerAppend { raw, ours }),
            record_bytes,
            window,
            raw_per_s: raw.median(),
            ours_per_s: ours.median(),
            ratio_to_raw: ours.median() / raw.median(),
            latency,
            facts_raw_per_s: facts,
            raw_runs_per_s: raw.per_s,
            ours_runs_per_s: ours.per_s,
        }
    }
}

impl Grouping {
    pub(super) fn of(concurrent: usize, widest: &Row, facts: f64, batches: Rates, grouped: Rates) -> Self {
        Self {
            record_bytes: widest.record_bytes,
            concurrent,
            raw_ungrouped_per_s: widest.raw_per_s,
            raw_batches_per_s: batches.median(),
            grouped_per_s: grouped.median(),
            grouped_to_raw_ungrouped: grouped.median() / widest.raw_per_s,
            grouped_to_raw_batches: grouped.median() / batches.median(),
            facts_raw_batches_per_s: facts,
            raw_batches_runs_per_s: batches.per_s,
            grouped_runs_per_s: grouped.per_s,
        }
    }
}

impl Report {
    pub(super) fn summarize(&self) {
        for row in &self.windows {
            print(&format!(
                "{:>4} bytes, {:>5} in flight  raw {:>9.0}/s  ours {:>9.0}/s  ratio {:.2}",
                row.record_bytes, row.window, row.raw_per_s, row.ours_per_s, row.ratio_to_raw
            ));
            if let Some(Latencies { raw, ours, p50_ratio_to_raw, p99_ratio_to_raw }) = row.latency {
                print(&format!(
                    "      p50 raw {:.0} µs, ours {:.0} µs, ratio {p50_ratio_to_raw:.2}; p99 raw {:.0} µs, ours {:.0} µs, ratio \
                     {p99_ratio_to_raw:.2}",
                    raw.p50_us, ours.p50_us, raw.p99_us, ours.p99_us
                ));
            }
        }
        for row in &self.windows {
            let Some(CpuPerAppend { raw, ours }) = row.cpu_per_append else { continue };
            print(&format!(
                "{:>4} bytes, {:>5} in flight  processor time per append: raw {raw}; ours {ours}",
                row.record_bytes, row.window
            ));
        }
        for row in &self.grouping {
            print(&format!(
                "{:>4} bytes, {:>5} waiting    raw batches {:>9.0}/s  grouped {:>9.0}/s  ratio to ungrouped {:.1}, to batches {:.2}",
                row.record_bytes,
                row.concurrent,
                row.raw_batches_per_s,
                row.grouped_per_s,
                row.grouped_to_raw_ungrouped,
                row.grouped_to_raw_batches
            ));
        }
    }

    /// Fails where the raw loop is so slow that a ratio to it says nothing.
    pub(super) fn judge(&self) -> Result<(), Box<Failure>> {
        let windows = self.windows.iter().map(|row| {
            let what = format!("{} bytes, {} in flight", row.record_bytes, row.window);
            (what, row.raw_per_s, row.facts_raw_per_s)
        });
        let batches = self.grouping.iter().map(|row| {
            let what = format!("{} bytes in atomic batches", row.record_bytes);
            (what, row.raw_batches_per_s, row.facts_raw_batches_per_s)
        });
        believe(windows.chain(batches))
    }
}

/// What raw loops reached, each beside what one reaches where the budgets were set: under half of that, a ratio to it is no win.
fn believe(raw: impl Iterator<Item = (String, f64, f64)>) -> Result<(), Box<Failure>> {
    let slow: Vec<_> = raw
        .filter(|(_, reached, facts)| *reached < facts / 2.0)
        .map(|(what, reached, facts)| format!("{what}: {reached:.0}/s of {facts:.0}/s"))
        .collect();
    if slow.is_empty() {
        return Ok(());
    }
    let slow = slow.join("; ");
    Err(format!("this machine is too slow or too busy to judge: raw async-nats reached less than half of what it should ({slow})").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_loop_under_half_of_what_it_should_reach_is_no_baseline() {
        let reached = |one: f64, other: f64| {
            believe([("one".to_owned(), one, 100.0), ("other".to_owned(), other, 200.0)].into_iter())
        };
        reached(50.0, 100.0).expect("half is enough");
        let error = reached(50.0, 99.0).expect_err("less is not").to_string();
        assert!(error.contains("other: 99/s of 200/s") && !error.contains("one:"), "{error}");
    }
}
