use via_backplane::state;

#[derive(Default, Clone, serde::Serialize, serde::Deserialize)]
#[state(version = 2)]
struct Orders(u64);

fn main() {}
