use via::prelude::*;

#[derive(State)]
struct Room {
    drafts: Signal<Vec<String>>,
}

fn main() {}
