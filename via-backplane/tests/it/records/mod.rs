//! What a record is: the envelope, the payload codecs and the derive, from outside.

mod codecs;
mod derive;
mod envelope;
mod evolution;
mod golden;
mod order;
