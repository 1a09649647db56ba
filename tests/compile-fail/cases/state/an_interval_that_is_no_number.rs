use via::prelude::*;

#[derive(State)]
struct Room {
    #[state(snapshot_interval = 0)]
    visits: StateApp<u64>,
}

fn main() {}
