//! Two writers, a dead one, lost answers: between any two calls.

use std::pin::{Pin, pin};

use super::*;

/// Long beyond every delay between repeats.
const LONG: Duration = Duration::from_secs(3600);

/// Two whole snapshots, and a third to be written by somebody who will not manage.
struct Scene {
    name: &'static str,
    before: usize,
    third: Draft,
}

fn scenes() -> [Scene; 5] {
    [
        Scene { name: "chunked", before: LARGE, third: draft(30, LARGE) },
        Scene { name: "inline", before: SMALL, third: draft(30, SMALL) },
        Scene { name: "grows", before: SMALL, third: draft(30, LARGE) },
        Scene { name: "shrinks", before: LARGE, third: draft(30, SMALL) },
        Scene { name: "another version", before: LARGE, third: of_version(2, draft(30, LARGE)) },
    ]
}

impl Scene {
    /// A store in which every call of a write has something to do: a claim of a writer that died is there as well.
    async fn set(&self) -> Pod {
        let pod = with_two(self.before).await;
        if self.before > SMALL {
            let dying = Pod::new(pod.store.another().script(3, Fault::Die));
            let died = tokio::time::timeout(LONG, dying.write(&draft(25, LARGE))).await;
            assert!(died.is_err(), "it died");
        }
        pod
    }

    /// How many calls writing the third takes.
    async fn calls(&self) -> usize {
        let pod = self.set().await.another();
        pod.written(&self.third).await;
        pod.store.calls()
    }
}

