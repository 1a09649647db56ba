use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted", version = 2, upcast = Posted)]
struct Posted {
    body: String,
}

fn main() {}
