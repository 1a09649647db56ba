//! Every program that needs a server runs, and reports what its page says; the figures are no test's business.

use std::process::Command;

use futures_util::TryStreamExt as _;
use serde_json::Value;

fn report(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(arguments)
        .args(["--quick", "--json"])
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("one JSON object: {error}; {said}"))
}

#[track_caller]
fn has_figures(report: &Value, names: &[&str]) {
    for name in names {
        let figure = report.pointer(&format!("/{}", name.replace('.', "/"))).and_then(Value::as_f64);
        assert!(figure.is_some_and(|figure| figure > 0.0), "{name}: {figure:?} in {report}");
    }
}

fn windows(report: &Value) -> Vec<(u64, u64)> {
    let rows = report["windows"].as_array().expect("a list of rows");
    for row in rows {
        has_figures(row, &["raw_per_s", "ours_per_s", "ratio_to_raw", "facts_raw_per_s"]);
        if row["window"] == 1 {
            has_figures(
                row,
                &[
                    "latency.raw.p50_us",
                    "latency.ours.p99_us",
                    "latency.p50_ratio_to_raw",
                    "latency.p99_ratio_to_raw",
                ],
            );
        }
    }
    rows.iter()
        .map(|row| (row["record_bytes"].as_u64().unwrap_or(0), row["window"].as_u64().unwrap_or(0)))
        .collect()
}

#[test]
fn append_reports_every_size_and_window() {
    let report = report(&["append"]);
    let expected = [(128, 1), (128, 64), (128, 1_000), (16, 1), (16, 64), (16, 1_000)];
    assert_eq!(windows(&report), expected);
    assert_eq!(report["sync_always"], false);
    assert_eq!(report["server"]["started_here"], true);
}

#[test]
fn append_to_a_server_that_syncs_reports_grouping_too() {
    let report = report(&["append", "--sync-always", "--bytes", "128"]);
    assert_eq!(windows(&report), [(128, 1), (128, 64), (128, 1_000)]);
    assert_eq!(report["sync_always"], true);
    let grouping = &report["grouping"][0];
    has_figures(
        grouping,
        &["raw_batches_per_s", "grouped_per_s", "grouped_to_raw_ungrouped", "grouped_to_raw_batches"],
    );
}

#[test]
fn cold_start_reports_events_per_second() {
    let report = report(&["cold-start"]);
    has_figures(&report, &["events", "record_bytes", "raw_per_s", "events_per_s", "ratio_to_raw"]);
}

#[test]
fn converge_reports_both_latencies() {
    let report = report(&["converge"]);
    has_figures(&report, &["raw.p50_us", "raw.p99_us", "ours.p50_us", "ours.p99_us", "p50_ratio_to_raw"]);
}

#[test]
fn cold_start_reports_the_first_read_from_a_snapshot() {
    let report = report(&["cold-start", "--snapshot"]);
    has_figures(&report, &["short.first_read_ms", "long.first_read_ms", "length_ratio", "tail_events"]);
}

#[test]
fn snapshot_reports_both_latencies_and_that_there_were_snapshots() {
    for (arguments, backplane) in [(&["snapshot"][..], "memory"), (&["snapshot", "--nats"], "nats")] {
        let report = report(arguments);
        has_figures(&report, &["off.p99_us", "on.p99_us", "p99_ratio", "snapshots_written", "state_bytes"]);
        assert_eq!(report["backplane"], backplane);
    }
}

#[test]
fn instances_reports_reads_and_memory() {
    let report = report(&["instances"]);
    has_figures(
        &report,
        &["bytes_per_resident", "resident_reads_per_s", "cold_reads_per_s", "rss_ratio", "instances"],
    );
}

#[test]
fn consume_reports_speed_and_what_events_wait_on_both_backplanes() {
    let report = report(&["consume"]);
    has_figures(&report, &["events", "runs", "kills", "lease_ms", "takeover_bound_ms"]);
    let backplanes = report["backplanes"].as_array().expect("a list of backplanes");
    for measured in backplanes {
        has_figures(measured, &["events_per_s", "fold_per_s", "ratio_to_fold", "commits_per_1000"]);
        has_figures(measured, &["takeover_ms_p50", "takeover_ms_p99", "handover_ms_p50", "handover_ms_p99"]);
    }
    let names: Vec<_> = backplanes.iter().map(|measured| measured["backplane"].as_str()).collect();
    assert_eq!(names, [Some("memory"), Some("nats")]);
    has_figures(&backplanes[1], &["raw_per_s", "ratio_to_raw"]);
    assert_eq!(backplanes[1]["server"]["started_here"], true);
}

#[test]
fn a_named_server_is_used_and_left_clean() {
    let server = nats_servers::Server::start(nats_servers::Config::new()).expect("a server");
    for program in ["append", "cold-start", "converge"] {
        let report = report(&[program, "--backplane", &server.url()]);
        assert_eq!(report["server"]["started_here"], false, "{program}");
    }
    for program in [&["cold-start", "--snapshot"][..], &["instances"], &["snapshot"]] {
        report(&[program, &["--backplane", &server.url()]].concat());
    }
    let consumed = report(&["consume", "--only", "nats", "--backplane", &server.url()]);
    assert_eq!(consumed["backplanes"][0]["server"]["started_here"], false, "{consumed}");
    assert_eq!(streams(&server.url()), [""; 0]);
}

/// The streams a server has, as it says itself: on its disk a deleted one is there for a while longer.
fn streams(url: &str) -> Vec<String> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = async_nats::connect(url).await.expect("a connection");
        async_nats::jetstream::new(client).stream_names().try_collect().await.expect("a list of names")
    })
}

#[test]
fn an_address_of_something_else_names_what_is_expected() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["append", "--backplane", "memory"])
        .output()
        .expect("the program starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("nats://host:port"), "{said}");
}
