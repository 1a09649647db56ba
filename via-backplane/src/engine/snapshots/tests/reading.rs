//! What a loader gets, whatever happened to the cells.

use super::*;

/// What the candidates come to, by what they cover.
async fn verdicts(pod: &Pod) -> Vec<(u64, Option<Unusable>)> {
    let read = pod.read_all().await.into_iter().map(|(covered, read)| match read {
        Read::Bytes(_) => (covered, None),
        Read::Unusable(why) => (covered, Some(why)),
        Read::Displaced => panic!("the snapshot at {covered} was displaced"),
    });
    read.collect()
}

#[tokio::test]
async fn a_key_without_snapshots_has_no_candidates() {
    let pod = Pod::new(store());
    assert_eq!(pod.read_all().await, []);
    assert_eq!(pod.store.calls(), 1);
}

#[tokio::test]
async fn a_small_snapshot_is_read_in_one_call() {
    let pod = with_two(SMALL).await.another();
    assert_eq!(pod.whole().await, [20, 10]);
    assert_eq!(pod.store.calls(), 1);
}

#[tokio::test]
async fn the_one_to_roll_back_to_comes_last() {
    let pod = with_two(LARGE).await;
    pod.written(&of_version(2, draft(30, SMALL))).await;
    pod.written(&of_version(2, draft(40, LARGE))).await;
    assert_eq!(pod.whole().await, [40, 30, 20]);
}

#[tokio::test]
async fn every_flipped_bit_of_a_chunk_is_noticed() {
    let pod = with_two(LARGE).await;
    for (index, len) in [(0, MAX_CELL), (1, MAX_CELL), (2, LARGE - 2 * MAX_CELL)] {
        let good = pod.store.bytes(&chunk(2, index)).expect("stored");
        for bit in (0..len * 8).step_by(101) {
            let mut bytes = good.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            pod.store.overwrite(&chunk(2, index), bytes);
            assert_eq!(verdicts(&pod).await, [(20, Some(Unusable::Digest)), (10, None)]);
        }
        pod.store.overwrite(&chunk(2, index), good);
    }
    assert_eq!(pod.whole().await, [20, 10]);
}

#[tokio::test]
async fn a_chunk_cut_short_is_noticed() {
    let pod = with_two(LARGE).await;
    let good = pod.store.bytes(&chunk(2, 1)).expect("stored");
    pod.store.overwrite(&chunk(2, 1), good.slice(..good.len() - 1));
    let short = Unusable::Length { expected: LARGE as u64, found: LARGE as u64 - 1 };
    assert_eq!(verdicts(&pod).await, [(20, Some(short)), (10, None)]);
}

#[tokio::test]
async fn chunks_of_another_generation_or_in_another_order_are_noticed() {
    let pod = with_two(LARGE).await;
    let good = pod.store.bytes(&chunk(2, 0)).expect("stored");
    for other in [chunk(1, 0), chunk(2, 1)] {
        pod.store.overwrite(&chunk(2, 0), pod.store.bytes(&other).expect("stored"));
        assert_eq!(verdicts(&pod).await, [(20, Some(Unusable::Digest)), (10, None)], "{other}");
    }
    pod.store.overwrite(&chunk(2, 0), good);
    assert_eq!(pod.whole().await, [20, 10]);
}

#[tokio::test]
async fn a_missing_chunk_is_missing_only_after_the_manifest_was_looked_at_again() {
    let pod = with_two(LARGE).await;
    pod.store.remove(&chunk(2, 1));
    let reader = pod.another();
    assert_eq!(verdicts(&reader).await, [(20, Some(Unusable::Missing(1))), (10, None)]);
    assert_eq!(reader.store.calls(), 1 + 3 + 1 + 3, "manifest, chunks, manifest again, the other's chunks");
}

#[tokio::test]
async fn a_reader_that_was_overtaken_gets_the_newer_snapshots_and_never_a_mixture() {
    // Wherever the reader is overtaken, by however many commits.
    for (pause, commits) in (1..=3).flat_map(|pause| (1..=4).map(move |commits| (pause, commits))) {
        let pod = with_two(LARGE).await;
        let reader = Pod::new(pod.store.another().script(pause, Fault::Pause));
        let (read, ()) = tokio::join!(reader.read_all(), async {
            reader.store.paused().await;
            for covered in (30..).step_by(10).take(commits) {
                pod.written(&draft(covered, LARGE)).await;
            }
            reader.store.resume();
        });
        for (covered, read) in &read {
            let good = matches!(read, Read::Bytes(bytes) if *bytes == state(*covered, LARGE));
            assert!(good || *read == Read::Displaced, "{pause} {commits}: {covered} is {read:?}");
        }
        let best = read.iter().filter(|(_, read)| matches!(read, Read::Bytes(_))).count();
        assert!(best >= 1, "{pause} {commits}: {read:?}");
    }
}

#[tokio::test]
async fn a_damaged_manifest_is_an_error_and_stays_as_it_is() {
    let pod = with_two(LARGE).await;
    let good = pod.store.bytes(&manifest_cell()).expect("stored");
    let flipped = (0..good.len() * 8).map(|bit| {
        let mut bytes = good.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Bytes::from(bytes)
    });
    let others = [Bytes::new(), good.slice(..good.len() / 2), Bytes::from_static(b"another type's bytes")];
    for damaged in flipped.chain(others) {
        pod.store.overwrite(&manifest_cell(), damaged.clone());
        let error = pod.snapshots().candidates().await.err().expect("damaged");
        assert!(matches!(error, OwnedError::Garbled { .. }), "{error:?}");
        let error = pod.write(&draft(30, SMALL)).await.expect_err("damaged");
        assert!(matches!(error, WriteError::Manifest(OwnedError::Garbled { .. })), "{error:?}");
        assert_eq!(pod.store.bytes(&manifest_cell()), Some(damaged));
    }
}

#[tokio::test]
async fn a_manifest_in_the_place_of_another_cell_does_not_pass_for_a_snapshot() {
    let pod = with_two(SMALL).await;
    pod.store.overwrite(&chunk(9, 0), pod.store.bytes(&manifest_cell()).expect("stored"));
    pod.written(&draft(30, LARGE)).await;
    pod.store.overwrite(&chunk(3, 0), pod.store.bytes(&manifest_cell()).expect("stored"));
    let verdicts = verdicts(&pod).await;
    assert!(matches!(verdicts[..], [(30, Some(Unusable::Length { .. })), (20, None)]), "{verdicts:?}");
}

#[tokio::test]
async fn an_outage_is_an_error_and_no_verdict() {
    let pod = with_two(LARGE).await;
    for call in 0..4 {
        let reader = Pod::new(pod.store.another().script(call, Fault::Fail));
        let snapshots = reader.snapshots();
        let failed = match snapshots.candidates().await {
            Err(error) => error,
            Ok(mut candidates) => {
                let candidate = candidates.next().expect("there are two");
                candidates.read(&candidate).await.expect_err("an outage")
            }
        };
        assert!(matches!(failed, OwnedError::Backend(_)), "{failed:?}");
    }
}
