//! The engine as a whole, over the in-memory backplane.

mod simulation;
