use via::prelude::*;

#[derive(State)]
enum Room {
    Open,
<<<<<<< HEAD
=======
    Closed,
>>>>>>> tools
}

fn main() {}
