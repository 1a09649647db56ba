//! What a record is: the envelope, the payload codecs and the derive, from outside.

#[path = "records/codecs.rs"]
mod codecs;
#[path = "records/derive.rs"]
mod derive;
#[path = "records/envelope.rs"]
mod envelope;
#[path = "records/golden.rs"]
mod golden;
#[path = "records/order.rs"]
mod order;
