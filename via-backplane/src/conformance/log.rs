//! L1, L2, L9 and S6: what an append means.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    names::hostile,
    trial::{Trial, family, key, offsets, soon, texts, together},
};
use crate::{AppendError, Entries, Entry, Key, Offset, Page, Selector, TooLarge};

pub(super) async fn l1_an_acknowledged_append_is_seen_by_every_pod(trial: Trial) {
    let other = trial.another_pod().await;
    let a = Key::of(&family("posts"));
    for round in 0..20 {
        let offset = trial.pod.append(&a, round.to_string()).await;
        let seen = other.read(&Selector::Key(a.clone()), Offset(offset.0 - 1), offset, 1).await;
        assert_eq!(texts(&seen), [round.to_string()]);
        assert_eq!(other.head(&Selector::Key(a.clone())).await, offset);
    }
}

pub(super) async fn l1_an_acknowledged_append_outlives_its_pod(trial: Trial) {
    let a = Key::of(&family("posts"));
    let writer = trial.another_pod().await;
    let offset = writer.append(&a, "kept").await;
    soon("close", writer.close()).await;
    drop(writer);
    let seen = trial.pod.read_all(&Selector::Key(a)).await;
    assert_eq!((offsets(&seen), texts(&seen)), (vec![offset], vec!["kept".to_owned()]));
}

pub(super) async fn l2_concurrent_appends_share_no_offset_and_lose_none(trial: Trial) {
    let (tasks, each) = (8, 50);
    let rooms = family("rooms");
    let pods = [trial.pod.clone(), trial.another_pod().await];
    let appended = together(tasks, |task| {
        let (pod, key) = (pods[task % 2].clone(), key(&rooms, &(task % 3).to_string()));
        async move {
            let mut appended = Vec::new();
            for n in 0..each {
                let text = format!("{task}:{n}");
                appended.push((pod.append(&key, text.clone()).await, key.clone(), text));
            }
            appended
        }
    })
    .await;
    for of_one_task in &appended {
        assert!(of_one_task.is_sorted_by(|a, b| a.0 < b.0), "a later append has a higher offset");
    }
    let expected: BTreeMap<_, _> =
        appended.into_iter().flatten().map(|(offset, key, text)| (offset, (key, text))).collect();
    assert_eq!(expected.len(), tasks * each, "no two appends were given one offset");
    let seen = trial.pod.read_all(&Selector::Family(rooms)).await;
    assert!(seen.is_sorted_by(|a, b| a.offset < b.offset), "{:?}", offsets(&seen));
    let seen: BTreeMap<_, _> =
        seen.into_iter().map(|record| (record.offset, (record.key.clone(), record.text()))).collect();
    assert_eq!(seen, expected, "each record is where its append said");
}

