//! B1 and B2: closing, and calls that are dropped.

use bytes::Bytes;
use futures_util::StreamExt;

use super::trial::{Pod, Trial, abandon, cell, family, id, key, soon, texts};
use crate::{
    Append, AppendError, BackendError, CasError, CellSelector, Entries, Entry, ErrorKind, Expected, Key,
    Offset, Page, PublishError, ReadRange, Resume, Rev, Selector, Topic, Ttl,
};

fn closed<T>(answer: Result<T, BackendError>) {
    match answer {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}"),
        Ok(_) => panic!("a closed backplane answered"),
    }
}

fn range() -> ReadRange {
    ReadRange { after: Offset::BEGIN, up_to: Offset(u64::MAX), limit: 9 }
}

pub(super) async fn b1_after_close_every_call_is_refused(trial: Trial) {
    let a = Key::of(&family("posts"));
    let selector = Selector::Key(a.clone());
    let theme = cell(["app", "theme"]);
    trial.pod.append(&a, "x").await;
    let pod = &trial.pod;
    soon("close", pod.close()).await;
    closed(soon("a head", pod.log().head(&selector)).await);
    closed(soon("a read", pod.log().read(&selector, range())).await);
    closed(soon("a page", pod.log().instances(a.family(), Page { after: None, limit: 9 })).await);
    closed(soon("a tail", pod.log().subscribe(&selector, Resume::After(Offset::BEGIN))).await);
    match pod.try_append(&a, "y", &[], None).await {
        Err(AppendError::Backend(error)) => closed::<()>(Err(error)),
        other => panic!("{other:?}"),
    }
    closed(soon("an incarnation", pod.store().incarnation()).await);
    closed(soon("a load", pod.store().load(&theme)).await);
    closed(soon("a watch", pod.store().watch(&CellSelector::One(theme.clone()))).await);
    match pod.try_cas(&theme, Expected::Absent, "x").await {
        Err(CasError::Backend(error)) => closed::<()>(Err(error)),
        other => panic!("{other:?}"),
    }
    match pod.try_delete(&theme, Rev(1)).await {
        Err(CasError::Backend(error)) => closed::<()>(Err(error)),
        other => panic!("{other:?}"),
    }
    closed(soon("a ping", pod.ping()).await);
    optional_calls_are_refused(pod, &a).await;
    soon("a second close", pod.close()).await;
}

async fn optional_calls_are_refused(pod: &Pod, key: &Key) {
    if let Some(compactor) = pod.compactor() {
        closed(soon("a floor", compactor.floor(key)).await);
        closed(soon("a compaction", compactor.compact(key, Offset(1))).await);
        closed(soon("an answer", compactor.is_compacted(key.family())).await);
    }
    if let Some(feed) = pod.feed() {
        let news = Topic::new("news").expect("a valid name");
        closed(soon("a subscription", feed.subscribe(&news)).await);
        match soon("a publish", feed.publish(&news, Bytes::new())).await {
            Err(PublishError::Backend(error)) => closed::<()>(Err(error)),
            other => panic!("{other:?}"),
        }
    }
}

pub(super) async fn b1_close_ends_every_stream(trial: Trial) {
    let a = Key::of(&family("posts"));
    let theme = cell(["app", "theme"]);
    let pod = trial.another_pod().await;
    let mut tails = Vec::new();
    for selector in [Selector::Key(a.clone()), Selector::Family(family("posts"))] {
        tails.push(pod.tail(&selector, Resume::After(Offset::BEGIN)).await);
    }
    let mut watches = Vec::new();
    for selector in [CellSelector::One(theme.clone()), CellSelector::Below(cell(["app"]))] {
        let mut watch = pod.watch(&selector).await;
        watch.present().await;
        watches.push(watch);
    }
    // One sleeps and one has something ready: both end.
    trial.pod.append(&a, "ready").await;
    let news = Topic::new("news").expect("a valid name");
    let mut messages = match pod.feed() {
        Some(feed) => Some(feed.subscribe(&news).await.expect("listening")),
        None => None,
    };
    soon("close", pod.close()).await;
    for tail in tails {
        closed::<()>(Err(tail.fails().await));
    }
    for watch in watches {
        closed::<()>(Err(watch.fails().await));
    }
    if let Some(messages) = &mut messages {
        closed(soon("the error of an ended feed", messages.next()).await.expect("never a silent end"));
        assert!(soon("the end", messages.next()).await.is_none());
    }
}

