//! What keeps records, and how far they may be dropped.

use super::*;

const FAR: Offset = Offset(1_000);

async fn confirm(pod: &Pod, limit: Offset) -> Option<Offset> {
    let manifest = pod.manifest().await;
    let checked: Vec<Generation> = manifest.snapshots().into_iter().map(Snapshot::generation).collect();
    pod.snapshots().confirm_compaction(EPOCH, limit, &checked).await.expect("an answer")
}

/// Confirms by the snapshots that [`with_two`] wrote.
async fn confirm_both(pod: &Pod) -> Option<Offset> {
    let checked = [Generation(1), Generation(2)];
    pod.snapshots().confirm_compaction(EPOCH, FAR, &checked).await.expect("an answer")
}

async fn hold(pod: &Pod, offset: u64) -> Hold {
    pod.snapshots().hold_undecodable(EPOCH, Offset(offset)).await.expect("an answer")
}

#[tokio::test]
async fn a_key_compacts_below_its_previous_snapshot_and_the_ceiling() {
    let pod = Pod::new(store());
    assert_eq!(confirm(&pod, FAR).await, None, "there is no snapshot");
    pod.written(&draft(10, SMALL)).await;
    assert_eq!(confirm(&pod, FAR).await, None, "there is only one");
    pod.written(&draft(20, SMALL)).await;
    assert_eq!(confirm(&pod, Offset(0)).await, None);
    assert_eq!(confirm(&pod, Offset(1)).await, None, "there is no record below");
    assert_eq!(confirm(&pod, Offset(7)).await, Some(Offset(7)));
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(11)));
}

#[tokio::test]
async fn asking_again_answers_the_same_and_writes_nothing() {
    let pod = with_two(SMALL).await;
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(11)));
    let held = pod.snapshots().manifest().await.expect("it loads").expect("there is one");
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(11)));
    assert_eq!(pod.snapshots().manifest().await.expect("it loads"), Some(held));
}

#[tokio::test]
async fn snapshots_that_nobody_checked_against_the_log_allow_nothing() {
    let pod = with_two(SMALL).await;
    for checked in [&[][..], &[Generation(1)], &[Generation(2)], &[Generation(7)]] {
        let confirmed = pod.snapshots().confirm_compaction(EPOCH, FAR, checked).await;
        assert_eq!(confirmed.expect("an answer"), None, "{checked:?}");
    }
    let elsewhere = pod.snapshots().confirm_compaction(Epoch(9), FAR, &[Generation(1), Generation(2)]).await;
    assert_eq!(elsewhere.expect("an answer"), None);
}

#[tokio::test]
async fn a_held_record_stays_until_it_was_folded() {
    let pod = with_two(SMALL).await;
    assert_eq!(hold(&pod, 8).await, Hold::Held);
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(8)));
    pod.written(&Draft { clears_holds_up_to: Some(Offset(7)), ..draft(30, SMALL) }).await;
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(8)));
    pod.written(&Draft { clears_holds_up_to: Some(Offset(8)), ..draft(40, LARGE) }).await;
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(31)));
}

#[tokio::test]
async fn what_may_be_gone_can_no_longer_be_held() {
    let pod = with_two(SMALL).await;
    confirm(&pod, FAR).await;
    assert_eq!(hold(&pod, 10).await, Hold::TooLate);
    assert_eq!(hold(&pod, 11).await, Hold::Held);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_overtakes_a_confirmation_is_respected() {
    for call in 0..3 {
        let pod = with_two(SMALL).await;
        let slow = Pod::new(pod.store.another().script(call, Fault::Pause));
        let (confirmed, held) = tokio::join!(confirm_both(&slow), async {
            slow.store.paused().await;
            let held = hold(&pod, 5).await;
            slow.store.resume();
            held
        });
        assert_eq!((confirmed, held), (Some(Offset(5)), Hold::Held), "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_a_confirmation_overtakes_is_too_late() {
    for call in 0..2 {
        let pod = with_two(SMALL).await;
        let slow = Pod::new(pod.store.another().script(call, Fault::Pause));
        let (held, confirmed) = tokio::join!(hold(&slow, 5), async {
            slow.store.paused().await;
            let confirmed = confirm_both(&pod).await;
            slow.store.resume();
            confirmed
        });
        assert_eq!((confirmed, held), (Some(Offset(11)), Hold::TooLate), "{call}");
    }
}

#[tokio::test]
async fn an_accepted_loss_holds_nothing_and_is_remembered_as_long_as_it_may_be_met() {
    let pod = Pod::new(store());
    assert_eq!(hold(&pod, 8).await, Hold::Held);
    pod.snapshots().accept_loss(EPOCH, Offset(8)).await.expect("accepted");
    assert_eq!(hold(&pod, 8).await, Hold::Accepted);
    for covered in [10, 20] {
        pod.written(&draft(covered, SMALL)).await;
    }
    pod.snapshots().accept_loss(EPOCH, Offset(8)).await.expect("accepted already");
    let accepted = async || {
        let manifest = pod.manifest().await;
        manifest.notes(EPOCH).is_some_and(|notes| notes.has_accepted(Offset(8)))
    };
    assert_eq!(confirm(&pod, Offset(8)).await, Some(Offset(8)));
    assert!(accepted().await, "its record is there");
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(11)));
    assert!(!accepted().await, "its record may be gone");
}

#[tokio::test]
async fn the_head_stays_and_so_does_its_accepted_loss() {
    let pod = Pod::new(store());
    pod.snapshots().accept_loss(EPOCH, Offset(5)).await.expect("accepted");
    for covered in [10, 20] {
        pod.written(&Draft { key_head: cursor(5), ..draft(covered, SMALL) }).await;
    }
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(11)));
    assert!(pod.manifest().await.notes(EPOCH).is_some_and(|notes| notes.has_accepted(Offset(5))));
}

