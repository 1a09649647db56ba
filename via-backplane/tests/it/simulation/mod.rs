//! The engine under a seed: several pods over one memory, in paused time, with one kind of fault after the other.
//!
//! Every run is decided by its seed. A run that fails says which command repeats it; see
//! `docs/decisions/simulation.md` for what the simulation can and cannot show.

mod accounts;
pub(crate) mod chance;
mod facts;
mod faults;
mod findings;
mod history;
mod invariants;
mod log;
mod pod;
mod rules;
mod rules_of_snapshots;
mod seeds;
mod stage;
pub(crate) mod trace;
mod witness;
mod workload;
mod world;
