//! Another language appends to the log and reads it, by `docs/wire-format.md` and `envelope.proto` alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nats_servers::{Config, Server};
use serde_json::{Value, json};
use via_backplane::{Events, Position};

use crate::notes::{Noted, Notes, PATIENCE, Pod};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python");
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../via-backplane/proto");
/// A name that no subject can hold as it is.
const HOSTILE: &str = "é/*.>= %2F";

/// The scripts, with what protoc makes of the schema.
struct Python {
    program: PathBuf,
    generated: PathBuf,
    url: String,
}

impl Python {
    fn on(server: &Server) -> Self {
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let installed = temporary.with_file_name("tools").join("python");
        let wanted = fs::read_to_string(format!("{SCRIPTS}/requirements.txt")).expect("the requirements");
        let is_installed =
            fs::read_to_string(installed.join("requirements.txt")).is_ok_and(|it| it == wanted);
        assert!(
            is_installed,
            "there are no packages in {}: `cargo xtask install` brings them",
            installed.display()
        );
        // Tests run at the same time; each has its own.
        let generated = temporary.join(format!("python-{}", server.port()));
        fs::create_dir_all(&generated).expect("the target directory is writable");
        let python = Self { program: installed.join("bin/python"), generated, url: server.url() };
        python.output(
            python
                .command()
                .args(["-m", "grpc_tools.protoc", "-I", SCHEMA, "envelope.proto", "--python_out"])
                .arg(&python.generated),
        );
        python
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("PYTHONPATH", &self.generated).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Runs a script on a key of the notes; answers the JSON lines it prints.
    fn run(&self, script: &str, of: &Notes, more: &[&str]) -> Vec<Value> {
        let mut command = self.command();
        command.arg(format!("{SCRIPTS}/{script}.py")).args([
            "--url",
            &self.url,
            "--family",
            of.key().family().as_str(),
        ]);
        if let Some(instance) = of.key().instance_name() {
            command.arg(format!("--instance={instance}"));
        }
        let said = self.output(command.args(more));
        said.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Appends notes to a key, more than one of them as a batch; answers what the script says.
    fn append(&self, to: &Notes, options: &[&str], texts: &[&str]) -> Value {
        let payloads: Vec<_> = texts.iter().map(|text| json!({ "text": text }).to_string()).collect();
        let mut arguments = vec!["--name", "test.noted"];
        arguments.extend(options);
        arguments.push("--");
        arguments.extend(payloads.iter().map(String::as_str));
        let said = self.run("append", to, &arguments);
        let [said] = &said[..] else { panic!("one line, not {said:?}") };
        said.clone()
    }

    fn output(&self, command: &mut Command) -> String {
        let output = command.output().expect("Python starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?} failed:\n{said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.generated).ok(); // What is left there only takes room.
    }
}

fn offset(said: &Value) -> u64 {
    said["offset"].as_u64().unwrap_or_else(|| panic!("it was appended: {said}"))
}

// The scripts block their thread; the adapter has another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_language_appends_is_folded() {
    let server = Server::start(Config::new()).expect("a server");
    let (pod, python) = (Pod::on(&server.url()).await, Python::on(&server));
    let first = pod.note("from here").await;
    pod.reaches(&first).await;
    let second = python.append(&pod.notes, &[], &["from there"]);
    let expected = offset(&second).to_string();
    let third =
        python.append(&pod.notes, &["--id", "once", "--expect", &expected], &["if nobody came first"]);
    let again = python.append(&pod.notes, &["--id", "once"], &["a repeat"]);
    assert_eq!((offset(&again), &again["duplicate"]), (offset(&third), &json!(true)));
    let refused = python.append(&pod.notes, &["--expect", &expected], &["somebody came first"]);
    assert_eq!(refused, json!({ "refused": 10071 }));
    let batch = python.append(&pod.notes, &["--expect", &offset(&third).to_string()], &["all", "or", "none"]);
    assert_eq!(offset(&batch), offset(&third) + 3);
    pod.until(|notes| notes.len() == 6).await;
    let all = ["from here", "from there", "if nobody came first", "all", "or", "none"];
    assert_eq!(**pod.notes.loaded().await, all);
    assert!(pod.notes.undecodable().is_empty());
    let covered = pod.notes.covered();
    assert_eq!(covered.offset.0, offset(&batch));
    assert_eq!(batch["id"], hex(&covered.id.0), "a record's identity is its event's id");
    // The head that Python has moved is the one an expectation here is compared with.
    let options = via_backplane::AppendOptions::default().expect_head(pod.notes.loaded().await.key_head());
    pod.notes
        .append_with(Noted { text: "from here again".into() }, options)
        .await
        .expect("nobody came first");

    let hostile = pod.notes.instance(HOSTILE).expect("a valid name");
    python.append(&hostile, &["--expect", "0"], &["under another name"]);
    let mut changes = hostile.changes();
    let folded = async {
        while hostile.read().is_none_or(|notes| notes.is_empty()) {
            changes.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, folded).await.expect("the instance is the same in both languages");
    assert_eq!(**hostile.loaded().await, ["under another name"]);
    pod.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_language_reads_what_is_appended_here() {
    let server = Server::start(Config::new()).expect("a server");
    let (pod, python) = (Pod::on(&server.url()).await, Python::on(&server));
    let hostile = pod.notes.instance(HOSTILE).expect("a valid name");
    let mut appended = vec![(pod.note("one").await, "one")];
    let across = [(pod.notes.clone(), "two"), (hostile.clone(), "three"), (pod.notes.clone(), "four")];
    let events = across.clone().map(|(to, text)| (to, Noted { text: text.into() }));
    let positions = Events::append_across(events, Default::default()).await.expect("appended");
    appended.extend(positions.into_iter().zip(["two", "three", "four"]));
    let family = python.run("read", &pod.notes, &["--whole-family"]);
    assert_eq!(family, appended.iter().map(|(at, text)| line(&family, at, text)).collect::<Vec<_>>());

    let [(one, _), (two, _), (three, _), (four, _)] = &appended[..] else { panic!("{appended:?}") };
    assert_eq!(python.run("read", &hostile, &[]), [line(&family, three, "three")]);
    let after = one.cursor.offset.0.to_string();
    let later = [line(&family, two, "two"), line(&family, four, "four")];
    assert_eq!(python.run("read", &pod.notes, &["--after", &after]), later);
    // What was compacted away is gone there too, and the floor says so.
    let compactor = pod.engine.backplane().compactor().expect("it compacts");
    let floor = compactor.compact(pod.notes.key(), four.cursor.offset).await.expect("compacted");
    let left = [json!({ "floor": floor.0 }), line(&family, four, "four")];
    assert_eq!(python.run("read", &pod.notes, &[]), left);
    pod.stop().await;
}

/// The line a record should be printed as; the time is what was printed, if it is now.
fn line(family: &[Value], at: &Position, text: &str) -> Value {
    let offset = at.cursor.offset.0;
    let printed = family.iter().find(|line| line["offset"] == offset).expect("it was printed");
    let age =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_micros()
            as u64
            - printed["time"].as_u64().expect("a time");
    assert!(u128::from(age) < PATIENCE.as_micros(), "{age} µs ago");
    json!({
        "family": at.key.family().as_str(),
        "instance": at.key.instance_name(),
        "offset": offset,
        "id": hex(&at.cursor.id.0),
        "time": printed["time"],
        "name": "test.noted",
        "version": 1,
        "codec": 1,
        "payload": { "text": text },
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