/// What was there is whole, a fresh writer succeeds, and twice is enough to leave nothing behind.
async fn recovers(pod: &Pod, version: u32, what: &str) {
    let before = pod.whole().await;
    assert!(before == [30, 20] || before == [20, 10], "{what}: {before:?}");
    for covered in [40, 50] {
        pod.written(&of_version(version, draft(covered, LARGE))).await;
    }
    assert_eq!(pod.whole().await[..2], [50, 40], "{what}");
    pod.no_garbage().await;
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_dies_between_any_two_calls_loses_nothing_and_leaves_nothing() {
    for scene in scenes() {
        for call in 0..scene.calls().await {
            for fault in [Fault::Die, Fault::DieAfter] {
                let pod = scene.set().await;
                let dying = Pod::new(pod.store.another().script(call, fault));
                let died = tokio::time::timeout(LONG, dying.write(&scene.third)).await;
                assert!(died.is_err(), "{} {call} {fault:?}: it lived", scene.name);
                let what = format!("{} {call} {fault:?}", scene.name);
                recovers(&pod, scene.third.state.version, &what).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_or_an_outage_at_any_call_loses_nothing_and_leaves_nothing() {
    for scene in scenes() {
        for call in 0..scene.calls().await {
            for fault in [Fault::LoseAck, Fault::LoseRequest, Fault::Fail, Fault::Lag] {
                let pod = scene.set().await;
                let unlucky = Pod::new(pod.store.another().script(call, fault));
                let what = format!("{} {call} {fault:?}", scene.name);
                let outcome = unlucky.write(&scene.third).await;
                match (&outcome, fault) {
                    (Ok(Outcome::Written { .. }), _) => {
                        assert_eq!(pod.whole().await[..2], [30, 20], "{what}");
                    }
                    (Err(_), Fault::Fail) => {}
                    // A load that lags may show a claim that is gone, or a chunk as missing that is there.
                    (Err(WriteError::Unreadable { .. }), Fault::Lag) => {}
                    other => panic!("{what}: {other:?}"),
                }
                recovers(&pod, scene.third.state.version, &what).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_begins_at_any_call_loses_nothing_and_leaves_nothing() {
    for scene in scenes() {
        for call in 0..scene.calls().await {
            for fault in [Fault::LoseAck, Fault::LoseRequest, Fault::Fail] {
                let pod = scene.set().await;
                let unlucky = Pod::new(pod.store.another().from(call, fault));
                let what = format!("{} from {call} {fault:?}", scene.name);
                tokio::time::timeout(LONG, unlucky.write(&scene.third)).await.expect("it ends").ok();
                recovers(&pod, scene.third.state.version, &what).await;
            }
        }
    }
}

/// Polls a write until its pod's pause, or its end.
async fn until_paused<T>(mut write: Pin<&mut impl Future<Output = T>>, pod: &Pod) -> Option<T> {
    tokio::select! {
        biased;
        done = &mut write => Some(done),
        () = pod.store.paused() => None,
    }
}

/// The first writer runs up to its pause, the second one up to its own, then the first to its end, then the second.
async fn interleave(pods: [&Pod; 2], drafts: [&Draft; 2]) -> [Result<Outcome, WriteError>; 2] {
    let mut first = pin!(pods[0].write(drafts[0]));
    let mut second = pin!(pods[1].write(drafts[1]));
    let mut done =
        [until_paused(first.as_mut(), pods[0]).await, until_paused(second.as_mut(), pods[1]).await];
    pods.iter().for_each(|pod| pod.store.resume());
    let first = match done[0].take() {
        Some(first) => first,
        None => first.await,
    };
    let second = match done[1].take() {
        Some(second) => second,
        None => second.await,
    };
    [first, second]
}

#[tokio::test(start_paused = true)]
async fn of_two_writers_at_once_one_wins_and_nothing_is_mixed_or_left() {
    for scene in scenes() {
        let calls = scene.calls().await;
        for (overtaken, until) in (0..calls).flat_map(|call| (1..=calls).map(move |until| (call, until))) {
            let pod = scene.set().await;
            let slow = Pod::new(pod.store.another().script(overtaken, Fault::Pause));
            let fast = Pod::new(pod.store.another().script(until, Fault::Pause));
            let other = Draft {
                bytes: state(31, scene.third.bytes.len()),
                covered: cursor(31),
                ..scene.third.clone()
            };
            let outcomes = Box::pin(interleave([&slow, &fast], [&scene.third, &other])).await;
            let what = format!("{} {overtaken} {until}: {outcomes:?}", scene.name);
            let won = |outcome: &Result<Outcome, _>| matches!(outcome, Ok(Outcome::Written { .. }));
            assert!(outcomes.iter().any(won), "{what}");
            let is_fair = |outcome: &Result<Outcome, _>| {
                matches!(
                    outcome,
                    Ok(Outcome::Written { .. } | Outcome::LostClaim | Outcome::Superseded { .. })
                )
            };
            assert!(outcomes.iter().all(is_fair), "{what}");
            let expected: &[u64] = match [won(&outcomes[0]), won(&outcomes[1])] {
                [true, true] => &[31, 30],
                [true, false] => &[30, 20],
                _ => &[31, 20],
            };
            assert_eq!(pod.whole().await[..2], *expected, "{what}");
            for covered in [40, 50] {
                pod.written(&Draft {
                    covered: cursor(covered),
                    bytes: state(covered, LARGE),
                    ..other.clone()
                })
                .await;
            }
            pod.no_garbage().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_zombie_commits_nothing_and_cleans_up() {
    let awake = with_two(LARGE).await.another();
    awake.written(&draft(25, LARGE)).await;
    for call in 0..awake.store.calls() {
        let pod = with_two(LARGE).await;
        let zombie = Pod::new(pod.store.another().script(call, Fault::Pause));
        let draft_25 = draft(25, LARGE);
        let (outcome, ()) = tokio::join!(zombie.write(&draft_25), async {
            zombie.store.paused().await;
            for covered in [30, 40, 50] {
                pod.written(&draft(covered, LARGE)).await;
            }
            zombie.store.resume();
        });
        let outcome = outcome.expect("an outcome");
        let is_fair = match &outcome {
            Outcome::Superseded { .. } | Outcome::LostClaim => true,
            // It fell asleep after its commit.
            Outcome::Written { generation, .. } => *generation == Generation(3) && call > 5,
            _ => false,
        };
        assert!(is_fair, "{call}: {outcome:?}");
        assert_eq!(pod.whole().await, [50, 40], "{call}");
        pod.no_garbage().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_stays_unknown_deletes_nothing() {
    let pod = with_two(LARGE).await;
    // After load, claim and three chunks.
    let commit = 5;
    let unlucky =
        Pod::new(pod.store.another().script(commit, Fault::LoseAck).script(commit + 1, Fault::Pause));
    let third = draft(30, LARGE);
    let (outcome, ()) = tokio::join!(unlucky.write(&third), async {
        unlucky.store.paused().await;
        pod.written(&draft(40, LARGE)).await;
        unlucky.store.resume();
    });
    let error = outcome.expect_err("nobody knows");
    assert!(matches!(error, WriteError::Manifest(OwnedError::Unknown(_))), "{error:?}");
    assert_eq!(error.retry(), Retry::MayDuplicate);
    assert_eq!(pod.whole().await, [40, 30], "it had been committed");
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_comes_between_claim_and_commit_costs_the_commit_and_stays() {
    let pod = with_two(LARGE).await;
    // After load and claim.
    let slow = Pod::new(pod.store.another().script(2, Fault::Pause));
    let draft = draft(30, LARGE);
    let (outcome, ()) = tokio::join!(slow.write(&draft), async {
        slow.store.paused().await;
        pod.snapshots().hold_undecodable(EPOCH, Offset(25)).await.expect("held");
        slow.store.resume();
    });
    assert_eq!(outcome.expect("an outcome"), Outcome::LostClaim);
    let manifest = pod.manifest().await;
    assert_eq!(manifest.notes(EPOCH).map(|notes| notes.undecodable().collect()), Some(vec![Offset(25)]));
    assert_eq!(manifest.claim, None, "the next writer need not wait");
    pod.written(&Draft { displaces: Generation::default(), ..draft }).await;
    pod.no_garbage().await;
}
