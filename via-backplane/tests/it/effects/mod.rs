//! Side effects under a seed: several pods run one consumer, in paused time, and crash, stand still and lose answers.
//!
//! Every run is decided by its seed. One that fails says which command repeats it.

mod ledger;
mod rules;
mod seeds;
mod world;
