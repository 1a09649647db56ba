//! What pages promise, over HTTP.

mod app;
mod bad_input;
mod evolution;
mod frames;
mod support;
