use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted", version = 0)]
struct ChatPosted {
    body: String,
}

fn main() {}
