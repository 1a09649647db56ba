//! `cargo xtask …`: every command a person or CI runs.
//!
//! It uses the standard library alone, and one member that does too, so that it is there seconds after a clone.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a command line tool has to say goes to the terminal"
)]

mod chromium;
mod cluster;
mod debian;
mod haproxy;
mod lint;
mod nats;
mod picture;
mod python;
mod steps;
mod tally;
mod test;
mod workspace;

use std::process::ExitCode;

use steps::Steps;

const COMMANDS: &str = "\
cargo xtask install   installs what the tests need where it is missing: Chromium, nats-server, HAProxy, packages for Python
cargo xtask test      the same, then runs every test
cargo xtask lint      rustfmt, clippy, rustdoc and cargo-deny, warnings refused
cargo xtask ci        what CI runs: the lockfile, test, lint, cluster --check
cargo xtask cluster   runs the chat on three pods over three NATS servers, behind a proxy, until Ctrl-C;
                      with --check kills them one by one while browsers click, and proves that nothing was lost
cargo xtask picture   takes the README's picture, docs/chat.png, in Chromium";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut steps = Steps::new();
    match arguments[..] {
        ["install"] => {
            test::install(&mut steps);
            steps.print();
        }
        ["test"] => {
            let tally = test::run(&mut steps);
            steps.print();
            // Scripts read the last line, so nothing may follow it.
            println!("{tally}");
        }
        ["lint"] => {
            lint::run(&mut steps);
            steps.print();
        }
        ["ci"] => {
            steps.run("lockfile and sources", workspace::cargo(["fetch", "--locked"]));
            let tally = test::run(&mut steps);
            lint::run(&mut steps);
            cluster::check(&mut steps);
            steps.print();
            println!("{tally}");
        }
        ["cluster"] => cluster::show(&mut steps),
        ["cluster", "--check"] => {
            test::install(&mut steps);
            cluster::check(&mut steps);
            steps.print();
        }
        ["picture"] => picture::run(&mut steps),
        [] | ["help" | "--help" | "-h"] => println!("{COMMANDS}"),
        _ => {
            eprintln!("unknown command `{}`; the commands are:\n{COMMANDS}", arguments.join(" "));
            return ExitCode::FAILURE;
        }
    }
    if steps.all_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
