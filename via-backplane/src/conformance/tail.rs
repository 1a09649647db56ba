//! L3 and L4: subscriptions.

use std::collections::BTreeMap;

use super::{
    names::hostile,
    trial::{Trial, family, key, offsets, texts, together},
};
use crate::{Key, Offset, Resume, Selector};

pub(super) async fn l3_yields_every_retained_record_in_order(trial: Trial) {
    let a = Key::of(&family("posts"));
    let appended = trial.pod.append_each(&a, 0..700).await;
    let mut tail = trial.pod.tail(&Selector::Family(family("posts")), Resume::After(Offset::BEGIN)).await;
    let seen = tail.take(700).await;
    assert_eq!(offsets(&seen), appended);
    assert_eq!(texts(&seen), (0..700).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(tail.holes.is_empty(), "nothing is gone: {:?}", tail.holes);
}

pub(super) async fn l3_resumes_after_or_at_any_offset(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    for n in 0..6 {
        trial.pod.append(if n % 2 == 0 { &a } else { &b }, n.to_string()).await;
    }
    for selector in [Selector::Family(rooms.clone()), Selector::Key(a.clone()), Selector::Key(b.clone())] {
        let all = trial.pod.read_all(&selector).await;
        let head = all.last().expect("six records").offset;
        // Every offset up to the head, those of other keys and of no record among them.
        for at in (0..=head.0).map(Offset) {
            let above: Vec<_> = all.iter().filter(|record| record.offset > at).cloned().collect();
            let from: Vec<_> = all.iter().filter(|record| record.offset >= at).cloned().collect();
            let mut after = trial.pod.tail(&selector, Resume::After(at)).await;
            assert_eq!(after.take(above.len()).await, above, "{selector:?} after {at}");
            let mut tail = trial.pod.tail(&selector, Resume::At(at)).await;
            assert_eq!(tail.take(from.len()).await, from, "{selector:?} at {at}");
        }
    }
}

pub(super) async fn l3_a_tail_from_the_head_starts_with_the_next_record(trial: Trial) {
    let a = Key::of(&family("posts"));
    let selector = Selector::Key(a.clone());
    let head = *trial.pod.append_each(&a, 0..3).await.last().expect("three");
    let mut after = trial.pod.tail(&selector, Resume::After(head)).await;
    let mut at = trial.pod.tail(&selector, Resume::At(head)).await;
    trial.pod.append(&a, "next").await;
    assert_eq!(after.next().await.text(), "next");
    assert_eq!(texts(&at.take(2).await), ["2", "next"]);
}

pub(super) async fn l3_tails_live_what_any_pod_appends(trial: Trial) {
    let other = trial.another_pod().await;
    let rooms = family("rooms");
    let a = key(&rooms, "a");
    let mut of_family = trial.pod.tail(&Selector::Family(rooms), Resume::After(Offset::BEGIN)).await;
    let mut of_key = trial.pod.tail(&Selector::Key(a.clone()), Resume::After(Offset::BEGIN)).await;
    for n in 0..50_usize {
        let offset = [&trial.pod, &other][n % 2].append(&a, n.to_string()).await;
        for tail in [&mut of_family, &mut of_key] {
            let seen = tail.next().await;
            assert_eq!((seen.offset, seen.text()), (offset, n.to_string()));
        }
    }
}

pub(super) async fn l3_a_tail_that_sleeps_is_woken(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    let mut of_family = trial.pod.tail(&Selector::Family(rooms), Resume::After(Offset::BEGIN)).await;
    let mut of_key = trial.pod.tail(&Selector::Key(a.clone()), Resume::After(Offset::BEGIN)).await;
    let other = trial.another_pod().await;
    for _ in 0..10 {
        // Both tails are polled and find nothing before the append is made.
        let (of_family, of_key, appended) = tokio::join!(biased; of_family.take(2), of_key.next(), async {
            tokio::task::yield_now().await;
            other.append_batch(&[(&b, "b"), (&a, "a")]).await
        });
        assert_eq!(offsets(&of_family), appended);
        assert_eq!(of_key.offset, appended[1]);
    }
}

pub(super) async fn l3_a_key_has_a_tail_of_its_own(trial: Trial) {
    let rooms = family("rooms");
    let keys: Vec<_> =
        ["a", "b", "c"].map(|name| key(&rooms, name)).into_iter().chain([Key::of(&rooms)]).collect();
    let mut tails = Vec::new();
    for key in &keys {
        tails.push(trial.pod.tail(&Selector::Key(key.clone()), Resume::After(Offset::BEGIN)).await);
    }
    for n in 0..40 {
        trial.pod.append(&keys[n % 4], n.to_string()).await;
    }
    for (index, tail) in tails.iter_mut().enumerate() {
        let seen = tail.take(10).await;
        assert!(seen.iter().all(|record| record.key == keys[index]), "{seen:?}");
        assert_eq!(texts(&seen), (0..10).map(|n| (n * 4 + index).to_string()).collect::<Vec<_>>());
    }
}

pub(super) async fn l3_backlog_and_live_records_join_without_gap_or_repeat(trial: Trial) {
    let (writers, each) = (3, 300);
    let rooms = family("rooms");
    let total = writers * each;
    let answers = together(writers + 3, |task| {
        let (pod, rooms) = (trial.pod.clone(), rooms.clone());
        async move {
            if task < writers {
                pod.append_each(&key(&rooms, &task.to_string()), 0..each).await;
                return Vec::new();
            }
            // Each tail begins somewhere in the middle of the writing.
            let begun = pod.head(&Selector::Family(rooms.clone())).await;
            let mut tail = pod.tail(&Selector::Family(rooms), Resume::After(Offset::BEGIN)).await;
            let seen = tail.take(total).await;
            assert!(seen.last().is_some_and(|record| record.offset >= begun));
            seen
        }
    })
    .await;
    let log = trial.pod.read_all(&Selector::Family(rooms)).await;
    assert_eq!(log.len(), total);
    for seen in &answers[writers..] {
        assert_eq!(offsets(seen), offsets(&log), "the tail and the log agree on every record");
    }
}

pub(super) async fn l3_instances_with_hostile_names_are_apart(trial: Trial) {
    let rooms = family("rooms.a/*");
    let mut expected = BTreeMap::new();
    for name in hostile() {
        let key = key(&rooms, &name);
        expected.insert(key.clone(), trial.pod.append(&key, name).await);
    }
    let other = family("rooms");
    trial.pod.append(&key(&other, "a/*/a"), "foreign").await;
    let mut of_family = trial.pod.tail(&Selector::Family(rooms.clone()), Resume::After(Offset::BEGIN)).await;
    let seen = of_family.take(expected.len()).await;
    assert_eq!(seen.iter().map(|r| (r.key.clone(), r.offset)).collect::<BTreeMap<_, _>>(), expected);
    for (key, offset) in &expected {
        assert_eq!(Some(seen_text(&seen, *offset)), key.instance_name().map(str::to_owned));
        let own = trial.pod.read_all(&Selector::Key(key.clone())).await;
        assert_eq!(offsets(&own), [*offset], "{key:?}");
    }
}

fn seen_text(seen: &[super::trial::Seen], offset: Offset) -> String {
    seen.iter().find(|record| record.offset == offset).map(super::trial::Seen::text).unwrap_or_default()
}

pub(super) async fn l3_a_hole_names_the_keys_that_lost_records_before_they_are_missed(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    let mut of_a = Vec::new();
    for n in 0..200 {
        of_a.push(trial.pod.append(&a, n.to_string()).await);
        trial.pod.append(&b, n.to_string()).await;
    }
    let mut behind = trial.pod.tail(&Selector::Family(rooms.clone()), Resume::After(Offset::BEGIN)).await;
    let floor = trial.pod.compact(&a, of_a[150]).await;
    let mut fresh = trial.pod.tail(&Selector::Family(rooms.clone()), Resume::After(Offset::BEGIN)).await;
    let retained = trial.pod.read_all(&Selector::Family(rooms)).await;
    assert_eq!(fresh.take(retained.len()).await, retained);
    // A tail that began before may have been ahead with some; what it then crosses it knows as well as the other.
    while behind.next().await.offset < retained.last().expect("records").offset {}
    for tail in [&fresh, &behind] {
        // An adapter that does not know says nothing; what is said has to be true.
        assert!(tail.holes.iter().all(|(key, told)| *key == a && *told == floor), "{:?}", tail.holes);
    }
}

pub(super) async fn l4_a_slow_reader_loses_nothing(trial: Trial) {
    let a = Key::of(&family("posts"));
    let selector = Selector::Family(family("posts"));
    let mut slow = trial.pod.tail(&selector, Resume::After(Offset::BEGIN)).await;
    trial.pod.append(&a, "first").await;
    assert_eq!(slow.next().await.text(), "first");
    let record = vec![b'x'; 512];
    let batch: Vec<_> = (0..100).map(|_| (&a, std::str::from_utf8(&record).expect("text"))).collect();
    let mut appended = Vec::new();
    // More than any client's buffer holds.
    for _ in 0..700 {
        appended.extend(trial.pod.append_batch(&batch).await);
    }
    assert_eq!(offsets(&slow.take(appended.len()).await), appended);
}

pub(super) async fn l4_a_tail_outlives_silence_and_traffic_of_others(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    let mut tail = trial.pod.tail(&Selector::Key(a.clone()), Resume::After(Offset::BEGIN)).await;
    assert_eq!(tail.ready(), []);
    trial.pod.append_each(&b, 0..300).await;
    assert_eq!(tail.ready(), []);
    trial.pod.append(&a, "mine").await;
    assert_eq!(tail.next().await.text(), "mine");
}
