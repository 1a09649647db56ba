use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.said", version = 1)]
struct Said {
    body: String,
}

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted", version = 2, upcast = Said)]
struct Posted {
    body: String,
}

impl From<Said> for Posted {
    fn from(said: Said) -> Self {
        Self { body: said.body }
    }
}

fn main() {}
