//! Each rule of PROTOCOL §1 and §6 is needed: a scenario holds with it, and does not when it is switched off.

use std::{future::Future, time::Duration};

use tokio::time::sleep;
use via_backplane::Rules;

use super::{
    facts::{Book as _, Noted, Tag},
    faults::Fault,
    stage::{self, Stage},
    world::{self, Setup},
};

/// Plays a scenario with every rule, and with one of them off: then it `breaks` in this way.
pub(crate) fn is_needed<F>(off: Rules, breaks: &str, scenario: impl Fn(Stage) -> F)
where
    F: Future<Output = Result<(), String>>,
{
    assert_ne!(off, Rules::ALL, "one rule is switched off");
    let play = |rules| stage::play(rules, &scenario);
    assert_eq!(play(Rules::ALL), Ok(()), "the scenario holds with every rule");
    assert_eq!(play(off), Err(breaks.to_owned()), "without the rule the scenario breaks");
}

#[test]
fn section_1_a_changed_epoch_discards_the_projection() {
    is_needed(
        Rules { compare_epochs: false, ..Rules::ALL },
        "the pod shows Some([1, 2]), the log holds []",
        |stage| async move {
            let pod = stage.enter(1).await;
            pod.append(1).await;
            pod.append(2).await;
            pod.shows(&[1, 2]).await?;
            stage.memory.recreate_log(&stage.family());
            pod.shows(&[]).await?;
            pod.leave().await;
            Ok(())
        },
    );
}

#[test]
fn section_1_a_tail_compares_the_record_it_stands_on() {
    is_needed(
        Rules { compare_record_ids: false, ..Rules::ALL },
        "the pod shows Some([1, 2, 3, 6]), the log holds [1, 4, 5, 6]",
        |stage| async move {
            let (pod, other) = (stage.enter(1).await, stage.enter(2).await);
            pod.append(1).await;
            let older = stage.memory.copy_log(&stage.family());
            pod.append(2).await;
            pod.append(3).await;
            pod.shows(&[1, 2, 3]).await?;
            // The same epoch, and soon the same offsets: only the records themselves are others.
            stage.memory.restore_log(&older);
            for op in 4..7 {
                other.append(op).await;
            }
            pod.shows(&[1, 4, 5, 6]).await?;
            other.shows(&[1, 4, 5, 6]).await?;
            pod.leave().await;
            other.leave().await;
            Ok(())
        },
    );
}

#[test]
fn section_1_an_expectation_is_of_the_epoch_it_was_decided_in() {
    is_needed(
        Rules { expect_epochs: false, ..Rules::ALL },
        "decided on [1], the log holds [2]",
        |stage| async move {
            let (pod, other) = (stage.enter(1).await, stage.enter(2).await);
            pod.append(1).await;
            pod.shows(&[1]).await?;
            // Nobody waits from here to the decision, so this pod cannot have noticed. The key's head is where it was.
            stage.memory.recreate_log(&stage.family());
            other.append(2).await;
            let mut decided_on = Vec::new();
            let decision = pod.notes.decide(|book| {
                decided_on = book.lines().iter().map(|line| line.tag.op).collect();
                Ok::<_, ()>(vec![Noted { tag: Tag { op: 3, index: 0 } }])
            });
            decision.await.expect("this pod folds the new log soon enough");
            if decided_on != [2] {
                return Err(format!("decided on {decided_on:?}, the log holds [2]"));
            }
            pod.shows(&[2, 3]).await?;
            pod.leave().await;
            other.leave().await;
            Ok(())
        },
    );
}

#[test]
fn section_6_a_writer_knows_its_own_nonce() {
    is_needed(Rules { resolve_by_nonce: false, ..Rules::ALL }, "the cell holds [1, 1]", |stage| async move {
        let pod = stage.enter(1).await;
        stage.link.lose_next_ack();
        assert!(pod.count(1).await, "nobody hid that the update took place");
        let held = pod.holds(&[1]);
        pod.leave().await;
        held
    });
}

#[test]
fn section_6_an_update_that_may_have_happened_is_never_run_again() {
    is_needed(
        Rules { report_unknown_updates: false, ..Rules::ALL },
        "the cell holds [1, 2, 1]",
        |stage| async move {
            let (pod, other) = (stage.enter(1).await, stage.enter(2).await);
            stage.link.lose_next_ack();
            // The first write lands, and the second one hides its nonce before its writer looks again.
            let overwritten = async {
                sleep(Duration::from_millis(5)).await;
                other.count(2).await
            };
            let (acknowledged, other_acknowledged) = tokio::join!(pod.count(1), overwritten);
            let held = pod.holds(&[1, 2]);
            assert!(other_acknowledged, "nothing went wrong with the second update");
            assert!(held.is_err() || !acknowledged, "the first update cannot know that it took place");
            pod.leave().await;
            other.leave().await;
            held
        },
    );
}

#[test]
fn section_6_an_append_is_repeated_only_with_an_id() {
    is_needed(
        Rules { repeat_only_with_id: false, ..Rules::ALL },
        "the pod shows Some([1, 1, 2]), the log holds [1, 2]",
        |stage| async move {
            let pod = stage.enter(1).await;
            stage.link.lose_next_ack();
            let acknowledged = pod.append(1).await;
            pod.append(2).await;
            pod.shows(&[1, 2]).await?;
            assert!(!acknowledged, "the append cannot know that it took place");
            pod.leave().await;
            Ok(())
        },
    );
}

/// The seeds find it too: a rule that is off breaks the invariant it is there for, and no scenario was written for it.
fn seeds_miss_it(off: Rules, fault: Fault, invariant: &str) {
    let breaks = |seed| {
        let run = world::run(Setup { seed, fault, rules: off });
        run.violations.iter().any(|violation| violation.contains(invariant))
    };
    assert!((0..100).any(breaks), "no seed shows that the rule is needed");
}

#[test]
fn seeds_miss_the_records_ids() {
    let off = Rules { compare_record_ids: false, ..Rules::ALL };
    seeds_miss_it(off, Fault::Replaced, "is not what its records fold to");
}

#[test]
fn seeds_miss_the_nonce() {
    let off = Rules { resolve_by_nonce: false, ..Rules::ALL };
    seeds_miss_it(off, Fault::LostAck, "is in it 2 times");
}

#[test]
fn seeds_miss_the_report_of_unknown_updates() {
    let off = Rules { report_unknown_updates: false, ..Rules::ALL };
    seeds_miss_it(off, Fault::LostAck, "is in it 2 times");
}

#[test]
fn seeds_miss_the_rule_about_repeats() {
    let off = Rules { repeat_only_with_id: false, ..Rules::ALL };
    seeds_miss_it(off, Fault::LostAck, "is in the log more than once");
}
