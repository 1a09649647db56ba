use via_backplane::{Fold, Recorded, state};

struct Shipped;

#[state(version = 2)]
impl Fold<u64> for Shipped {
    const STATE_VERSION: u32 = 3;

    fn fold(self, orders: &mut u64, _at: &Recorded) {
        *orders += 1;
    }
}

fn main() {}
