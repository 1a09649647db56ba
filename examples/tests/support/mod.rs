//! An example as a process, and what is asked of it over HTTP.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running program, killed when the test ends early.
pub(crate) struct Program {
    pub(crate) process: Child,
    // Kept open: a program whose output nobody takes must not be told by a broken pipe.
    _output: BufReader<ChildStdout>,
    pub(crate) addr: String,
}

impl Program {
    /// Starts it, and waits until it says where it listens.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut output = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let addr =
            line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { process, _output: output, addr }
    }

    /// What it answers, head and body; the request asks for the connection to be closed.
    pub(crate) fn ask(&self, request: &str) -> String {
        ask(&self.addr, request)
    }

    pub(crate) fn get(&self, path: &str) -> String {
        get(&self.addr, path)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.process.kill().ok(); // It may have ended, which is what most tests want.
        self.process.wait().ok();
    }
}

/// What is answered to a GET at an address.
pub(crate) fn get(addr: &str, path: &str) -> String {
    ask(addr, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
}

fn ask(addr: &str, request: &str) -> String {
    let mut answer = String::new();
    connect(addr, request).read_to_string(&mut answer).expect("an answer");
    answer
}

/// A connection on which a request was sent.
pub(crate) fn connect(addr: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("a request is sent");
    stream
}

/// What stands between two texts, the first time.
pub(crate) fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(after));
    found.unwrap_or_else(|| panic!("there is no `{before}…{after}` in {text}")).0
}
