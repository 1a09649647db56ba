//! What pages promise, over HTTP.

mod app;
mod bad_input;
mod effects;
mod evolution;
mod frames;
mod support;
