use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = " ")]
struct ChatPosted {
    body: String,
}

fn main() {}
