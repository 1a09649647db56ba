//! The chat as a process: where it listens, what it answers, and how it ends.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Output},
};

use support::{Program, between, connect};

mod support;

fn chat() -> Program {
    Program::start(&mut command("127.0.0.1:0"))
}

fn command(addr: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat"));
    command.env("VIA_ADDR", addr);
    command
}

/// Runs a chat that is expected to fail.
fn failing(addr: &str) -> (Output, String) {
    let output = command(addr).output().expect("the chat runs");
    let said = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    (output, said)
}

#[test]
fn a_line_said_in_one_window_reaches_the_stream_of_another() {
    let chat = chat();
    let page = chat.get("/");
    let cookie = between(&page, "set-cookie: ", ";");
    let tab = between(&page, "<meta name=\"via-tab\" content=\"", "\"");
    let frame = between(&page, "<meta name=\"via-frame\" content=\"", "\"");
    let token = between(&page, "@act('", "'").to_owned();
    let head = format!("host: x\r\ncookie: {cookie}\r\nvia-tab: {tab}\r\n");
    let mut stream = BufReader::new(connect(
        &chat.addr,
        &format!("GET /?_via=stream HTTP/1.1\r\n{head}via-frame: {frame}\r\n\r\n"),
    ));

    let said = r#"{"name":"Ann","draft":" Hello & welcome "}"#;
    let answer = chat.ask(&format!(
        "POST /?_via=act HTTP/1.1\r\n{head}origin: http://x\r\nvia-token: {token}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{said}",
        said.len()
    ));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.ends_with(r#"{"code":"ok","clear":{"draft":""}}"#), "{answer}");

    let mut line = String::new();
    while !line.contains("Hello") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).expect("a line in time"), 0, "the stream ended");
    }
    assert!(line.contains("<strong>Ann</strong> <span>Hello &amp; welcome</span>"), "{line}");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_cleanly_with_a_stream_open() {
    let mut chat = chat();
    let page = chat.get("/");
    let (cookie, tab) =
        (between(&page, "set-cookie: ", ";"), between(&page, "<meta name=\"via-tab\" content=\"", "\""));
    let mut stream = connect(
        &chat.addr,
        &format!("GET /?_via=stream HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\nvia-tab: {tab}\r\n\r\n"),
    );
    let mut first = [0; 16];
    stream.read_exact(&mut first).expect("the stream is open");
    let killed =
        Command::new("kill").args(["-TERM", &chat.process.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the stream ends");
    let status = chat.process.wait().expect("it ends");
    assert!(status.success(), "{status}");
    assert!(rest.contains("retry: 1000"), "it says to come back: {rest}");
}

#[test]
fn an_address_in_use_is_one_line_and_exit_code_1() {
    let chat = chat();
    let (output, said) = failing(&chat.addr);
    assert_eq!(said, format!("Error: cannot listen on {}: the address is in use\n", chat.addr));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_bad_address_is_one_line_and_exit_code_1() {
    for addr in ["", "nonsense", "127.0.0.1:99999"] {
        let (output, said) = failing(addr);
        assert_eq!(
            said,
            format!("Error: `{addr}` is not an address to listen on: write one such as 127.0.0.1:3000\n")
        );
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn a_bad_backplane_is_one_line_that_names_the_choices() {
    let output = command("127.0.0.1:0").env("VIA_BACKPLANE", "postgres://x").output().expect("the chat runs");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(
        said,
        "Error: VIA_BACKPLANE is `postgres://x`: write `memory`, or the addresses of NATS servers such as \
         `nats://127.0.0.1:4222`, separated by commas\n"
    );
    assert_eq!(output.status.code(), Some(1));
}
