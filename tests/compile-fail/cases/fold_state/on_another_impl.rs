use via_backplane::state;

struct Orders(u64);

#[state(version = 2)]
impl Default for Orders {
    fn default() -> Self {
        Self(0)
    }
}

fn main() {}
