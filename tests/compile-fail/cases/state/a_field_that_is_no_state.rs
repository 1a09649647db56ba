use via::prelude::*;

#[derive(State)]
struct Room {
    visits: u64,
}

fn main() {}
