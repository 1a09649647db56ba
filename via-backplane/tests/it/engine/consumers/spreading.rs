//! Consumers are spread over the pods that would run them.

use tokio::time::sleep;

use super::*;

const CONSUMERS: usize = 12;

async fn register_all(engine: &Engine) {
    for number in 0..CONSUMERS {
        let consumer =
            notes(engine).on_event(format!("note-{number}"), |_| async { Ok::<_, std::io::Error>(()) });
        consumer.await.expect("registered");
    }
}

/// How many consumers each pod runs, in order.
async fn loads(engine: &Engine) -> Vec<usize> {
    let mut owners = BTreeMap::new();
    for state in engine.consumers().await.expect("readable") {
        if let Some(owner) = state.owner {
            *owners.entry(owner).or_default() += 1;
        }
    }
    let mut loads: Vec<usize> = owners.into_values().collect();
    loads.sort_unstable();
    loads
}

/// After two leases the consumers are spread like this, and stay so.
async fn are_spread(engine: &Engine, wanted: &[usize]) {
    sleep(LEASE * 2).await;
    for _ in 0..60 {
        assert_eq!(loads(engine).await, wanted);
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn pods_that_come_and_go_leave_consumers_evenly_spread() {
    let memory = InMemory::new();
    let one = pod(&memory);
    register_all(&one).await;
    are_spread(&one, &[12]).await;
    let (two, three) = (pod(&memory), pod(&memory));
    register_all(&two).await;
    register_all(&three).await;
    are_spread(&one, &[4, 4, 4]).await;
    let four = pod(&memory);
    register_all(&four).await;
    are_spread(&one, &[3, 3, 3, 3]).await;
    stop(&two).await;
    are_spread(&one, &[4, 4, 4]).await;
    kill(&three).await;
    are_spread(&one, &[6, 6]).await;
    stop(&four).await;
    are_spread(&one, &[12]).await;
    stop(&one).await;
}
