//! Everything this crate promises, from outside.

mod engine;
