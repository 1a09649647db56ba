use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(version = 2)]
struct ChatPosted {
    body: String,
}

fn main() {}
