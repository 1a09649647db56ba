use via::prelude::*;

#[derive(State)]
struct Room {
    draft: Signal<Vec<String>>,
}

fn main() {}
