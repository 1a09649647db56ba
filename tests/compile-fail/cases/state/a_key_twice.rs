use via::prelude::*;

#[derive(State)]
struct Room {
    #[state(key = "a", key = "b")]
    visits: StateApp<u64>,
}

fn main() {}
