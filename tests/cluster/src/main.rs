//! `cargo xtask cluster`: three NATS servers, three chats and a proxy without stickiness, on loopback.
//!
//! `--check` drives them: processes are killed while browsers click and appends go on, and everything that was
//! acknowledged is looked up at the end.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a command line tool has to say goes to the terminal"
)]

mod check;
mod demo;
mod http;
mod ledger;
mod pod;
mod proxy;
mod visitors;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;

use futures_util::FutureExt;
use tokio::signal::unix::{SignalKind, signal};

use demo::Demo;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (chat, is_check) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [chat] => (Path::new(chat), false),
        [chat, "--check"] => (Path::new(chat), true),
        _ => {
            eprintln!("usage: cluster <the chat to run> [--check]; `cargo xtask cluster` gives it the chat");
            return ExitCode::FAILURE;
        }
    };
    let mut demo = match Demo::start(chat) {
        Ok(demo) => demo,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let passed = tokio::select! {
        biased;
        () = told_to_stop() => !is_check,
        passed = run(&mut demo, is_check) => passed,
    };
    if passed {
        println!("stopping");
        demo.stop();
        return ExitCode::SUCCESS;
    }
    eprintln!("FAILED; what everything logged is in {}", demo.keep_logs().display());
    ExitCode::FAILURE
}

async fn run(demo: &mut Demo, is_check: bool) -> bool {
    if !is_check {
        println!("{demo}\nCtrl-C stops everything.");
        return std::future::pending().await;
    }
    // What a browser does not show within its patience is a panic, as in any test of it.
    match AssertUnwindSafe(check::run(demo)).catch_unwind().await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            eprintln!("error: {error}");
            false
        }
        Err(_) => false,
    }
}

/// Ctrl-C, a closed terminal, or somebody's `kill`.
async fn told_to_stop() {
    let listen = |kind| signal(kind).expect("a process may listen for its signals");
    let (mut interrupt, mut terminate, mut hangup) =
        (listen(SignalKind::interrupt()), listen(SignalKind::terminate()), listen(SignalKind::hangup()));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