pub(super) async fn l2_offsets_rise_in_commit_order_across_pods_and_keys(trial: Trial) {
    let rooms = family("rooms");
    let pods = [trial.pod.clone(), trial.another_pod().await];
    let mut last = Offset::BEGIN;
    for n in 0..40_usize {
        let offset = pods[n % 2].append(&key(&rooms, &(n % 3).to_string()), n.to_string()).await;
        assert!(offset > last, "{offset} came after {last}");
        last = offset;
    }
    let seen = trial.pod.read_all(&Selector::Family(rooms)).await;
    assert_eq!(texts(&seen), (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
}

pub(super) async fn l2_families_are_apart(trial: Trial) {
    let names = hostile();
    for name in &names {
        trial.pod.append(&Key::of(&family(name)), name.clone()).await;
    }
    for name in &names {
        let seen = trial.pod.read_all(&Selector::Family(family(name))).await;
        assert_eq!(texts(&seen), std::slice::from_ref(name), "the family {name:?}");
        assert_eq!(seen[0].key, Key::of(&family(name)));
    }
}

pub(super) async fn l2_records_keep_their_bytes(trial: Trial) {
    let a = Key::of(&family("bytes"));
    let every: Vec<u8> = (0..=255).collect();
    let records = [Vec::new(), every.clone(), vec![0], Vec::new(), every.repeat(64), b"\r\n\r\n".to_vec()];
    for record in &records {
        trial.pod.append(&a, record.clone()).await;
    }
    let seen = trial.pod.read_all(&Selector::Key(a)).await;
    assert_eq!(seen.into_iter().map(|record| record.bytes).collect::<Vec<_>>(), records);
}

pub(super) async fn l9_lists_the_keys_of_a_family_in_order_by_pages(trial: Trial) {
    let rooms = family("rooms");
    let mut keys: Vec<_> = hostile().iter().map(|name| key(&rooms, name)).chain([Key::of(&rooms)]).collect();
    for key in &keys {
        trial.pod.append(key, "one").await;
        trial.pod.append(key, "two").await;
    }
    trial.pod.append(&Key::of(&family("rooms2")), "not a room").await;
    trial.pod.append(&key(&family("room"), "s/42"), "not a room either").await;
    keys.sort();
    for limit in [1, 7, keys.len(), keys.len() + 1] {
        let mut listed = Vec::new();
        loop {
            let page = Page { after: listed.last().cloned(), limit };
            let page = soon("a page", trial.pod.log().instances(&rooms, page)).await.expect("listed");
            assert!(page.len() <= limit, "a page has at most {limit} keys");
            assert!(
                page.first().is_none_or(|first| listed.last().is_none_or(|last| last < first)),
                "a page goes on"
            );
            let is_last = page.len() < limit;
            listed.extend(page);
            if is_last {
                break;
            }
        }
        assert_eq!(listed, keys, "by pages of {limit}");
    }
}

pub(super) async fn l9_lists_no_key_without_a_record(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    let all = || Page { after: None, limit: 10 };
    let none = trial.pod.log().instances(&rooms, all()).await.expect("listed");
    assert_eq!(none, []);
    trial.pod.append(&a, "x").await;
    trial.pod.head(&Selector::Key(b.clone())).await;
    let refused = trial.pod.try_append(&b, "x", &[(&b, Offset(99))], None).await;
    assert!(matches!(refused, Err(AppendError::Conflict { .. })), "{refused:?}");
    let listed = trial.pod.log().instances(&rooms, all()).await.expect("listed");
    assert_eq!(listed, [a]);
}

pub(super) async fn s6_a_record_at_the_limit_is_accepted_and_one_over_refused(trial: Trial) {
    let a = Key::of(&family("large"));
    let limit = trial.pod.limits().max_record;
    trial.pod.append(&a, vec![b'x'; limit]).await;
    let refused = trial.pod.try_append(&a, vec![b'y'; limit + 1], &[], None).await;
    let Err(AppendError::TooLarge(TooLarge { what: "record", size, limit: told })) = refused else {
        panic!("refused with the limit, not {refused:?}");
    };
    assert_eq!((size, told), (limit + 1, limit));
    let sizes: Vec<_> =
        trial.pod.read_all(&Selector::Key(a)).await.iter().map(|record| record.bytes.len()).collect();
    assert_eq!(sizes, [limit]);
}

pub(super) async fn s6_one_large_record_refuses_its_whole_batch(trial: Trial) {
    let rooms = family("rooms");
    let limit = trial.pod.limits().max_record;
    let entry = |name: &str, size| Entry { key: key(&rooms, name), record: Bytes::from(vec![b'x'; size]) };
    let entries = Entries::Many(vec![entry("a", 1), entry("b", limit + 1), entry("c", 1)]);
    let refused = trial.pod.try_entries(entries, &[], None).await;
    assert!(matches!(refused, Err(AppendError::TooLarge(_))), "{refused:?}");
    assert_eq!(trial.pod.read_all(&Selector::Family(rooms)).await, []);
}

pub(super) async fn l2_the_longest_names_are_held(trial: Trial) {
    let longest = family(&"f".repeat(crate::MAX_FAMILY_BYTES));
    let names = ["i".repeat(crate::MAX_INSTANCE_BYTES), "é".repeat(crate::MAX_INSTANCE_BYTES / 2)];
    let keys: BTreeSet<_> = names.iter().map(|name| key(&longest, name)).collect();
    for key in &keys {
        trial.pod.append(key, "x").await;
    }
    let seen = trial.pod.read_all(&Selector::Family(longest)).await;
    assert_eq!(seen.into_iter().map(|record| record.key).collect::<BTreeSet<_>>(), keys);
}
