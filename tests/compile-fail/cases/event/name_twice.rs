use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted")]
#[event(name = "chat.said")]
struct ChatPosted {
    body: String,
}

fn main() {}
