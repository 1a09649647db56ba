//! L5: batches and expectations.

use bytes::Bytes;

use super::trial::{Trial, family, id, key, offsets, texts, together};
use crate::{AppendError, Entries, Entry, Epoch, Head, Key, Offset, Resume, Selector, TooLarge};

pub(super) async fn l5_a_batch_is_in_order_across_keys(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    trial.pod.append(&b, "before").await;
    let entries = [(&a, "0"), (&a, "1"), (&b, "2"), (&a, "3"), (&b, "4")];
    let appended = trial.pod.append_batch(&entries).await;
    assert!(appended.is_sorted_by(|a, b| a < b), "{appended:?}");
    let seen = trial.pod.read(&Selector::Family(rooms), appended[0], Offset(u64::MAX), 99).await;
    assert_eq!(offsets(&seen), appended[1..]);
    assert_eq!(texts(&seen), ["1", "2", "3", "4"]);
    assert_eq!(texts(&trial.pod.read_all(&Selector::Key(b)).await), ["before", "2", "4"]);
}

pub(super) async fn l5_nothing_comes_between_the_records_of_a_batch(trial: Trial) {
    let rooms = family("rooms");
    together(6, |task| {
        let (pod, rooms) = (trial.pod.clone(), rooms.clone());
        async move {
            let keys = [key(&rooms, "a"), key(&rooms, &task.to_string())];
            for n in 0..40 {
                let text = format!("{task}:{n}");
                if n % 4 == 3 {
                    pod.append(&keys[1], format!("{text}:0/1")).await;
                    continue;
                }
                let texts: Vec<_> = (0..5).map(|part| format!("{text}:{part}/5")).collect();
                let entries: Vec<_> =
                    texts.iter().enumerate().map(|(part, text)| (&keys[part % 2], &**text)).collect();
                pod.append_batch(&entries).await;
            }
        }
    })
    .await;
    let seen = texts(&trial.pod.read_all(&Selector::Family(rooms)).await);
    let mut rest = &*seen;
    while let Some(first) = rest.first() {
        let (batch, part) = first.rsplit_once(':').expect("as written");
        let count: usize =
            part.strip_prefix("0/").and_then(|count| count.parse().ok()).expect("a batch begins");
        let expected: Vec<_> = (0..count).map(|part| format!("{batch}:{part}/{count}")).collect();
        assert_eq!(&rest[..count.min(rest.len())], expected, "a batch is whole and adjacent");
        rest = &rest[count..];
    }
    assert_eq!(seen.len(), 6 * (30 * 5 + 10));
}

