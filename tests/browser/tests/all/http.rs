//! As little HTTP as it takes to be a browser without being one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One browser's side of a host: it keeps its cookie.
pub(crate) struct Client {
    authority: String,
    cookie: Option<String>,
}

/// A response whose head has been read.
pub(crate) struct Reply {
    pub(crate) status: u16,
    body: BufReader<TcpStream>,
}

impl Client {
    /// A new browser at this address, `http://127.0.0.1:3000/`.
    pub(crate) fn at(url: &str) -> Self {
        let authority = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Self { authority, cookie: None }
    }

    pub(crate) fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Reply {
        self.send("GET", target, headers, "")
    }

    pub(crate) fn post(&mut self, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        self.send("POST", target, headers, body)
    }

    fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut stream = TcpStream::connect(&self.authority).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("twenty seconds is a timeout");
        // HTTP/1.0, so that a body is what comes until the connection ends, and is in no chunks.
        let mut request = format!(
            "{method} {target} HTTP/1.0\r\nhost: {0}\r\norigin: http://{0}\r\nsec-fetch-site: same-origin\r\n\
             content-length: {1}\r\n",
            self.authority,
            body.len()
        );
        let cookie = self.cookie.iter().map(|cookie| ("cookie", cookie.as_str()));
        for (name, value) in headers.iter().copied().chain(cookie) {
            request += &format!("{name}: {value}\r\n");
        }
        write!(stream, "{request}\r\n{body}").expect("the server reads the request");
        self.read_head(BufReader::new(stream))
    }

    fn read_head(&mut self, mut body: BufReader<TcpStream>) -> Reply {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(
                body.read_line(&mut head).expect("the head is text") > 0,
                "the response ended in its head: {head}"
            );
        }
        for line in head.lines() {
            if let Some(cookie) = line.strip_prefix("set-cookie: ") {
                self.cookie = cookie.split(';').next().map(str::to_owned);
            }
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Reply { status: status.expect("a response starts with its status"), body }
    }
}

impl Reply {
    /// The whole body.
    pub(crate) fn text(mut self) -> String {
        let mut text = String::new();
        self.body.read_to_string(&mut text).expect("the body is text");
        text
    }

    /// Reads a stream on until a line contains this.
    pub(crate) fn read_until(&mut self, needle: &str) -> String {
        let mut text = String::new();
        while !text.contains(needle) {
            let read = self
                .body
                .read_line(&mut text)
                .unwrap_or_else(|error| panic!("no `{needle}`: {error}: {text}"));
            assert!(read > 0, "the stream ended without `{needle}`: {text}");
        }
        text
    }
}
