use serde::{Deserialize, Serialize};
use via_backplane::{Fold, Recorded, state};

struct Shipped;

#[derive(Deserialize)]
struct OrdersV1(u32);

#[derive(Default, Clone, Serialize, Deserialize)]
struct Orders(u64);

impl From<OrdersV1> for Orders {
    fn from(OrdersV1(number): OrdersV1) -> Self {
        Self(number.into())
    }
}

#[state(version = 2, migrate())]
impl Fold<Orders> for Shipped {
    fn fold(self, orders: &mut Orders, _at: &Recorded) {
        orders.0 += 1;
    }
}

fn main() {}
