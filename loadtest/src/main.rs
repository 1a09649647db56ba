//! Load and comparison programs. Every figure stands beside a raw baseline of the same run.
//!
//! `cargo run --release -p loadtest -- fold --json`

mod alloc;
mod fold;
mod median;

use clap::{Parser, Subcommand};

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
}

fn main() {
    match Arguments::parse().what {
        What::Fold(arguments) => fold::run(&arguments),
    }
}
