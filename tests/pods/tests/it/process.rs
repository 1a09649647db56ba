//! A pod's process, from the outside.

use std::{
    io::{BufRead as _, BufReader, PipeReader, Write as _, pipe},
    process::{ChildStdin, Command},
};

use nats_servers::{Process, Server};
use pods::{Answered, Asked, Life};

/// A pod that is told what to do, and ends with the test.
pub(crate) struct Pod {
    pub(crate) process: Process,
    asks: ChildStdin,
    answers: BufReader<PipeReader>,
}

impl Pod {
    /// Starts one, and waits until it shows what there is.
    pub(crate) fn start(server: &Server, snapshot_interval: u64, compaction_grace_ms: u64) -> Self {
        let life = Life { url: server.url(), snapshot_interval, compaction_grace_ms };
        let life = serde_json::to_string(&life).expect("it is JSON");
        let (answers, answered) = pipe().expect("a pipe");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pod"));
        command.arg(life).stdout(answered);
        let (process, asks) = Process::spawn_with_input(&mut command).expect("the pod starts");
        // Reading ends with the pod once nobody else can write.
        drop(command);
        let mut pod = Self { process, asks, answers: BufReader::new(answers) };
        assert!(matches!(pod.answer(), Answered::Ready));
        pod
    }

    fn ask(&mut self, asked: &Asked) -> Answered {
        let line = serde_json::to_string(asked).expect("it is JSON");
        writeln!(self.asks, "{line}").expect("the pod listens");
        self.answer()
    }

    fn answer(&mut self) -> Answered {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the pod answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the pod ended, or said `{line}`: {error}"))
    }

    /// Appends a note; answers where it stands.
    pub(crate) fn note(&mut self, text: &str) -> u64 {
        self.try_note(text).unwrap_or_else(|(why, _)| panic!("`{text}` was not acknowledged: {why}"))
    }

    /// As [`note`](Self::note); or why it was not acknowledged, and whether it may be in the log.
    pub(crate) fn try_note(&mut self, text: &str) -> Result<u64, (String, bool)> {
        match self.ask(&Asked::Note(text.to_owned())) {
            Answered::Noted(offset) => Ok(offset),
            Answered::Unacknowledged { why, may_be_there } => Err((why, may_be_there)),
            other => panic!("the pod answered {other:?}"),
        }
    }

    /// What it shows, once there are so many notes.
    pub(crate) fn notes(&mut self, count: usize) -> Vec<String> {
        match self.ask(&Asked::Notes(count)) {
            Answered::Notes(notes) => notes,
            other => panic!("the pod answered {other:?}"),
        }
    }

    /// Below which offset the notes were dropped.
    pub(crate) fn floor(&mut self) -> u64 {
        match self.ask(&Asked::Floor) {
            Answered::Floor(offset) => offset,
            other => panic!("the pod answered {other:?}"),
        }
    }

    pub(crate) fn leave(mut self) {
        assert!(matches!(self.ask(&Asked::Leave), Answered::Left));
    }
}
