//! What pods survive that are processes of their own.

mod paused;
mod process;
