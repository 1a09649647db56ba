//! A pod's process, from the outside.

use std::{
    io::{BufRead as _, BufReader, PipeReader, Write as _, pipe},
    process::{ChildStdin, Command},
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

use nats_servers::{Process, Server};
use pods::{Answered, Asked, Consuming, Life, Said, Stored};

use crate::ledger::{Ledger, Page};

/// A pod that is told what to do, and ends with the test.
pub(crate) struct Pod {
    pub(crate) process: Process,
    asks: ChildStdin,
    answers: Receiver<Answered>,
    /// Reads what the pod says, for as long as it does.
    reader: JoinHandle<()>,
}

impl Pod {
    /// Starts one, and waits until it shows what there is.
    pub(crate) fn start(server: &Server, snapshot_interval: u64, compaction_grace_ms: u64) -> Self {
        let life = Life { url: server.url(), snapshot_interval, compaction_grace_ms };
        // Nothing is delivered to a pod that runs no consumer.
        let mut pod = Self::begin(&life, Ledger::new().page("pod"));
        pod.is_ready();
        pod
    }

    /// Starts one that writes down on this page what is delivered to it; does not wait for it.
    pub(crate) fn begin(life: &Life, page: Page) -> Self {
        let life = serde_json::to_string(&life).expect("it is JSON");
        let (said, says) = pipe().expect("a pipe");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pod"));
        command.arg(life).stdout(says);
        let (process, asks) = Process::spawn_with_input(&mut command).expect("the pod starts");
        // Reading ends with the pod once nobody else can write.
        drop(command);
        let (answered, answers) = channel();
        let reader = thread::spawn(move || listen(said, &answered, &page));
        Self { process, asks, answers, reader }
    }

    /// Waits until it shows what there is.
    pub(crate) fn is_ready(&mut self) {
        assert!(matches!(self.answer(), Answered::Ready));
    }

    fn ask(&mut self, asked: &Asked) -> Answered {
        self.tell(asked);
        self.answer()
    }

    fn tell(&mut self, asked: &Asked) {
        let line = serde_json::to_string(asked).expect("it is JSON");
        writeln!(self.asks, "{line}").expect("the pod listens");
    }

    fn answer(&mut self) -> Answered {
        self.answers.recv().expect("the pod answers; if it ended, it said why on its standard error")
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

    /// Has it run the consumer, or stand by to.
    pub(crate) fn consume(&mut self, how: Consuming) {
        self.begin_to_consume(how);
        self.consumes();
    }

    /// As [`consume`](Self::consume); does not wait for its answer.
    pub(crate) fn begin_to_consume(&mut self, how: Consuming) {
        self.tell(&Asked::Consume(how));
    }

    /// Waits until the consumer is registered that it was to run.
    pub(crate) fn consumes(&mut self) {
        assert!(matches!(self.answer(), Answered::Consumes));
    }

    /// Lets handlers end that wait with this text.
    pub(crate) fn let_go(&mut self, text: &str) {
        assert!(matches!(self.ask(&Asked::LetGo(text.to_owned())), Answered::LetGo));
    }

    /// Waits until it owns the consumer; answers under which term.
    pub(crate) fn owns(&mut self) -> u64 {
        match self.ask(&Asked::Owns) {
            Answered::Owns(term) => term,
            other => panic!("the pod answered {other:?}"),
        }
    }

    /// Waits until it knows that it does not own the consumer.
    pub(crate) fn stands_by(&mut self) {
        assert!(matches!(self.ask(&Asked::StandsBy), Answered::StandsBy));
    }

    /// Waits until it has committed up to this offset.
    pub(crate) fn commits(&mut self, offset: u64) {
        assert!(matches!(self.ask(&Asked::Commits(offset)), Answered::Commits));
    }

    /// How the consumer is stored.
    pub(crate) fn consumer(&mut self) -> Stored {
        self.try_consumer().unwrap_or_else(|why| panic!("the consumer cannot be looked at: {why}"))
    }

    /// As [`consumer`](Self::consumer); or why the server does not say.
    pub(crate) fn try_consumer(&mut self) -> Result<Stored, String> {
        match self.ask(&Asked::Consumer) {
            Answered::Consumer(stored) => stored,
            other => panic!("the pod answered {other:?}"),
        }
    }

    /// Ends it as `kill -9` does; everything it has said is in the ledger then.
    pub(crate) fn kill(mut self) {
        self.process.kill();
        self.reader.join().expect("the reader does not panic");
    }

    pub(crate) fn leave(mut self) {
        assert!(matches!(self.ask(&Asked::Leave), Answered::Left));
    }
}

/// Sorts what a pod says, until it ends.
fn listen(said: PipeReader, answers: &Sender<Answered>, page: &Page) {
    for line in BufReader::new(said).lines() {
        let line = line.expect("the pipe can be read");
        let said =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("the pod said `{line}`: {error}"));
        match said {
            // Whoever asked may have failed meanwhile.
            Said::Answered(answered) => answers.send(answered).unwrap_or_default(),
            Said::Delivered(delivered) => page.delivered(delivered),
            Said::Handled(handled) => page.handled(handled),
        }
    }
}
