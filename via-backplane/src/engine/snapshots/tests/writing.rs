//! What is written, and what is not.

use super::*;

#[tokio::test]
async fn a_small_snapshot_is_one_cell_and_three_calls() {
    let pod = Pod::new(store());
    assert_eq!(pod.written(&draft(10, SMALL)).await, Generation(1));
    assert_eq!(pod.store.calls(), 3, "load, commit, read back");
    assert_eq!(pod.store.names(), ["via/snapshots/posts/plain"]);
    assert_eq!(pod.store.ttl(&manifest_cell()), Some(Ttl::Forever));
    assert_eq!(pod.whole().await, [10]);
}

#[tokio::test]
async fn a_large_snapshot_is_cut_into_cells() {
    let pod = Pod::new(store());
    pod.written(&draft(10, LARGE)).await;
    let chunks = ["via/chunks/posts/plain/1/0", "via/chunks/posts/plain/1/1", "via/chunks/posts/plain/1/2"];
    assert_eq!(pod.store.names()[..3], chunks);
    assert_eq!(pod.store.bytes(&chunk(1, 2)).expect("stored").len(), LARGE - 2 * MAX_CELL);
    assert_eq!(pod.whole().await, [10]);
    pod.no_garbage().await;
}

#[tokio::test]
async fn a_header_comes_back_as_it_was_written() {
    let pod = Pod::new(store());
    let mut first = draft(10, SMALL);
    first.key_head = Cursor::begin(EPOCH);
    pod.written(&first).await;
    let header = pod.manifest().await.current().expect("written").header();
    assert_eq!((header.covered, header.key_head), (cursor(10), Cursor::begin(EPOCH)));
    assert_eq!((header.state, header.len), (first.state, SMALL as u64));
    assert_eq!(header.digest[..], blake3::hash(&first.bytes).as_bytes()[..]);
}

#[tokio::test]
async fn current_and_previous_stay_and_what_they_displace_is_deleted() {
    for sizes in [[SMALL; 4], [LARGE; 4], [LARGE, SMALL, LARGE, SMALL], [0, LARGE, 0, SMALL]] {
        let pod = Pod::new(store());
        for (covered, len) in (1..).zip(sizes) {
            pod.written(&draft(covered * 10, len)).await;
            pod.no_garbage().await;
        }
        assert_eq!(pod.whole().await, [40, 30]);
    }
}

#[tokio::test]
async fn a_lagging_writer_is_superseded_and_writes_nothing() {
    let pod = with_two(LARGE).await;
    let before = (pod.manifest().await, pod.store.names());
    for covered in [5, 15, 20] {
        let outcome = pod.write(&draft(covered, LARGE)).await.expect("an outcome");
        let is_superseded = matches!(&outcome, Outcome::Superseded { by } if by.covered == cursor(20));
        assert!(is_superseded, "{outcome:?}");
    }
    assert_eq!((pod.manifest().await, pod.store.names()), before);
}

#[tokio::test]
async fn a_snapshot_beyond_the_most_chunks_is_refused_with_the_limit() {
    let pod = Pod::new(store());
    let limit = MAX_CELL * MAX_CHUNKS;
    let error = pod.write(&draft(10, limit + 1)).await.expect_err("too large");
    assert!(matches!(error, WriteError::TooLarge { limit: told, .. } if told == limit), "{error:?}");
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(pod.store.calls(), 0);
}

#[tokio::test]
async fn a_snapshot_of_as_many_chunks_as_there_may_be_is_written() {
    let pod = Pod::new(store());
    pod.written(&draft(10, MAX_CELL * MAX_CHUNKS)).await;
    assert_eq!(pod.whole().await, [10]);
}

#[tokio::test]
async fn a_snapshot_of_another_epoch_is_displaced_only_by_who_refuted_it() {
    let pod = with_two(LARGE).await;
    let elsewhere = |offset| Cursor { epoch: Epoch(0xf), ..cursor(offset) };
    let mut stranger = Draft { covered: elsewhere(3), key_head: elsewhere(2), ..draft(3, LARGE) };
    let outcome = pod.write(&stranger).await.expect("an outcome");
    assert!(matches!(outcome, Outcome::Foreign { generation: Generation(2), .. }), "{outcome:?}");
    // Refuting the current one is not enough: the previous one is of the other log as well.
    stranger.refuted = vec![Generation(2)];
    let outcome = pod.write(&stranger).await.expect("an outcome");
    assert!(matches!(outcome, Outcome::Foreign { generation: Generation(1), .. }), "{outcome:?}");
    stranger.refuted = vec![Generation(1), Generation(2)];
    pod.written(&stranger).await;
    assert_eq!(pod.whole().await, [3]);
    pod.no_garbage().await;
    // A pod that still follows the old log does not push it out again.
    let outcome = pod.write(&Draft { refuted: vec![Generation(1), Generation(2)], ..draft(30, LARGE) }).await;
    let outcome = outcome.expect("an outcome");
    assert!(matches!(outcome, Outcome::Foreign { generation: Generation(3), .. }), "{outcome:?}");
}

