//! A few fixed pages on a loopback port, for the tests of the harness itself.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Serves its pages until the test's process ends; whatever else is asked for is a 404.
pub(crate) struct Site {
    address: SocketAddr,
}

/// What one path answers.
pub(crate) struct Answer {
    /// Besides length and type; each ends with a line break.
    pub(crate) headers: &'static str,
    pub(crate) body: &'static str,
}

impl Site {
    pub(crate) fn serve(pages: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let pages: Arc<HashMap<_, _>> = Arc::new(pages.into_iter().collect());
        // A thread per connection: Chromium opens some that it never says anything on.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let pages = Arc::clone(&pages);
                thread::spawn(move || answer(stream, &pages).ok());
            }
        });
        Self { address }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn answer(mut stream: TcpStream, pages: &HashMap<&str, Answer>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The browser resets a connection that is closed before its request was read.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, headers, body) = match pages.get(path) {
        Some(Answer { headers, body }) => ("200 OK", *headers, *body),
        None => ("404 Not Found", "", ""),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\nconnection: close\r\n\
         content-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}
