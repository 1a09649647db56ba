//! Load and comparison programs. Every figure stands beside a raw baseline of the same run.
//!
//! `cargo run --release -p loadtest -- fold --json`; `docs/benchmarks.md` describes each of them.

mod alloc;
mod append;
mod cold_start;
mod consume;
mod converge;
mod cpu;
mod fold;
mod instances;
mod latency;
mod median;
mod print;
mod recorder;
mod snapshot;
mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use target::Failure;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

#[derive(Parser)]
#[command(about = "Measures via beside raw baselines")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Append to folded, in memory, on one pod.
    Fold(fold::Arguments),
    /// Appends to JetStream, beside async-nats alone.
    Append(append::Arguments),
    /// A fresh pod until it is live, beside an ordered push consumer of async-nats alone.
    ColdStart(cold_start::Arguments),
    /// Append in one process until another one sees it, beside publish and receive of async-nats alone.
    Converge(converge::Arguments),
    /// A consumer over a log that is there, beside its fold; and what its events wait when its pod is gone.
    Consume(consume::Arguments),
    /// What writing snapshots of a large state does to the latency of a fold.
    Snapshot(snapshot::Arguments),
    /// A family with many more instances than a pod keeps.
    Instances(instances::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Fold(arguments) => {
            fold::run(&arguments);
            Ok(())
        }
        What::Append(arguments) => append::run(&arguments),
        What::ColdStart(arguments) => cold_start::run(&arguments),
        What::Converge(arguments) => converge::run(&arguments),
        What::Consume(arguments) => consume::run(&arguments),
        What::Snapshot(arguments) => snapshot::run(&arguments),
        What::Instances(arguments) => instances::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&*failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    let mut said = format!("error: {failure}");
    let mut source = failure.source();
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    print::progress(&said);
    ExitCode::FAILURE
}
