use std::{
    env, fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use serde::Deserialize;

use super::*;
use crate::{MigrateError, Recorded};

/// A directory that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("via-golden-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(env::temp_dir().join(name))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the directory is there");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A test that failed before it wrote anything has nothing to clear.
        fs::remove_dir_all(&self.0).ok();
    }
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(name = "test.posted")]
struct PostedV1 {
    body: String,
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(name = "test.posted", version = 2, upcast = PostedV1)]
struct Posted {
    from: String,
    body: String,
}

impl From<PostedV1> for Posted {
    fn from(old: PostedV1) -> Self {
        Self { from: "nobody".into(), body: old.body }
    }
}

/// As [`Posted`], with another opinion on what old posts mean.
#[derive(Debug, Serialize, Deserialize, Event)]
#[event(name = "test.posted", version = 2, upcast = PostedV1)]
struct Reposted {
    from: String,
    body: String,
}

impl From<PostedV1> for Reposted {
    fn from(old: PostedV1) -> Self {
        Self { from: "somebody".into(), body: old.body }
    }
}

fn old() -> PostedV1 {
    PostedV1 { body: "hello".into() }
}

fn new() -> Posted {
    Posted { from: "ada".into(), body: "hello".into() }
}

fn problems<E: Event + Debug>(golden: Events<E>, mode: Mode) -> Vec<String> {
    golden.dir.problems(mode, RECORD, Events::<E>::read).expect("the directory can be used")
}

