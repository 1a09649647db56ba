//! C1 to C5: compaction.

use super::{
    names::hostile,
    trial::{Seen, Trial, family, key, offsets, together},
};
use crate::{AppendError, Key, Offset, Resume, Selector};

pub(super) async fn c1_drops_what_is_below_and_leaves_the_rest_where_it_is(trial: Trial) {
    let a = Key::of(&family("posts"));
    let appended = trial.pod.append_each(&a, 0..600).await;
    for selector in [Selector::Key(a.clone()), Selector::Family(family("posts"))] {
        for cut in [1, 255, 256, 300, 599] {
            let floor = trial.pod.compact(&a, appended[cut]).await;
            assert_eq!(floor, trial.pod.floor(&a).await);
            // The first pass leaves the log shorter than the second asks for.
            let kept: Vec<_> = appended.iter().copied().filter(|offset| *offset >= floor).collect();
            let seen = trial.pod.read_left(&selector, &kept).await;
            let text = seen.first().map(Seen::text);
            assert_eq!(text, Some((600 - kept.len()).to_string()), "each record is still itself");
        }
    }
}

pub(super) async fn c1_keeps_the_head_whatever_is_asked(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    let head = *trial.pod.append_each(&a, 0..10).await.last().expect("ten");
    trial.pod.append_each(&b, 0..10).await;
    for before in [head, Offset(head.0 + 1), Offset(head.0 + 500), Offset(u64::MAX)] {
        trial.pod.compact(&a, before).await;
        trial.pod.read_left(&Selector::Key(a.clone()), &[head]).await;
        assert_eq!(trial.pod.head(&Selector::Key(a.clone())).await, head);
    }
    let page = crate::Page { after: None, limit: 9 };
    assert_eq!(trial.pod.log().instances(&rooms, page).await.expect("listed"), [a.clone(), b]);
    let conflict = trial.pod.try_append(&a, "x", &[(&a, Offset::BEGIN)], None).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
    trial.pod.try_append(&a, "x", &[(&a, head)], None).await.expect("the head is as before");
}

pub(super) async fn c1_touches_no_other_key(trial: Trial) {
    let rooms = family("rooms");
    let keys = [key(&rooms, "a"), key(&rooms, "b"), Key::of(&rooms)];
    for n in 0..300 {
        trial.pod.append(&keys[n % 3], n.to_string()).await;
    }
    let before = [&keys[1], &keys[2]].map(|key| Selector::Key(key.clone()));
    let records = [trial.pod.read_all(&before[0]).await, trial.pod.read_all(&before[1]).await];
    trial.pod.compact(&keys[0], Offset(u64::MAX)).await;
    for (selector, records) in before.iter().zip(records) {
        assert_eq!(trial.pod.read_all(selector).await, records);
    }
    let other = trial.pod.floor(&keys[1]).await;
    assert_eq!(other, Offset::BEGIN);
}

pub(super) async fn c1_a_compacted_key_goes_on(trial: Trial) {
    let a = Key::of(&family("posts"));
    let selector = Selector::Key(a.clone());
    let mut tail = trial.pod.tail(&selector, Resume::After(Offset::BEGIN)).await;
    let mut last = Offset::BEGIN;
    for round in 0..5 {
        let appended = trial.pod.append_each(&a, 0..200).await;
        assert!(appended[0] > last, "offsets are never used again");
        last = *appended.last().expect("some");
        assert_eq!(offsets(&tail.take(200).await), appended, "round {round}");
        trial.pod.compact(&a, last).await;
        trial.pod.read_left(&selector, &[last]).await;
    }
    // Nothing that a tail had yet to see was dropped before it.
    assert_eq!(tail.holes, []);
}

