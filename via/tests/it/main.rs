//! What pages promise, over HTTP.

mod app;
mod bad_input;
mod frames;
mod support;
