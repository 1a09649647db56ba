//! Reads what a server says about itself over its monitoring port.
//!
//! The answers are JSON; the three facts needed of them are found by their names, without a parser.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// A server on this machine that does not answer within this is busy starting, or stopped.
const PATIENCE: Duration = Duration::from_secs(2);

/// True once the server accepts clients and its JetStream has caught up.
pub(crate) fn is_healthy(port: u16) -> bool {
    get(port, "/healthz")
        .is_ok_and(|answer| answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"))
}

/// The name of the server that leads the cluster's JetStream, as this one sees it.
pub(crate) fn meta_leader(port: u16) -> Option<String> {
    let answer = get(port, "/jsz").ok()?;
    let (_, cluster) = answer.split_once("\"meta_cluster\"")?;
    // Only this object has the field: no stream is listed without being asked for.
    value(cluster, "leader")
}

/// The name of the server that leads a stream, as this one sees it.
pub(crate) fn stream_leader(port: u16, stream: &str) -> Option<String> {
    let answer = get(port, "/jsz?accounts=true&streams=true").ok()?;
    leader_of(&answer, stream)
}

/// A stream's object begins with its name and creation time, then its cluster; its state always follows.
fn leader_of(answer: &str, stream: &str) -> Option<String> {
    let mut rest = answer;
    loop {
        let (before, after) = rest.split_once("\"created\"")?;
        if last_value(before, "name").as_deref() == Some(stream) {
            let (cluster, _) = after.split_once("\"state\"")?;
            return value(cluster, "leader");
        }
        rest = after;
    }
}

/// The first text value of this name.
fn value(json: &str, name: &str) -> Option<String> {
    let (_, after) = json.split_once(&format!("\"{name}\":"))?;
    text(after)
}

/// The last text value of this name.
fn last_value(json: &str, name: &str) -> Option<String> {
    let (_, after) = json.rsplit_once(&format!("\"{name}\":"))?;
    text(after)
}

fn text(json: &str) -> Option<String> {
    let (value, _) = json.trim_start().strip_prefix('"')?.split_once('"')?;
    Some(value.to_owned())
}

fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::leader_of;

    const ANSWER: &str = r#"{ "config": { "store_dir": "/x" }, "meta_cluster": { "name": "via", "leader": "n3" },
      "account_details": [ { "name": "$G", "id": "$G", "stream_detail": [
        { "name": "a", "created": "2026", "cluster": { "name": "via", "leader": "n1", "replicas": [ { "name": "n2" } ] },
          "state": { "messages": 0 } },
        { "name": "b", "created": "2026", "cluster": { "name": "via", "replicas": [ { "name": "n2" } ] },
          "state": { "messages": 0 } },
        { "name": "c", "created": "2026", "cluster": { "name": "via", "leader": "n2" }, "state": {} } ] } ] }"#;

    #[test]
    fn a_stream_is_led_by_its_own_leader() {
        assert_eq!(leader_of(ANSWER, "a").as_deref(), Some("n1"));
        assert_eq!(leader_of(ANSWER, "c").as_deref(), Some("n2"));
    }

    #[test]
    fn a_stream_without_a_leader_takes_no_other_ones() {
        assert_eq!(leader_of(ANSWER, "b"), None);
        assert_eq!(leader_of(ANSWER, "d"), None);
    }
}
