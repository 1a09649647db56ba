use via::prelude::*;

#[derive(State)]
struct Room {
    #[state(key = "visits", key = "chat.visits")]
    visits: StateApp<u64>,
}

fn main() {}
