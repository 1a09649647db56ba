//! What pods survive that are processes of their own.

mod consumers;
mod disk;
mod ledger;
mod paused;
mod process;
