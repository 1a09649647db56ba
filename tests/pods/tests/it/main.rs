//! What pods survive that are processes of their own.

mod disk;
mod paused;
mod process;
