//! Everything this crate promises, from outside.

mod crash_matrix;
mod crashes;
mod effects;
mod engine;
mod golden_file;
mod records;
mod simulation;
mod whole_history;
