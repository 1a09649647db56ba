use via_backplane::{Fold, FoldState, Recorded};

struct Shipped;

#[derive(Default, Clone)]
struct Orders(u64);

impl Fold<Orders> for Shipped {
    fn fold(self, orders: &mut Orders, _at: &Recorded) {
        orders.0 += 1;
    }
}

fn keeps<S: FoldState, E: Fold<S>>() {}

fn main() {
    keeps::<Orders, Shipped>();
}
