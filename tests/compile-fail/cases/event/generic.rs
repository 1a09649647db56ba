use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted")]
struct Posted<T> {
    body: T,
}

fn main() {}
