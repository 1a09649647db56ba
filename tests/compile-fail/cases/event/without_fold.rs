use via_backplane::{Event, Fold};

#[derive(Clone, serde::Serialize, serde::Deserialize, Event)]
#[event(name = "chat.posted")]
struct Posted {
    body: String,
}

fn folds_into<S, E: Event + Fold<S>>() {}

fn main() {
    folds_into::<Vec<Posted>, Posted>();
}
