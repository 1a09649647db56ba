//! Everything this crate promises, from outside.

mod engine;
mod records;
mod simulation;
