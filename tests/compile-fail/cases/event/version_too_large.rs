use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted", version = 4294967296)]
struct ChatPosted {
    body: String,
}

fn main() {}
