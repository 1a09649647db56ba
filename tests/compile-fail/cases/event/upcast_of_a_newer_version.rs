use via_backplane::Event;

mod old {
    #[derive(serde::Serialize, serde::Deserialize, via_backplane::Event)]
    #[event(name = "chat.posted", version = 2)]
    pub struct Posted {
        pub body: String,
    }
}

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted", version = 2, upcast = old::Posted)]
struct Posted {
    body: String,
}

impl From<old::Posted> for Posted {
    fn from(old: old::Posted) -> Self {
        Self { body: old.body }
    }
}

fn main() {}
