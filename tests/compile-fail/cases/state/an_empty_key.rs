use via::prelude::*;

#[derive(State)]
struct Room {
    #[state(key = "")]
    visits: StateApp<u64>,
}

fn main() {}
