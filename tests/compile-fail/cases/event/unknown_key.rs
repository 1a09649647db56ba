use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted", since = 2)]
struct ChatPosted {
    body: String,
}

fn main() {}
