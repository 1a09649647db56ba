//! Deciding on the state an append will be made to.

use serde::{Deserialize, Serialize};
use via_backplane::{DecideError, Event, Events, Fold, Recorded};
use via_inmem::InMemory;

use super::{PATIENCE, noted, notes, start, stop, until};

#[derive(Serialize, Deserialize, Event)]
#[event(name = "test.taken")]
struct Taken {
    by: u32,
}

impl Fold<Vec<u32>> for Taken {
    fn fold(self, takers: &mut Vec<u32>, _at: &Recorded) {
        takers.push(self.by);
    }
}

async fn take(stock: &Events<Taken, Vec<u32>>, by: u32) -> Result<bool, DecideError<&'static str>> {
    let decided =
        stock.decide(|takers| if takers.len() < 10 { Ok(vec![Taken { by }]) } else { Err("sold out") });
    match decided.await {
        Ok(position) => Ok(position.is_some()),
        Err(DecideError::Rejected("sold out")) => Ok(false),
        Err(error) => Err(error),
    }
}

#[tokio::test]
async fn pods_that_race_never_oversell() {
    let memory = InMemory::new();
    let engines = [start(&memory), start(&memory), start(&memory)];
    let stocks = engines.each_ref().map(|engine| engine.events::<Taken, Vec<u32>>("stock").expect("valid"));
    let takes = (0..30_u32).map(|by| take(&stocks[by as usize % 3], by));
    let taken = futures_util::future::join_all(takes).await;
    let sold =
        taken.into_iter().map(|taken| taken.expect("every race is won by somebody")).filter(|sold| *sold);
    assert_eq!(sold.count(), 10);
    for (engine, stock) in engines.iter().zip(&stocks) {
        assert_eq!(stock.loaded().await.len(), 10);
        stop(engine).await;
    }
}

#[tokio::test]
async fn an_empty_decision_appends_nothing() {
    let engine = start(&InMemory::new());
    let stock = engine.events::<Taken, Vec<u32>>("stock").expect("valid");
    let decided = stock.decide(|_| Ok::<_, ()>(Vec::new())).await.expect("nothing can fail");
    assert_eq!(decided, None);
    stop(&engine).await;
}

#[tokio::test]
async fn a_decision_follows_a_recreated_log_even_where_the_key_has_no_record() {
    let memory = InMemory::new();
    let engine = start(&memory);
    let stock = engine.events::<Taken, Vec<u32>>("stock").expect("valid");
    for by in 0..3 {
        assert_eq!(stock.loaded().await.len(), 0);
        memory.recreate_log(stock.key().family());
        assert!(take(&stock, by).await.expect("the new log is noticed"), "there is stock");
        until(&stock, |takers| *takers == [by]).await;
        memory.recreate_log(stock.key().family());
        until(&stock, Vec::is_empty).await;
    }
    stop(&engine).await;
}

#[tokio::test]
async fn a_halted_key_decides_nothing() {
    let engine = start(&InMemory::new());
    let notes = notes(&engine);
    let bad = notes.append(noted("panic")).await.expect("memory takes every append");
    notes.wait_for(&bad, PATIENCE).await;
    until(&notes, |notes| notes.is_empty()).await;
    let error = notes.decide(|_| Ok::<_, ()>(vec![noted("on what?")])).await.expect_err("the key is halted");
    assert!(matches!(&error, DecideError::Halted(halt) if halt.at == bad.cursor.offset), "{error:?}");
    stop(&engine).await;
}
