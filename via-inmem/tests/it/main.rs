//! The in-memory backplane keeps its promises, and so does the fault wrapper around it.

mod conformance;
mod faults;
