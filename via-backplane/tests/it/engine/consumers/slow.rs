//! Handlers that take longer than records take to come.

use tokio::sync::Semaphore;

use super::*;
use crate::engine::outages::Refusing;

/// Longer than an owner keeps a tail that it does not read from.
const LONG_ENOUGH: Duration = Duration::from_secs(15);
/// The state's, the dead letters' and the consumer's own.
const TAILS: usize = 3;

#[tokio::test(start_paused = true)]
async fn a_tail_that_is_not_read_from_is_let_go_of_and_nothing_is_missed() {
    let backplane = Refusing::new();
    let engine = Engine::builder(backplane.clone()).deterministic().start();
    let notes = notes(&engine);
    for text in ["one", "two", "three"] {
        append(&notes, text).await;
    }
    let (ledger, may_end) = (Ledger::new(), Arc::new(Semaphore::new(0)));
    let (given, waits) = (ledger.clone(), may_end.clone());
    let handler = move |delivery: Delivery<Noted>| {
        given.note("pod", &delivery);
        let waits = waits.clone();
        async move { waits.acquire().await.map(|one| one.forget()) }
    };
    // An owner has so many events in hand at a time, and a batch has more.
    let registered = notes.on_event("note", handler).commit_every(1, Duration::from_millis(100));
    let consumer = registered.await.expect("registered");
    ledger.holds(1).await;
    timeout(LONG, backplane.has_tails(TAILS)).await.expect("it has one of its own");
    timeout(LONG_ENOUGH, backplane.has_tails(TAILS - 1)).await.expect("it lets go of it");
    assert!(engine.health().disconnected.is_empty(), "nothing is wrong with it");
    // What follows is read by another one, which stays where nothing is left to handle.
    let last = append(&notes, "four").await;
    may_end.add_permits(10);
    commits(&consumer, last).await;
    timeout(LONG, backplane.has_tails(TAILS)).await.expect("it has another one");
    timeout(LONG_ENOUGH, backplane.has_tails(TAILS - 1)).await.expect_err("it waits for what comes");
    assert_eq!(ledger.texts(), ["one", "two", "three", "four"]);
    let last = append(&notes, "five").await;
    commits(&consumer, last).await;
    stop(&engine).await;
}
