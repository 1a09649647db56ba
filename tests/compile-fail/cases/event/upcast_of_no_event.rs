use via_backplane::Event;

#[derive(serde::Serialize, serde::Deserialize)]
struct PostedV1 {
    body: String,
}

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted", version = 2, upcast = PostedV1)]
struct Posted {
    body: String,
}

impl From<PostedV1> for Posted {
    fn from(old: PostedV1) -> Self {
        Self { body: old.body }
    }
}

fn main() {}
