//! The demo by itself: what it prints is there, and Ctrl-C ends all of it.

use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nats_servers::{Process, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// Where something listens, from its address.
fn listens(url: &str) -> Option<TcpStream> {
    let (_, at) = url.trim_end_matches('/').split_once("://").expect("an address");
    TcpStream::connect(at).ok()
}

fn get(url: &str) -> String {
    let mut stream = listens(url).unwrap_or_else(|| panic!("nobody listens at {url}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.write_all(b"GET / HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n").expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn ctrl_c_stops_everything_it_printed() {
    let program = Path::new(env!("CARGO_BIN_EXE_cluster"));
    let chat = program.with_file_name("chat");
    assert!(chat.is_file(), "there is no {}: `cargo build --bin chat` makes it", chat.display());
    let (says, said) = pipe().expect("a pipe");
    let mut command = Command::new(program);
    command.arg(&chat).stdout(said);
    let mut demo = Process::spawn(&mut command).unwrap_or_else(|error| panic!("{error}"));
    // Reading ends with the demo once nobody else can write.
    drop(command);
    let mut lines = BufReader::new(says).lines().map(|line| line.expect("UTF-8"));
    let printed: Vec<String> = lines.by_ref().take_while(|line| !line.starts_with("Ctrl-C")).collect();
    let urls = |of: &str| -> Vec<&str> {
        let of_these = printed.iter().filter(|line| line.starts_with(of));
        of_these
            .map(|line| line.split_whitespace().find(|word| word.contains("://")).expect("an address"))
            .collect()
    };
    let (open, pods, servers) = (urls("open "), urls("pod "), urls("server "));
    assert_eq!((open.len(), pods.len(), servers.len()), (1, 3, 3), "{printed:?}");
    for url in open.iter().chain(&pods) {
        assert!(get(url).contains("<h1>Chat</h1>"), "{url} serves no chat");
    }
    let everything: Vec<&str> = [open, pods, servers].concat();
    assert!(
        everything.iter().all(|url| url.contains("127.0.0.1") && listens(url).is_some()),
        "{everything:?}"
    );

    let told = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().expect("kill starts");
    assert!(told.success());
    let status = wait_for(PATIENCE, || demo.ended()).expect("it ends");
    assert!(status.success(), "{status}: {:?}", lines.collect::<Vec<_>>());
    let left: Vec<_> = everything.iter().filter(|url| listens(url).is_some()).collect();
    assert!(left.is_empty(), "{left:?} are still there");
}
