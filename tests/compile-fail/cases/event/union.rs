use via_backplane::Event;

#[derive(Event)]
#[event(name = "chat.posted")]
union Posted {
    number: u64,
    bytes: [u8; 8],
}

fn main() {}