#[tokio::test]
async fn an_unreadable_snapshot_is_none_to_fall_back_on() {
    let pod = with_two(LARGE).await;
    // It covers less than the one it displaces, but more than the one it is built on.
    let repaired = Draft { unreadable: vec![Generation(2)], ..draft(15, LARGE) };
    pod.written(&repaired).await;
    assert_eq!(pod.whole().await, [15, 10]);
    pod.no_garbage().await;
}

#[tokio::test]
async fn a_claim_is_respected_until_it_is_displaced() {
    let pod = with_two(LARGE).await;
    let dying = Pod::new(pod.store.another().script(2, Fault::Die));
    let dead = tokio::time::timeout(Duration::ZERO, dying.write(&draft(30, LARGE))).await;
    assert!(dead.is_err(), "it claimed and died");
    let polite = Draft { displaces: Generation::default(), ..draft(30, LARGE) };
    let by = Generation(3);
    for _ in 0..3 {
        let outcome = pod.write(&polite).await.expect("an outcome");
        assert!(matches!(outcome, Outcome::Claimed { by: Generation(3), chunks: 2.. }), "{outcome:?}");
    }
    assert_eq!(pod.written(&Draft { displaces: by, ..polite }).await, Generation(4));
    pod.no_garbage().await;
}

#[tokio::test]
async fn a_changed_state_version_keeps_the_last_one_before_it() {
    let pod = with_two(LARGE).await;
    for covered in [30, 40, 50] {
        pod.written(&of_version(2, draft(covered, LARGE))).await;
    }
    assert_eq!(pod.whole().await, [50, 40, 20]);
    pod.no_garbage().await;
    assert_eq!(pod.store.ttl(&Names::of(&key()).rollback()), Some(Ttl::For(WINDOW)));
    // The old binary is back, and takes its turn.
    pod.written(&draft(60, SMALL)).await;
    assert_eq!(pod.whole().await, [60, 50]);
    assert_eq!(pod.manifest().await.rollback().map(Snapshot::generation), Some(Generation(5)));
    pod.no_garbage().await;
}

#[tokio::test]
async fn a_renamed_state_is_another_state() {
    let pod = with_two(LARGE).await;
    let state = StateType { name: "Feed".to_owned(), version: 1 };
    pod.written(&Draft { state, ..draft(30, LARGE) }).await;
    assert_eq!(pod.manifest().await.rollback().map(Snapshot::generation), Some(Generation(2)));
}

#[tokio::test]
async fn no_window_keeps_nothing() {
    let pod = with_two(LARGE).await;
    let snapshots = Snapshots::of(&pod.store, &pod.chance, &key(), MAX_CELL, Duration::ZERO);
    let outcome = snapshots.write(&of_version(2, draft(30, LARGE))).await.expect("an outcome");
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    assert_eq!(pod.manifest().await.rollback(), None);
    assert_eq!(pod.store.ttl(&Names::of(&key()).rollback()), None);
}

#[tokio::test]
async fn a_crowded_manifest_makes_small_snapshots_chunked() {
    let pod = with_two(SMALL).await;
    for offset in 0..100 {
        let epoch = Epoch(offset % 4);
        let held = pod.snapshots().hold_undecodable(epoch, Offset(1_000_000 + offset as u64)).await;
        held.expect("held");
    }
    // A third one, to roll back to, finds no room.
    pod.written(&of_version(2, draft(30, SMALL))).await;
    assert!(pod.manifest().await.current().is_some_and(|current| current.chunks == 1));
    assert_eq!(pod.whole().await, [30, 20]);
}

#[tokio::test]
async fn what_is_left_under_a_new_generation_is_overwritten() {
    let pod = with_two(LARGE).await;
    pod.store.overwrite(&chunk(3, 1), "of a store that was put back");
    pod.written(&draft(30, LARGE)).await;
    assert_eq!(pod.whole().await, [30, 20]);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_back_is_told() {
    let pod = with_two(LARGE).await;
    // Before the commit, after load, claim and three chunks.
    let slow = Pod::new(pod.store.another().script(5, Fault::Pause));
    let draft = draft(30, LARGE);
    let (written, ()) = tokio::join!(slow.write(&draft), async {
        slow.store.paused().await;
        pod.store.overwrite(&chunk(3, 1), "damaged before the commit");
        slow.store.resume();
    });
    let error = written.expect_err("unreadable");
    let is_told = matches!(
        error,
        WriteError::Unreadable { generation: Generation(3), source: Unusable::Length { .. } }
    );
    assert!(is_told, "{error:?}");
    let next = Draft { unreadable: vec![Generation(3)], ..super::draft(40, LARGE) };
    pod.written(&next).await;
    assert_eq!(pod.whole().await, [40, 20]);
}
