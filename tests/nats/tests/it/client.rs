//! A NATS client of a dozen lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nats_servers::wait_for;

/// Far more than any answer here takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    /// What the server said first.
    pub(crate) info: String,
}

impl Client {
    /// Connects, with a subscription to `inbox.>`.
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::connect_or_none(addr).expect("the server greets")
    }

    /// Nothing if nobody accepts, or the connection is closed at once.
    pub(crate) fn connect_or_none(addr: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(addr).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut client = Self { stream: BufReader::new(stream), info: String::new() };
        client.info = client.line_or_end()?;
        client.say("CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB inbox.> 1\r\nPING\r\n");
        assert_eq!(client.line(), "PONG\r\n");
        Some(client)
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).expect("it is sent");
    }

    pub(crate) fn publish(&mut self, subject: &str, reply: &str, body: &str) {
        self.say(&format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len()));
    }

    /// Asks, and returns the answer's subject and body.
    pub(crate) fn ask(&mut self, subject: &str, reply: &str, body: &str) -> (String, String) {
        self.publish(subject, reply, body);
        self.message()
    }

    /// Appends to a stream; asks again while the servers have not yet told each other who takes it.
    pub(crate) fn append(&mut self, subject: &str, reply: &str, body: &str) -> String {
        let acked = wait_for(PATIENCE, || {
            let (_, answer) = self.ask(subject, reply, body);
            (!answer.starts_with("NATS/1.0 503")).then_some(answer)
        });
        acked.expect("somebody takes it")
    }

    /// The next message's subject and body.
    pub(crate) fn message(&mut self) -> (String, String) {
        loop {
            let line = self.line();
            if line == "PING\r\n" {
                self.say("PONG\r\n");
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            // A message with headers is the server's own: nobody listens to what was asked.
            assert!(matches!(words.first(), Some(&("MSG" | "HMSG"))), "{line}");
            let length: usize = words.last().and_then(|word| word.parse().ok()).expect("a length");
            let mut body = vec![0; length + 2];
            self.stream.read_exact(&mut body).expect("the message");
            return (words[1].to_owned(), String::from_utf8_lossy(&body[..length]).into_owned());
        }
    }

    /// Nothing if the connection was cut.
    pub(crate) fn line_or_end(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).unwrap_or(0);
        (read > 0).then_some(line)
    }

    fn line(&mut self) -> String {
        self.line_or_end().expect("the connection is open")
    }

    /// Makes a stream of this name that keeps what is published to subjects below it.
    pub(crate) fn make_stream(&mut self, name: &str, replicas: usize) {
        let config = format!(r#"{{"name":"{name}","subjects":["{name}.>"],"num_replicas":{replicas}}}"#);
        let (_, answer) = self.ask(&format!("$JS.API.STREAM.CREATE.{name}"), "inbox.make", &config);
        assert!(!answer.contains("\"error\""), "{answer}");
    }
}
