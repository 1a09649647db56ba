//! The steps of a command: run, timed, and listed at the end.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// What has been run so far, in order.
pub(crate) struct Steps {
    done: Vec<Step>,
}

struct Step {
    name: String,
    took: Duration,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// It could not do its work; something else will fail because of that, and say so better.
    Missing,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { done: Vec::new() }
    }

    /// Runs a command with its output shown; false if it fails or cannot be started.
    pub(crate) fn run(&mut self, name: &str, command: Command) -> bool {
        self.watch(name, command, |_| {})
    }

    /// As [`Steps::run`], and hands each line of output to `line` as well.
    pub(crate) fn watch(&mut self, name: &str, command: Command, line: impl FnMut(&str)) -> bool {
        let outcome = |passed: bool| if passed { Outcome::Passed } else { Outcome::Failed };
        self.time(name, || outcome(show(command, line))) == Outcome::Passed
    }

    /// Times the installation of something; its error is printed, and only its users fail.
    pub(crate) fn install(&mut self, name: &str, work: impl FnOnce() -> Result<(), String>) {
        self.time(name, || match work() {
            Ok(()) => Outcome::Passed,
            Err(message) => {
                println!("warning: {message}");
                Outcome::Missing
            }
        });
    }

    /// Times something done here rather than by a command; its error is printed, and it has failed.
    pub(crate) fn work(&mut self, name: &str, work: impl FnOnce() -> Result<(), String>) -> bool {
        let outcome = self.time(name, || match work() {
            Ok(()) => Outcome::Passed,
            Err(message) => {
                println!("error: {message}");
                Outcome::Failed
            }
        });
        outcome == Outcome::Passed
    }

    pub(crate) fn all_passed(&self) -> bool {
        self.done.iter().all(|step| step.outcome != Outcome::Failed)
    }

    /// Prints every step with its seconds.
    pub(crate) fn print(&self) {
        println!("\nseconds  outcome  step");
        for step in &self.done {
            println!("{:>7.1}  {}  {}", step.took.as_secs_f64(), step.outcome, step.name);
        }
        let total: Duration = self.done.iter().map(|step| step.took).sum();
        println!("{:>7.1}           in all\n", total.as_secs_f64());
    }

    fn time(&mut self, name: &str, work: impl FnOnce() -> Outcome) -> Outcome {
        println!("\n==> {name}");
        let start = Instant::now();
        let outcome = work();
        let took = start.elapsed();
        println!("<== {name}: {} in {:.1} s", outcome.to_string().trim_end(), took.as_secs_f64());
        self.done.push(Step { name: name.to_owned(), took, outcome });
        outcome
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Passed => "passed ",
            Self::Failed => "FAILED ",
            Self::Missing => "missing",
        })
    }
}

fn show(mut command: Command, mut line: impl FnMut(&str)) -> bool {
    match stream(&mut command, &mut line) {
        Ok(status) if status.success() => true,
        Ok(status) => {
            println!("error: {status}: {command:?}");
            false
        }
        Err(error) => {
            println!("error: {error}: {command:?}");
            false
        }
    }
}

/// Shows what a command prints, line by line as it comes, and hands it on.
fn stream(command: &mut Command, line: &mut impl FnMut(&str)) -> std::io::Result<ExitStatus> {
    // One pipe for both streams keeps the lines of cargo (stderr) and of the tests (stdout) in order.
    let (output, input) = std::io::pipe()?;
    let mut child: Child = command.stdout(input.try_clone()?).stderr(input).spawn()?;
    // The command holds the pipe's other end until it is replaced; reading would never end.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());

    let mut output = BufReader::new(output);
    let mut bytes = Vec::new();
    while output.read_until(b'\n', &mut bytes)? > 0 {
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches(['\n', '\r']);
        println!("{text}");
        line(text);
        bytes.clear();
    }
    std::io::stdout().flush()?;
    child.wait()
}