pub(super) async fn c1_a_resumed_tail_yields_what_is_left(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for n in 0..100 {
        of_a.push(trial.pod.append(&a, n.to_string()).await);
        of_b.push(trial.pod.append(&b, n.to_string()).await);
    }
    let floor = trial.pod.compact(&a, of_a[60]).await;
    let mut of_both = [&of_a[60..], &of_b].concat();
    of_both.sort_unstable();
    let is_left = |record: &Seen| record.key != a || record.offset >= floor;
    for (selector, left) in [(Selector::Key(a.clone()), &of_a[60..]), (Selector::Family(rooms), &of_both)] {
        let left = trial.pod.read_left(&selector, left).await;
        for resume in [0, 10, 59, 60, 99].map(|n| of_a[n]) {
            let from: Vec<_> = left.iter().filter(|record| record.offset >= resume).cloned().collect();
            let mut tail = trial.pod.tail(&selector, Resume::At(resume)).await;
            let mut seen = Vec::new();
            while seen.len() < from.len() {
                seen.extend(Some(tail.next().await).filter(is_left));
            }
            assert_eq!(seen, from, "{selector:?} at {resume}");
        }
    }
}

pub(super) async fn c2_a_missing_record_is_below_a_floor_that_is_known(trial: Trial) {
    let a = Key::of(&family("posts"));
    let selector = Selector::Key(a.clone());
    let appended = trial.pod.append_each(&a, 0..400).await;
    together(3, |task| {
        let (pod, a, selector, appended) = (trial.pod.clone(), a.clone(), selector.clone(), appended.clone());
        async move {
            if task == 0 {
                for before in appended.iter().step_by(7) {
                    pod.compact(&a, *before).await;
                    tokio::task::yield_now().await;
                }
                pod.compact(&a, appended[399]).await;
                return;
            }
            loop {
                let left = offsets(&pod.read_all(&selector).await);
                // Asked after the read: what it missed has to be accounted for by now.
                let floor = pod.floor(&a).await;
                let missing: Vec<_> = appended.iter().filter(|offset| !left.contains(offset)).collect();
                assert!(
                    missing.iter().all(|offset| **offset < floor),
                    "{missing:?} are gone, the floor is {floor}"
                );
                if floor == appended[399] {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
}

pub(super) async fn c2_the_floor_is_the_same_for_every_pod(trial: Trial) {
    let other = trial.another_pod().await;
    let a = Key::of(&family("posts"));
    let appended = trial.pod.append_each(&a, 0..20).await;
    let floor = trial.pod.compact(&a, appended[10]).await;
    assert_eq!(other.floor(&a).await, floor);
    assert_eq!(trial.another_pod().await.floor(&a).await, floor);
}

pub(super) async fn c3_is_idempotent_and_monotone(trial: Trial) {
    let a = Key::of(&family("posts"));
    let appended = trial.pod.append_each(&a, 0..20).await;
    let floor = trial.pod.compact(&a, appended[10]).await;
    assert_eq!(floor, appended[10]);
    for lower in [appended[10], appended[5], Offset::BEGIN] {
        assert_eq!(trial.pod.compact(&a, lower).await, floor, "compacting below {lower} changes nothing");
        trial.pod.read_left(&Selector::Key(a.clone()), &appended[10..]).await;
    }
}

pub(super) async fn c3_of_racing_compactions_the_highest_floor_stays(trial: Trial) {
    let a = Key::of(&family("posts"));
    let appended = trial.pod.append_each(&a, 0..60).await;
    for round in 0..5 {
        // The highest one first, so that a lower one often comes after it.
        let cuts = &appended[round * 10..round * 10 + 10];
        together(10, |task| {
            let (pod, a, before) = (trial.pod.clone(), a.clone(), cuts[9 - task]);
            async move {
                let floor = pod.compact(&a, before).await;
                assert!(floor >= before, "{floor} for {before}");
                let recorded = pod.floor(&a).await;
                assert!(recorded >= floor, "the floor went back from {floor} to {recorded}");
            }
        })
        .await;
        assert_eq!(trial.pod.floor(&a).await, cuts[9]);
        trial.pod.read_left(&Selector::Key(a.clone()), &appended[round * 10 + 9..]).await;
    }
}

pub(super) async fn c3_is_clamped_to_the_head(trial: Trial) {
    let a = Key::of(&family("posts"));
    assert_eq!(trial.pod.compact(&a, Offset(50)).await, Offset::BEGIN, "there is nothing to compact");
    let head = *trial.pod.append_each(&a, 0..20).await.last().expect("some");
    assert_eq!(trial.pod.compact(&a, Offset(u64::MAX)).await, head);
    let later = trial.pod.append_each(&a, 20..30).await;
    assert_eq!(trial.pod.floor(&a).await, head, "the floor does not follow the head");
    trial.pod.read_left(&Selector::Key(a), &[&[head][..], &later].concat()).await;
}

pub(super) async fn c4_the_floor_is_the_beginning_until_the_first_compaction(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    assert_eq!(trial.pod.floor(&a).await, Offset::BEGIN);
    let appended = trial.pod.append_each(&a, 0..5).await;
    trial.pod.append_each(&b, 0..5).await;
    assert_eq!(trial.pod.floor(&a).await, Offset::BEGIN, "never derived from what is retained");
    trial.pod.compact(&b, Offset(u64::MAX)).await;
    assert_eq!(trial.pod.floor(&a).await, Offset::BEGIN);
    trial.pod.compact(&a, appended[2]).await;
    assert_eq!(trial.pod.floor(&a).await, appended[2]);
}

pub(super) async fn c5_a_family_is_compacted_from_its_first_floor_on(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), Key::of(&rooms));
    assert!(!trial.pod.is_compacted(&rooms).await, "there is no record");
    let appended = trial.pod.append_each(&a, 0..20).await;
    trial.pod.append_each(&b, 0..20).await;
    for nothing in [Offset::BEGIN, Offset(u64::MAX)] {
        // A key without a record has no floor, whatever is asked.
        trial.pod.compact(&key(&rooms, "nobody"), nothing).await;
        assert!(!trial.pod.is_compacted(&rooms).await, "compacted below {nothing}");
    }
    trial.pod.compact(&a, Offset::BEGIN).await;
    assert!(!trial.pod.is_compacted(&rooms).await, "below the beginning is nothing");
    // Nothing is dropped yet, and the floor is there.
    trial.pod.compact(&a, appended[0]).await;
    assert!(trial.pod.is_compacted(&rooms).await, "one of two keys has a floor");
    trial.pod.compact(&a, appended[10]).await;
    trial.pod.append_each(&b, 20..40).await;
    assert!(trial.pod.is_compacted(&rooms).await, "and keeps it");
}

pub(super) async fn c5_every_pod_is_told_that_a_family_was_compacted(trial: Trial) {
    let rooms = family("rooms");
    let other = trial.another_pod().await;
    for round in 0..5 {
        let rooms = family(&format!("rooms-{round}"));
        let a = key(&rooms, "a");
        let appended = trial.pod.append_each(&a, 0..10).await;
        // Asked before, so that a pod that remembers its answer is wrong now.
        assert!(!other.is_compacted(&rooms).await);
        trial.pod.compact(&a, appended[5]).await;
        assert!(other.is_compacted(&rooms).await, "round {round}");
        assert!(trial.another_pod().await.is_compacted(&rooms).await, "round {round}");
    }
    assert!(!other.is_compacted(&rooms).await);
}

pub(super) async fn c5_a_compacted_family_says_nothing_of_others(trial: Trial) {
    let families: Vec<_> = hostile().iter().map(|name| family(name)).collect();
    for (n, family) in families.iter().enumerate() {
        let a = key(family, "a");
        let appended = trial.pod.append_each(&a, 0..3).await;
        if n % 2 == 0 {
            trial.pod.compact(&a, appended[1]).await;
        }
    }
    for (n, family) in families.iter().enumerate() {
        assert_eq!(trial.pod.is_compacted(family).await, n % 2 == 0, "{family:?}");
    }
}

pub(super) async fn c5_a_missing_record_is_of_a_compacted_family(trial: Trial) {
    for round in 0..10 {
        let a = Key::of(&family(&format!("posts-{round}")));
        let selector = Selector::Key(a.clone());
        let appended = trial.pod.append_each(&a, 0..20).await;
        together(3, |task| {
            let (pod, a, selector, appended) =
                (trial.pod.clone(), a.clone(), selector.clone(), appended.clone());
            async move {
                if task == 0 {
                    pod.compact(&a, appended[10]).await;
                    return;
                }
                loop {
                    let left = pod.read_all(&selector).await.len();
                    // Asked after the read: what it missed is explained by now.
                    let is_compacted = pod.is_compacted(a.family()).await;
                    assert!(
                        left == appended.len() || is_compacted,
                        "{left} are left of an uncompacted family"
                    );
                    if left == 10 {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
    }
}
