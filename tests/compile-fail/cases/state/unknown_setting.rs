use via::prelude::*;

#[derive(State)]
struct Room {
    #[state(name = "chat.visits")]
    visits: StateApp<u64>,
}

fn main() {}
