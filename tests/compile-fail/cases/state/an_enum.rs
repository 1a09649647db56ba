use via::prelude::*;

#[derive(State)]
enum Room {
    Open,
}

fn main() {}
