use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
struct ChatPosted {
    body: String,
}

fn main() {}