pub(super) async fn b1_close_wakes_a_stream_that_sleeps(trial: Trial) {
    let a = Key::of(&family("posts"));
    let pod = trial.another_pod().await;
    let tail = pod.tail(&Selector::Key(a), Resume::After(Offset::BEGIN)).await;
    let mut watch = pod.watch(&CellSelector::Below(cell(["app"]))).await;
    watch.present().await;
    // The streams are polled first, find nothing, and have only the close to wake them.
    let (of_tail, of_watch, ()) = tokio::join!(biased; tail.fails(), watch.fails(), async {
        tokio::task::yield_now().await;
        pod.close().await;
    });
    closed::<()>(Err(of_tail));
    closed::<()>(Err(of_watch));
}

pub(super) async fn b1_close_leaves_other_pods_alone(trial: Trial) {
    let a = Key::of(&family("posts"));
    let theme = cell(["app", "theme"]);
    let leaving = trial.another_pod().await;
    let mut tail = trial.pod.tail(&Selector::Key(a.clone()), Resume::After(Offset::BEGIN)).await;
    let mut watch = trial.pod.watch(&CellSelector::One(theme.clone())).await;
    watch.present().await;
    leaving.append(&a, "from the leaving pod").await;
    soon("close", leaving.close()).await;
    assert_eq!(tail.next().await.text(), "from the leaving pod");
    trial.pod.append(&a, "still here").await;
    assert_eq!(tail.next().await.text(), "still here");
    trial.pod.cas(&theme, Expected::Absent, "x").await;
    watch.next().await;
    trial.another_pod().await.append(&a, "and a new one").await;
    assert_eq!(tail.next().await.text(), "and a new one");
}

pub(super) async fn b2_dropped_calls_harm_nothing(trial: Trial) {
    let a = Key::of(&family("posts"));
    let selector = Selector::Key(a.clone());
    let theme = cell(["app", "theme"]);
    let below = CellSelector::Below(cell(["app"]));
    trial.pod.append(&a, "0").await;
    for _ in 0..20 {
        let (log, store) = (trial.pod.log(), trial.pod.store());
        // Made and never polled, then polled once and dropped.
        drop(log.head(&selector));
        abandon(log.head(&selector));
        abandon(log.read(&selector, range()));
        abandon(log.instances(a.family(), Page { after: None, limit: 9 }));
        abandon(log.subscribe(&selector, Resume::After(Offset::BEGIN)));
        abandon(store.load(&theme));
        abandon(store.incarnation());
        abandon(store.watch(&below));
        abandon(trial.pod.ping());
    }
    let mut tail = trial.pod.tail(&selector, Resume::After(Offset::BEGIN)).await;
    assert_eq!(tail.next().await.text(), "0");
    // A dropped wait for the next item loses no item.
    for n in 1..30 {
        assert_eq!(tail.ready(), []);
        trial.pod.append(&a, n.to_string()).await;
        assert_eq!(tail.next().await.text(), n.to_string());
    }
}

pub(super) async fn b2_a_dropped_append_happens_wholly_or_not_at_all(trial: Trial) {
    let rooms = family("rooms");
    let entry = |name: &str, round: usize| Entry { key: key(&rooms, name), record: round.to_string().into() };
    for round in 0..50 {
        let entries = Entries::Many(["a", "b", "a"].map(|name| entry(name, round)).into());
        abandon(trial.pod.log().append(Append::new(entries)));
    }
    // Whatever is still on its way has been decided once an append made later has been.
    trial.pod.append(&key(&rooms, "end"), "end").await;
    let once = id("settled");
    trial.pod.try_append(&key(&rooms, "end"), "end", &[], Some(&once)).await.expect("accepted");
    let seen = trial.pod.read_all(&Selector::Family(rooms)).await;
    let mut seen: Vec<_> = texts(&seen).into_iter().filter(|text| text != "end").collect();
    seen.sort();
    for parts in seen.chunks(3) {
        assert!(parts.len() == 3 && parts.iter().all(|part| *part == parts[0]), "{parts:?}");
    }
}

pub(super) async fn b2_a_dropped_cas_happens_or_does_not(trial: Trial) {
    let theme = cell(["app", "theme"]);
    let rev = trial.pod.cas(&theme, Expected::Absent, "before").await;
    abandon(trial.pod.store().cas(&theme, Expected::At(rev), "dropped".into(), Ttl::Forever));
    match trial.pod.try_cas(&theme, Expected::At(rev), "after").await {
        Ok(after) => assert_eq!(trial.pod.load(&theme).await, Some((after, "after".into()))),
        Err(CasError::Conflict { .. }) => {
            let (at, bytes) = trial.pod.load(&theme).await.expect("written");
            assert!(at > rev && bytes == "dropped", "{at:?} {bytes:?}");
        }
        Err(other) => panic!("{other:?}"),
    }
}
