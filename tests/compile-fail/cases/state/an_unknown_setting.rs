use via::prelude::*;

#[derive(State)]
struct Room {
    #[state(name = "visits")]
    visits: StateApp<u64>,
}

fn main() {}
