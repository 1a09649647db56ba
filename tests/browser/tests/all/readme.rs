//! What the README promises, word for word.

use std::path::{Path, PathBuf};
use std::process::Command;

use browser_tests::Served;

use crate::http::Client;

#[test]
fn the_first_command_serves_a_chat_that_works_over_http() {
    let chat = Served::start(first_command("127.0.0.1:0"));
    let mut ada = Client::at(chat.url());
    let mut grace = Client::at(chat.url());

    let page = ada.get("/", &[]);
    assert_eq!(page.status, 200);
    let page = page.text();
    let (tab, send) = (meta(&page, "via-tab"), token(&page));

    let theirs = grace.get("/", &[]).text();
    let (their_tab, frame) = (meta(&theirs, "via-tab"), meta(&theirs, "via-frame"));
    let mut stream = grace.get("/?_via=stream", &[("via-tab", their_tab), ("via-frame", frame)]);
    assert_eq!(stream.status, 200);

    let headers = [("content-type", "application/json"), ("via-tab", tab), ("via-token", send)];
    let sent = ada.post("/?_via=act", &headers, r#"{"name": "Ada", "draft": "over plain HTTP"}"#);
    let (status, answer) = (sent.status, sent.text());
    assert_eq!(status, 200, "{answer}");
    let patch = stream.read_until("over plain HTTP");
    assert!(patch.contains("Ada"), "{patch}");

    // Nobody signed this one.
    let forged: String = send.chars().rev().collect();
    let headers = [("content-type", "application/json"), ("via-tab", tab), ("via-token", forged.as_str())];
    assert_eq!(ada.post("/?_via=act", &headers, r#"{"name": "Eve", "draft": "forged"}"#).status, 403);
    let page = grace.get("/", &[]).text();
    assert!(page.contains("over plain HTTP") && !page.contains("forged"), "{page}");

    assert!(chat.stop().success(), "the chat stops cleanly on Ctrl-C, with a stream open");
}

#[test]
fn an_address_that_is_none_is_one_clear_line() {
    let output = first_command("nonsense").arg("--quiet").output().expect("cargo starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("nonsense"), "{said}");
}

#[test]
fn an_address_in_use_is_one_clear_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let address = taken.local_addr().expect("a bound listener has an address").to_string();
    let output = first_command(&address).arg("--quiet").output().expect("cargo starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&address), "{said}");
}

/// The command in the README's first block, to listen here.
fn first_command(address: &str) -> Command {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("there is a README");
    let (_, block) = readme.split_once("```sh\n").expect("the README has a command");
    let mut words = block.lines().next().expect("the block has a line").split(' ');
    let mut command = Command::new(words.next().expect("the line has a word"));
    command.args(words).current_dir(root()).env("VIA_ADDR", address);
    command
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The content of a `<meta name=… content=…>`.
fn meta<'a>(page: &'a str, name: &str) -> &'a str {
    between(page, &format!("<meta name=\"{name}\" content=\""), "\"")
}

/// The token of the page's first action.
fn token(page: &str) -> &str {
    between(page, "@act('", "'")
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(after));
    found.unwrap_or_else(|| panic!("there is no `{before}…{after}` in {text}")).0
}
