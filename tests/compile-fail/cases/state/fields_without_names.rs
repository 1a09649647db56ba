use via::prelude::*;

#[derive(State)]
struct Room(StateApp<u64>);

fn main() {}
