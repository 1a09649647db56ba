//! What the examples share: the backplane, chosen by whoever runs them.

pub mod backplane;
