//! One GET, for what is not a browser's to ask.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What answers on this machine answers in less, or is down.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// A header's value, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(given, value)| given.eq_ignore_ascii_case(name).then_some(value))
    }
}

/// Asks for a path, over HTTP/1.0 so that the answer ends with the connection and has no chunks.
pub(crate) fn get(addr: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {addr}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer"))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_answer_has_a_status_headers_and_a_body() {
        let answer = parse("HTTP/1.0 200 OK\r\nVia-Pod: pod-2\r\n\r\n<p>\r\n\r\n</p>").expect("it is one");
        assert_eq!((answer.status, answer.header("via-pod")), (200, Some("pod-2")));
        assert_eq!(answer.body, "<p>\r\n\r\n</p>");
        assert!(parse("nonsense").is_none());
    }
}
