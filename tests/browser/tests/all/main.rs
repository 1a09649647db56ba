//! Chromium tests: one binary, so that everything is linked once.

mod harness;
mod http;
mod live;
mod pod;
mod readme;
mod room;
mod script;
mod site;