#[track_caller]
fn the_problem(mut problems: Vec<String>) -> String {
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

#[test]
fn what_is_missing_is_written_only_when_that_is_allowed() {
    let scratch = Scratch::new();
    let golden = || events::<Posted>(&scratch.0).example("plain", &new()).example("plain", &old());
    let missing = problems(golden(), Mode::Nothing);
    assert_eq!(missing.len(), 2, "{missing:#?}");
    assert!(missing[0].ends_with(
        "v1-plain.record is missing: `VIA_GOLDEN=new cargo test` writes it; read it, and commit it"
    ));
    assert!(!scratch.0.exists(), "a check writes nothing");

    assert_eq!(problems(golden(), Mode::New), [""; 0]);
    assert_eq!(scratch.names(), ["v1-plain.record", "v1-plain.txt", "v2-plain.record", "v2-plain.txt"]);
    let text = "Posted {\n    from: \"nobody\",\n    body: \"hello\",\n}\n";
    assert_eq!(scratch.read("v1-plain.txt"), text);
    assert_eq!(problems(golden(), Mode::Nothing), [""; 0]);
}

#[test]
fn a_new_version_asks_for_a_record_and_keeps_the_old_ones() {
    let scratch = Scratch::new();
    assert_eq!(problems(events::<PostedV1>(&scratch.0).example("plain", &old()), Mode::New), [""; 0]);
    let golden = || events::<Posted>(&scratch.0).example("plain", &new());
    let asked = problems(golden(), Mode::Nothing);
    assert_eq!(asked.len(), 2, "{asked:#?}");
    assert!(asked[0].contains("v2-plain.record is missing"), "{asked:#?}");
    assert!(
        asked[1].starts_with(&format!(
            "{} decodes to something else",
            scratch.0.join("v1-plain.record").display()
        ))
    );
    assert_eq!(problems(golden(), Mode::Accept), [""; 0]);
    assert!(scratch.read("v1-plain.txt").contains("nobody"));
}

#[test]
fn what_decodes_to_something_else_is_shown_and_can_be_accepted() {
    let scratch = Scratch::new();
    assert_eq!(problems(events::<Posted>(&scratch.0).example("plain", &old()), Mode::New), [""; 0]);
    let record = fs::read(scratch.0.join("v1-plain.record")).expect("it was written");

    let changed = || events::<Reposted>(&scratch.0).example("plain", &PostedV1 { body: "ignored".into() });
    for mode in [Mode::Nothing, Mode::New] {
        let problem = the_problem(problems(changed(), mode));
        let (_, problem) = problem.split_once('\n').expect("the first line has the path");
        assert_eq!(
            problem,
            "stored:  `test.posted` version 1, messagepack\n\
             read as: `test.posted` version 2 (via_backplane::golden::tests::Reposted)\n\
             \n\
             \x20 - Posted {\n\
             \x20 -     from: \"nobody\",\n\
             \x20 + Reposted {\n\
             \x20 +     from: \"somebody\",\n\
             \x20       body: \"hello\",\n\
             \x20   }\n\
             \x20 - as v1-plain.txt has it\n\
             \x20 + as it decodes now\n\
             \n\
             Logs and snapshots are full of such bytes, and every pod would read all of them as the `+` side.\n\
             - If that is not meant: keep the old type as it was, and make the new one a new version (the book's page on \
             evolution).\n\
             - If it is meant, because the type gained a field or what old ones mean today was changed on purpose: \
             `VIA_GOLDEN=accept cargo test` rewrites the text; commit it with the change."
        );
    }
    assert_eq!(problems(changed(), Mode::Accept), [""; 0]);
    assert!(scratch.read("v1-plain.txt").contains("somebody"));
    assert_eq!(fs::read(scratch.0.join("v1-plain.record")).expect("still there"), record, "never rewritten");
}

#[test]
fn what_does_not_decode_says_what_and_what_to_do() {
    #[derive(Debug, Serialize, Deserialize, Event)]
    #[event(name = "test.posted")]
    struct Renamed {
        text: String,
    }
    let scratch = Scratch::new();
    assert_eq!(problems(events::<PostedV1>(&scratch.0).example("plain", &old()), Mode::New), [""; 0]);
    for mode in [Mode::Nothing, Mode::New, Mode::Accept] {
        let problem = the_problem(problems(events::<Renamed>(&scratch.0), mode));
        assert!(problem.contains("v1-plain.record does not decode any more.\n"), "{problem}");
        assert!(
            problem
                .contains("error: the payload is not the event type's messagepack: missing field `text`\n"),
            "{problem}"
        );
        assert!(problem.contains("help: every pod would skip such records"), "{problem}");
        assert!(
            problem.contains("81 a4 62 6f 64 79 a5 68 65 6c 6c 6f              ..body.hello"),
            "{problem}"
        );
    }

    fs::write(scratch.0.join("v1-plain.record"), b"garbage").expect("writable");
    let problem = the_problem(problems(events::<PostedV1>(&scratch.0), Mode::Nothing));
    assert!(problem.contains("it is not a record of a log"), "{problem}");
}

#[test]
fn records_of_newer_versions_and_other_events_are_named() {
    #[derive(Debug, Serialize, Deserialize, Event)]
    #[event(name = "test.cleared")]
    struct Cleared;
    let scratch = Scratch::new();
    assert_eq!(problems(events::<Posted>(&scratch.0).example("plain", &new()), Mode::New), [""; 0]);
    let problem = the_problem(problems(events::<PostedV1>(&scratch.0), Mode::Nothing));
    assert!(problem.contains("error: the payload is of version 2, this binary knows 1"), "{problem}");
    let problem = the_problem(problems(events::<Cleared>(&scratch.0), Mode::Nothing));
    assert!(problem.contains("error: it is another event's record\n"), "{problem}");
}

#[test]
fn an_empty_directory_is_a_mistake() {
    let scratch = Scratch::new();
    let problem = the_problem(problems(events::<Posted>(&scratch.0), Mode::New));
    assert!(problem.contains("has no `.record` file, so nothing was checked"), "{problem}");
}

#[test]
#[should_panic(expected = "`test.posted` version 2 is no version of `test.posted` up to 1")]
fn an_example_of_a_newer_version_is_refused() {
    drop(events::<PostedV1>("nowhere").example("plain", &new()));
}

#[test]
#[should_panic(expected = "becomes part of a file's name")]
fn a_label_that_leads_elsewhere_is_refused() {
    drop(events::<Posted>("nowhere").example("../plain", &new()));
}

#[test]
#[should_panic(expected = "has two examples with the label \"plain\"")]
fn a_label_stands_for_one_example() {
    drop(events::<Posted>("nowhere").example("plain", &new()).example("plain", &new()));
}

impl Fold<Vec<String>> for Posted {
    const STATE_VERSION: u32 = 2;

    fn fold(self, feed: &mut Vec<String>, _at: &Recorded) {
        feed.push(self.body);
    }

    fn migrate(version: u32, codec: CodecId, snapshot: &[u8]) -> Result<Vec<String>, MigrateError> {
        match version {
            1 => crate::codec::decode_state::<String>(version, codec, snapshot).map(|only| vec![only]),
            _ => Err(MigrateError::none::<Self, Vec<String>>(version)),
        }
    }
}

fn state_problems(golden: States<Posted, Vec<String>>, mode: Mode) -> Vec<String> {
    let read = States::<Posted, Vec<String>>::read;
    golden.dir.problems(mode, SNAPSHOT, read).expect("the directory can be used")
}

#[test]
fn snapshots_are_migrated_and_compared() {
    let scratch = Scratch::new();
    let golden = || {
        let now = vec!["one".to_owned(), "two".to_owned()];
        states::<Posted, Vec<String>>(&scratch.0).example("two", &now).older(1, "one", &"one".to_owned())
    };
    assert_eq!(state_problems(golden(), Mode::New), [""; 0]);
    assert_eq!(scratch.read("v1-one.txt"), "[\n    \"one\",\n]\n");
    assert_eq!(state_problems(golden(), Mode::Nothing), [""; 0]);

    fs::write(scratch.0.join("v1-one.snapshot"), b"\xa3two").expect("writable");
    let problem = the_problem(state_problems(golden(), Mode::Nothing));
    assert!(problem.contains("  -     \"one\",\n  +     \"two\",\n"), "{problem}");
    assert!(problem.contains("stored:  a state of version 1\n"), "{problem}");
}

#[test]
fn snapshots_that_nothing_reads_are_named() {
    let scratch = Scratch::new();
    fs::create_dir_all(&scratch.0).expect("writable");
    let golden = || states::<Posted, Vec<String>>(&scratch.0);
    for (name, error) in [
        ("v3-later.snapshot", "is of version 3, this binary knows 2"),
        (
            "v0-none.snapshot",
            "nothing migrates the state `alloc::vec::Vec<alloc::string::String>` from version 0 to 2",
        ),
        ("v2-garbage.snapshot", "the snapshot of version 2 is no `alloc::vec::Vec<alloc::string::String>`: "),
        ("latest.snapshot", "its name does not say its version"),
    ] {
        fs::write(scratch.0.join(name), b"\xc1").expect("writable");
        let problem = the_problem(state_problems(golden(), Mode::Accept));
        assert!(problem.contains(error), "{problem}");
        fs::remove_file(scratch.0.join(name)).expect("it is there");
    }
}
