use via::prelude::*;

#[derive(State)]
enum Room {
    Open,
    Closed,
}

fn main() {}
