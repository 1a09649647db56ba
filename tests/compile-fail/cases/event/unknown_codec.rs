use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted", codec = "yaml")]
struct ChatPosted {
    body: String,
}

fn main() {}