#[tokio::test]
async fn what_a_snapshot_has_is_not_lost() {
    let pod = with_two(SMALL).await;
    for offset in [8, 20] {
        let refused = pod.snapshots().accept_loss(EPOCH, Offset(offset)).await;
        let folded = Refused::Folded { covered: Offset(20) };
        assert!(matches!(&refused, Err(ChangeError::Rejected(reason)) if *reason == folded), "{refused:?}");
    }
    pod.snapshots().accept_loss(EPOCH, Offset(21)).await.expect("nothing has it");
    pod.snapshots().accept_loss(Epoch(9), Offset(8)).await.expect("it is of another log");
}

#[tokio::test]
async fn too_many_accepted_losses_are_refused() {
    let pod = Pod::new(MapStore::new());
    let snapshots = Snapshots::of(&pod.store, &pod.chance, &key(), 1 << 20, WINDOW);
    for offset in 1..=256 {
        snapshots.accept_loss(EPOCH, Offset(offset)).await.expect("accepted");
    }
    let refused = snapshots.accept_loss(EPOCH, Offset(257)).await;
    assert!(matches!(refused, Err(ChangeError::Rejected(Refused::TooMany))), "{refused:?}");
}

#[tokio::test]
async fn a_divergence_keeps_everything_until_it_is_cleared() {
    let pod = with_two(SMALL).await;
    pod.snapshots().hold_diverged(EPOCH, Offset(15)).await.expect("held");
    assert_eq!(pod.manifest().await.notes(EPOCH).and_then(LogNotes::diverged), Some(Offset(15)));
    assert_eq!(confirm(&pod, FAR).await, None);
    pod.snapshots().clear_diverged(EPOCH).await.expect("cleared");
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(11)));
}

#[tokio::test]
async fn clearing_what_was_never_held_writes_nothing() {
    let pod = Pod::new(store());
    pod.snapshots().clear_diverged(EPOCH).await.expect("nothing to clear");
    assert!(pod.store.names().is_empty());
}

#[tokio::test]
async fn holds_of_one_epoch_hold_nothing_in_another() {
    let pod = with_two(SMALL).await;
    pod.snapshots().hold_undecodable(Epoch(9), Offset(5)).await.expect("held");
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(11)));
}

#[tokio::test]
async fn the_previous_version_holds_until_its_window_ends() {
    let pod = with_two(LARGE).await;
    for covered in [30, 40, 50] {
        pod.written(&of_version(2, draft(covered, LARGE))).await;
    }
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(21)));
    pod.store.remove(&Names::of(&key()).rollback());
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(41)));
    assert_eq!(pod.whole().await, [50, 40]);
    let probe = pod.store.ttl(&Names::of(&key()).rollback());
    assert_eq!(probe, Some(Ttl::For(Duration::from_secs(1))), "it found the window over");
    pod.written(&of_version(2, draft(60, LARGE))).await;
    pod.no_garbage().await;
}

#[tokio::test]
async fn a_probe_does_not_shorten_the_next_window() {
    let pod = with_two(LARGE).await;
    pod.written(&of_version(2, draft(30, LARGE))).await;
    pod.store.remove(&Names::of(&key()).rollback());
    confirm(&pod, FAR).await;
    pod.written(&of_version(3, draft(40, LARGE))).await;
    assert_eq!(pod.store.ttl(&Names::of(&key()).rollback()), Some(Ttl::For(WINDOW)));
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_answer_is_lost_ends_no_window() {
    let pod = with_two(LARGE).await;
    pod.written(&of_version(2, draft(30, LARGE))).await;
    let checked = [Generation(2), Generation(3)];
    for fault in [Fault::LoseAck, Fault::LoseRequest] {
        let unlucky = Pod::new(pod.store.another().script(1, fault));
        let confirmed = unlucky.snapshots().confirm_compaction(EPOCH, FAR, &checked).await;
        assert_eq!(confirmed.expect("an answer"), Some(Offset(21)), "{fault:?}");
        assert!(pod.manifest().await.rollback().is_some());
    }
}

#[tokio::test]
async fn what_was_confirmed_of_a_log_that_was_put_back_is_forgotten() {
    let pod = with_two(SMALL).await;
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(11)));
    pod.snapshots().accept_loss(EPOCH, Offset(25)).await.expect("accepted");
    // The log went back to offset 4, and goes on with other records; its epoch is the same.
    let refuted = vec![Generation(1), Generation(2)];
    pod.written(&Draft { refuted, ..draft(6, SMALL) }).await;
    assert_eq!(confirm(&pod, FAR).await, None);
    assert_eq!(hold(&pod, 5).await, Hold::Held);
    assert_eq!(hold(&pod, 25).await, Hold::Held, "it is another record");
    pod.written(&Draft { clears_holds_up_to: Some(Offset(5)), ..draft(8, SMALL) }).await;
    assert_eq!(confirm(&pod, FAR).await, Some(Offset(7)));
}
