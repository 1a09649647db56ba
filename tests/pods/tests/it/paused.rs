//! Pods that stand still for longer than what is to be dropped is announced.

use std::time::{Duration, Instant};

use nats_servers::{Config, Server};

use crate::process::Pod;

/// How long what is to be dropped is announced, in milliseconds.
const GRACE: u64 = 100;
/// How long a fact may take on a machine that builds meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// Appends notes until those below an offset are gone.
fn note_until_dropped(pod: &mut Pod, noted: &mut Vec<String>, above: u64) {
    let begun = Instant::now();
    while pod.floor() <= above {
        assert!(begun.elapsed() < PATIENCE, "nothing is dropped after {} notes", noted.len());
        noted.push(noted.len().to_string());
        pod.note(noted.last().expect("it was just pushed"));
    }
}

#[test]
fn a_pod_under_sigstop_past_the_grace_period_shows_the_whole_history() {
    let server = Server::start(Config::new()).expect("a server");
    let (mut stopped, mut busy) = (Pod::start(&server, 4, GRACE), Pod::start(&server, 4, GRACE));
    let mut noted = vec!["0".to_owned()];
    let stood_at = busy.note("0");
    assert_eq!(stopped.notes(1), noted);
    stopped.process.pause().expect("it runs");
    // Everything that it had, and much that it never saw, is gone when it runs on.
    note_until_dropped(&mut busy, &mut noted, stood_at + 20);
    stopped.process.resume().expect("it is there");
    assert_eq!(stopped.notes(noted.len()), noted);
    noted.push("by the one that stood still".to_owned());
    stopped.note(noted.last().expect("it was just pushed"));
    assert_eq!(busy.notes(noted.len()), noted);
    stopped.leave();
    busy.leave();
}

#[test]
fn a_compacting_pod_under_sigstop_drops_nothing_that_others_need_when_it_runs_on() {
    let server = Server::start(Config::new()).expect("a server");
    let (mut compacting, mut other) = (Pod::start(&server, 4, GRACE), Pod::start(&server, 1_000_000, GRACE));
    let mut noted = Vec::new();
    note_until_dropped(&mut compacting, &mut noted, 8);
    for _ in 0..5 {
        // It has announced, or waits, or is about to drop: wherever it stands, it goes on from there.
        for _ in 0..6 {
            noted.push(noted.len().to_string());
            compacting.note(noted.last().expect("it was just pushed"));
        }
        compacting.process.pause().expect("it runs");
        for _ in 0..6 {
            noted.push(noted.len().to_string());
            other.note(noted.last().expect("it was just pushed"));
        }
        compacting.process.resume().expect("it is there");
        assert_eq!(compacting.notes(noted.len()), noted);
        let mut late = Pod::start(&server, 4, GRACE);
        assert_eq!(late.notes(noted.len()), noted, "a pod that comes late");
        late.leave();
    }
    assert_eq!(other.notes(noted.len()), noted);
    compacting.leave();
    other.leave();
}
