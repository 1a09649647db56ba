//! L8: bounded reads.

use super::trial::{Trial, family, key, offsets, texts};
use crate::{Key, Offset, Selector};

const ALL: Offset = Offset(u64::MAX);

pub(super) async fn l8_a_read_keeps_to_its_range_and_limit(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    for n in 0..30 {
        trial.pod.append(if n % 3 == 0 { &a } else { &b }, n.to_string()).await;
    }
    for selector in [Selector::Family(rooms.clone()), Selector::Key(a.clone()), Selector::Key(b.clone())] {
        let all = trial.pod.read_all(&selector).await;
        let head = all.last().expect("some").offset.0;
        for after in (0..=head + 1).step_by(2).map(Offset) {
            for up_to in (0..=head + 1).step_by(3).map(Offset) {
                for limit in [0, 1, 5, 100] {
                    let expected: Vec<_> = all
                        .iter()
                        .filter(|record| after < record.offset && record.offset <= up_to)
                        .take(limit)
                        .cloned()
                        .collect();
                    let read = trial.pod.read(&selector, after, up_to, limit).await;
                    assert_eq!(read, expected, "{selector:?} after {after} up to {up_to}, {limit}");
                }
            }
        }
    }
}

pub(super) async fn l8_fewer_than_the_limit_means_that_there_is_no_more(trial: Trial) {
    let a = Key::of(&family("posts"));
    let batch: Vec<_> = (0..100).map(|_| (&a, "x")).collect();
    let mut appended = Vec::new();
    for _ in 0..15 {
        appended.extend(trial.pod.append_batch(&batch).await);
    }
    for limit in [1, 255, 256, 257, 1000, 1499, 1500, 1501, usize::MAX] {
        for selector in [Selector::Family(family("posts")), Selector::Key(a.clone())] {
            let read = trial.pod.read(&selector, Offset::BEGIN, ALL, limit).await;
            assert_eq!(offsets(&read), appended[..limit.min(1500)], "{limit} of {selector:?}");
        }
    }
}

pub(super) async fn l8_a_log_is_read_whole_page_by_page(trial: Trial) {
    let a = Key::of(&family("posts"));
    let appended = trial.pod.append_each(&a, 0..500).await;
    let mut read = Vec::new();
    loop {
        let after = read.last().copied().unwrap_or_default();
        let page = trial.pod.read(&Selector::Key(a.clone()), after, ALL, 33).await;
        read.extend(offsets(&page));
        if page.len() < 33 {
            break;
        }
    }
    assert_eq!(read, appended);
}

pub(super) async fn l8_a_read_past_the_end_ends(trial: Trial) {
    let posts = family("posts");
    let (a, none) = (Key::of(&posts), key(&posts, "none"));
    let nothing =
        [Selector::Key(a.clone()), Selector::Family(posts.clone()), Selector::Family(family("never"))];
    for selector in &nothing {
        assert_eq!(trial.pod.read_all(selector).await, []);
    }
    let head = *trial.pod.append_each(&a, 0..3).await.last().expect("some");
    for selector in [Selector::Key(a), Selector::Family(posts)] {
        assert_eq!(trial.pod.read(&selector, head, ALL, 10).await, []);
        assert_eq!(trial.pod.read(&selector, ALL, ALL, 10).await, []);
        let last = trial.pod.read(&selector, Offset(head.0 - 1), ALL, 10).await;
        assert_eq!(texts(&last), ["2"]);
    }
    assert_eq!(trial.pod.read_all(&Selector::Key(none)).await, []);
}
