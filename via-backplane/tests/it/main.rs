//! Everything this crate promises, from outside.

mod engine;
mod golden_file;
mod records;
mod simulation;
