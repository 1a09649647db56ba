use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted", version = 1)]
struct PostedV1 {
    body: String,
}

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted", version = 2, upcast = PostedV1)]
struct Posted {
    from: String,
    body: String,
}

fn main() {}
