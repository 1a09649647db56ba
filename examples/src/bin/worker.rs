//! The engine with no web page: a stock of parts that never goes below zero.
//!
//! `cargo run --bin worker`. What runs here in memory runs the same over a cluster: only the backplane differs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use via_backplane::{DecideError, Engine, Event, Fold, Recorded, Waited};
use via_inmem::InMemory;

const GRACE: Duration = Duration::from_secs(5);

/// What can happen to the stock.
#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "stock.moved", version = 1)]
enum Moved {
    In { part: String, count: u32 },
    Out { part: String, count: u32 },
}

/// How many there are of each part.
type Stock = BTreeMap<String, u32>;

/// Pure: the same events in the same order give the same stock on every pod.
impl Fold<Stock> for Moved {
    fn fold(self, stock: &mut Stock, _at: &Recorded) {
        match self {
            Moved::In { part, count } => *stock.entry(part).or_default() += count,
            Moved::Out { part, count } => *stock.entry(part).or_default() -= count,
        }
    }
}

/// Takes parts out, if there are enough *now*: nobody else's order can come in between.
fn take(part: &str, count: u32) -> impl FnMut(&Stock) -> Result<Vec<Moved>, String> {
    move |stock| match stock.get(part) {
        Some(there) if *there >= count => Ok(vec![Moved::Out { part: part.into(), count }]),
        there => Err(format!("{count} {part} wanted, {} there", there.unwrap_or(&0))),
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "it is a command-line program")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::start(Arc::new(InMemory::new()));
    let stock = engine.events::<Moved, Stock>("stock")?;

    // An append answers where the event stands, and a reader can wait for that.
    let delivered = stock.append(Moved::In { part: "bolts".into(), count: 10 }).await?;
    let waited = stock.wait_for(&delivered, GRACE).await;
    assert!(matches!(waited, Waited::Reached), "{waited:?}");
    println!("delivered: {:?}", *stock.loaded().await);

    // Two orders at once, and bolts for one of them: the state decides, not the clock.
    let (one, two) = tokio::join!(stock.decide(take("bolts", 7)), stock.decide(take("bolts", 7)));
    for order in [one, two] {
        match order {
            Ok(_) => println!("an order was shipped"),
            Err(DecideError::Rejected(why)) => println!("an order was refused: {why}"),
            Err(error) => return Err(error.into()),
        }
    }
    println!("left: {:?}", *stock.loaded().await);

    engine.shutdown(GRACE).await?;
    Ok(())
}
