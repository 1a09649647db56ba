//! L10: heads and epochs.

use super::trial::{Trial, family, key, soon};
use crate::{Key, Offset, Resume, Selector};

pub(super) async fn l10_the_head_of_nothing_is_the_beginning(trial: Trial) {
    let rooms = family("rooms");
    let selectors = [Selector::Family(rooms.clone()), Selector::Key(key(&rooms, "a"))];
    for selector in &selectors {
        assert_eq!(trial.pod.head(selector).await, Offset::BEGIN);
    }
    trial.pod.append(&key(&rooms, "b"), "x").await;
    assert_eq!(trial.pod.head(&selectors[1]).await, Offset::BEGIN, "the key has no record");
}

pub(super) async fn l10_the_head_of_a_key_is_its_own(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    let of_a = trial.pod.append(&a, "1").await;
    let of_b = *trial.pod.append_each(&b, 0..5).await.last().expect("five");
    assert_eq!(trial.pod.head(&Selector::Key(a)).await, of_a);
    assert_eq!(trial.pod.head(&Selector::Key(b)).await, of_b);
    assert_eq!(trial.pod.head(&Selector::Family(rooms)).await, of_b);
}

pub(super) async fn l10_a_head_is_never_behind_an_acknowledged_append(trial: Trial) {
    let other = trial.another_pod().await;
    let a = Key::of(&family("posts"));
    let selector = Selector::Key(a.clone());
    for n in 0..100_usize {
        let (writer, reader) = if n % 2 == 0 { (&trial.pod, &other) } else { (&other, &trial.pod) };
        let offset = writer.append(&a, "x").await;
        assert_eq!(reader.head(&selector).await, offset);
    }
}

pub(super) async fn l10_everyone_names_the_same_epoch(trial: Trial) {
    use futures_util::StreamExt;
    let other = trial.another_pod().await;
    let a = Key::of(&family("posts"));
    let selector = Selector::Family(family("posts"));
    let before = trial.pod.log().head(&selector).await.expect("known").epoch;
    let appended = trial.pod.try_append(&a, "x", &[], None).await.expect("accepted").epoch;
    let of_other = other.log().head(&Selector::Key(a.clone())).await.expect("known").epoch;
    let all = crate::ReadRange { after: Offset::BEGIN, up_to: Offset(u64::MAX), limit: 9 };
    let read = other.log().read(&selector, all).await.expect("read").epoch();
    let mut tail = other.log().subscribe(&selector, Resume::After(Offset::BEGIN)).await.expect("subscribed");
    let tailed = soon("a batch", tail.next()).await.expect("an item").expect("a batch").epoch();
    assert!([appended, of_other, read, tailed].iter().all(|epoch| *epoch == before), "one log, one epoch");
}