pub(super) async fn l5_a_batch_is_never_seen_in_part(trial: Trial) {
    const SIZE: usize = 7;
    let rooms = family("rooms");
    let rounds = 150;
    together(4, |task| {
        let (pod, rooms) = (trial.pod.clone(), rooms.clone());
        async move {
            let selector = Selector::Family(rooms.clone());
            if task < 2 {
                let keys: Vec<_> = (0..SIZE).map(|n| key(&rooms, &n.to_string())).collect();
                for _ in 0..rounds {
                    pod.append_batch(&keys.iter().map(|key| (key, "x")).collect::<Vec<_>>()).await;
                }
            } else if task == 2 {
                loop {
                    let seen = pod.read_all(&selector).await.len();
                    assert_eq!(seen % SIZE, 0, "a read saw a part of a batch");
                    if seen == SIZE * rounds * 2 {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            } else {
                let mut tail = pod.tail(&selector, Resume::After(Offset::BEGIN)).await;
                for _ in 0..rounds * 2 {
                    // Its first record is seen, so all of it is committed.
                    let first = tail.next().await;
                    let there = pod.read(&selector, Offset(first.offset.0 - 1), Offset(u64::MAX), SIZE).await;
                    assert_eq!(there.len(), SIZE, "a tail saw a batch that was not committed whole");
                    tail.take(SIZE - 1).await;
                }
            }
        }
    })
    .await;
}

pub(super) async fn l5_an_expected_head_is_the_keys_own(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    let first = trial.pod.append(&a, "1").await;
    trial.pod.append_each(&b, 0..5).await;
    // The family has moved on; the key has not.
    let second = trial.pod.try_append(&a, "2", &[(&a, first)], None).await.expect("as expected");
    let second = second.offsets.get(0).expect("one offset");
    let stale = trial.pod.try_append(&a, "3", &[(&a, first)], None).await;
    let Err(AppendError::Conflict { head }) = stale else { panic!("{stale:?}") };
    assert!(
        head.is_none_or(|head| head.offset == second),
        "the conflict tells the head, or nothing: {head:?}"
    );
    assert_eq!(texts(&trial.pod.read_all(&Selector::Key(a)).await), ["1", "2"]);
}

pub(super) async fn l5_the_beginning_expects_no_record(trial: Trial) {
    let a = Key::of(&family("posts"));
    let begin = [(&a, Offset::BEGIN)];
    trial.pod.try_append(&a, "first", &begin, None).await.expect("there was none");
    let conflict = trial.pod.try_append(&a, "second", &begin, None).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
    let absent = key(&family("posts"), "other");
    let conflict = trial.pod.try_append(&absent, "x", &[(&absent, Offset(7))], None).await;
    let Err(AppendError::Conflict { head }) = conflict else { panic!("{conflict:?}") };
    assert!(head.is_none_or(|head| head.offset == Offset::BEGIN), "{head:?}");
}

pub(super) async fn l5_a_head_that_is_ahead_of_the_log_is_a_conflict(trial: Trial) {
    let a = Key::of(&family("posts"));
    let head = trial.pod.append(&a, "1").await;
    let conflict = trial.pod.try_append(&a, "2", &[(&a, Offset(head.0 + 1))], None).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
}

pub(super) async fn l5_an_expectation_of_another_epoch_is_a_conflict(trial: Trial) {
    let rooms = family("rooms");
    let (a, absent) = (key(&rooms, "a"), key(&rooms, "absent"));
    let offset = trial.pod.append(&a, "1").await;
    let epoch = trial.pod.epoch(&rooms).await;
    let another = Epoch(epoch.0 ^ 1);
    let entry = |key: &Key, text: &'static str| Entry { key: key.clone(), record: text.into() };
    let one = |key: &Key, text| Entries::One(entry(key, text));
    // The offsets are right; the log they are in is not the one they were seen in.
    for (key, offset) in [(&a, offset), (&absent, Offset::BEGIN)] {
        let expect = [(key, Head { epoch: another, offset })];
        let conflict = trial.pod.try_expecting(one(key, "x"), expect, None).await;
        let Err(AppendError::Conflict { head }) = conflict else { panic!("{key}: {conflict:?}") };
        let present = Head { epoch, offset };
        assert!(head.is_none_or(|head| head == present), "the conflict tells the present head: {head:?}");
    }
    // One of several, in a batch and for a key without an entry.
    let guarded = [(&a, Head { epoch, offset }), (&absent, Head { epoch: another, offset: Offset::BEGIN })];
    let both = Entries::Many(vec![entry(&a, "x"), entry(&absent, "x")]);
    for entries in [both, one(&a, "x")] {
        let conflict = trial.pod.try_expecting(entries, guarded, None).await;
        assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
    }
    let guarded = guarded.map(|(key, head)| (key, Head { epoch, ..head }));
    trial.pod.try_expecting(one(&a, "2"), guarded, None).await.expect("both as expected");
    assert_eq!(texts(&trial.pod.read_all(&Selector::Family(rooms)).await), ["1", "2"]);
}

pub(super) async fn l5_an_expectation_of_another_epoch_uses_up_no_id(trial: Trial) {
    let a = Key::of(&family("posts"));
    let once = id("decide");
    let epoch = trial.pod.epoch(a.family()).await;
    let expecting = |epoch| [(&a, Head { epoch, offset: Offset::BEGIN })];
    let entries = || Entries::One(Entry { key: a.clone(), record: "1".into() });
    let conflict = trial.pod.try_expecting(entries(), expecting(Epoch(epoch.0 ^ 1)), Some(&once)).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
    trial.pod.try_expecting(entries(), expecting(epoch), Some(&once)).await.expect("nothing has this id");
    assert_eq!(texts(&trial.pod.read_all(&Selector::Key(a)).await), ["1"]);
}

pub(super) async fn l5_one_failed_expectation_of_several_appends_nothing(trial: Trial) {
    let rooms = family("rooms");
    let (a, b, c) = (key(&rooms, "a"), key(&rooms, "b"), key(&rooms, "c"));
    let head = trial.pod.append(&a, "a1").await;
    trial.pod.append(&b, "b1").await;
    let entries = [(&a, "a2"), (&b, "b2"), (&c, "c1")];
    let wrong = [(&a, head), (&b, Offset::BEGIN), (&c, Offset::BEGIN)];
    let conflict = trial.pod.try_batch(&entries, &wrong, None).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
    assert_eq!(texts(&trial.pod.read_all(&Selector::Family(rooms.clone())).await), ["a1", "b1"]);
    assert_eq!(trial.pod.head(&Selector::Key(c.clone())).await, Offset::BEGIN);
    let b_head = trial.pod.head(&Selector::Key(b.clone())).await;
    let right = [(&a, head), (&b, b_head), (&c, Offset::BEGIN)];
    trial.pod.try_batch(&entries, &right, None).await.expect("all as expected");
    assert_eq!(texts(&trial.pod.read_all(&Selector::Family(rooms)).await), ["a1", "b1", "a2", "b2", "c1"]);
}

pub(super) async fn l5_a_key_without_an_entry_can_be_expected(trial: Trial) {
    let rooms = family("rooms");
    let (a, guard) = (key(&rooms, "a"), key(&rooms, "guard"));
    let head = trial.pod.append(&guard, "g1").await;
    trial.pod.try_append(&a, "1", &[(&guard, head)], None).await.expect("as expected");
    trial.pod.append(&guard, "g2").await;
    let conflict = trial.pod.try_append(&a, "2", &[(&guard, head)], None).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
    assert_eq!(texts(&trial.pod.read_all(&Selector::Key(a)).await), ["1"]);
}

pub(super) async fn l5_more_keys_than_entries_can_be_expected(trial: Trial) {
    let rooms = family("rooms");
    let (a, b, c) = (key(&rooms, "a"), key(&rooms, "b"), key(&rooms, "c"));
    let (of_b, of_c) = (trial.pod.append(&b, "b1").await, trial.pod.append(&c, "c1").await);
    let expect = [(&a, Offset::BEGIN), (&b, of_b), (&c, of_c)];
    let appended = trial.pod.try_append(&a, "1", &expect, Some(&id("once"))).await.expect("as expected");
    let at = appended.offsets.get(0).expect("one offset");
    let seen = trial.pod.read_all(&Selector::Key(a.clone())).await;
    assert_eq!(
        (offsets(&seen), texts(&seen)),
        (vec![at], vec!["1".to_owned()]),
        "it is where it is said to be"
    );
    trial.pod.append(&c, "c2").await;
    let conflict = trial.pod.try_append(&a, "2", &[(&a, at), (&b, of_b), (&c, of_c)], None).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
    let all = trial.pod.read_all(&Selector::Family(rooms)).await;
    assert_eq!(texts(&all), ["b1", "c1", "1", "c2"], "an expectation leaves no record");
}

pub(super) async fn l5_of_racing_appends_that_expect_one_head_one_wins(trial: Trial) {
    let (tasks, rounds) = (6, 30);
    let a = Key::of(&family("posts"));
    let pods = [trial.pod.clone(), trial.another_pod().await];
    let won = together(tasks, |task| {
        let (pod, a) = (pods[task % 2].clone(), a.clone());
        async move {
            let mut won = 0;
            while won < rounds {
                let head = pod.head(&Selector::Key(a.clone())).await;
                match pod.try_append(&a, format!("{}", head.0), &[(&a, head)], None).await {
                    Ok(_) => won += 1,
                    Err(AppendError::Conflict { .. }) => tokio::task::yield_now().await,
                    Err(other) => panic!("{other:?}"),
                }
            }
            won
        }
    })
    .await;
    let seen = trial.pod.read_all(&Selector::Key(a)).await;
    assert_eq!(seen.len(), won.iter().sum::<usize>());
    let mut head = Offset::BEGIN;
    for record in seen {
        assert_eq!(record.text(), head.0.to_string(), "each follows the head it expected");
        head = record.offset;
    }
}

pub(super) async fn l5_the_largest_batch_is_accepted_and_one_more_refused(trial: Trial) {
    let rooms = family("rooms");
    let limit = trial.pod.limits().max_batch;
    let batch = |count: usize| {
        let entry =
            |n: usize| Entry { key: key(&rooms, &(n % 10).to_string()), record: Bytes::from(n.to_string()) };
        Entries::Many((0..count).map(entry).collect())
    };
    let appended = trial.pod.try_entries(batch(limit), &[], None).await.expect("the limit is accepted");
    assert_eq!(appended.offsets.len(), limit);
    let refused = trial.pod.try_entries(batch(limit + 1), &[], None).await;
    let Err(AppendError::TooLarge(TooLarge { what: "batch", size, limit: told })) = refused else {
        panic!("refused with the limit, not {refused:?}");
    };
    assert_eq!((size, told), (limit + 1, limit));
    let seen = trial.pod.read_all(&Selector::Family(rooms)).await;
    assert_eq!(offsets(&seen), appended.offsets.iter().collect::<Vec<_>>());
    assert_eq!(texts(&seen), (0..limit).map(|n| n.to_string()).collect::<Vec<_>>());
}
