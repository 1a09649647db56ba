//! L4, L7, S2 and S5 when the backend goes away or an ack is lost. A hook that does nothing fails each of these.

use super::trial::{Trial, cell, family, id, key, offsets, soon, texts};
use crate::{
    AppendError, BackendError, CasError, CellSelector, ErrorKind, Expected, Key, Offset, Offsets, Resume,
    Retry, Selector,
};

fn unavailable(error: &BackendError) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(error.retry(), Retry::Safe);
}

pub(super) async fn l4_an_interrupted_tail_says_so(trial: Trial) {
    let a = Key::of(&family("posts"));
    trial.pod.append(&a, "before").await;
    let mut tails = Vec::new();
    for selector in [Selector::Key(a.clone()), Selector::Family(family("posts"))] {
        let mut tail = trial.pod.tail(&selector, Resume::After(Offset::BEGIN)).await;
        assert_eq!(tail.next().await.text(), "before");
        tails.push(tail);
    }
    trial.interrupt().await;
    for tail in tails {
        unavailable(&tail.fails().await);
    }
}

pub(super) async fn l4_resuming_after_an_interruption_misses_nothing(trial: Trial) {
    let a = Key::of(&family("posts"));
    let selector = Selector::Key(a.clone());
    let mut expected = trial.pod.append_each(&a, 0..10).await;
    let mut tail = trial.pod.tail(&selector, Resume::After(Offset::BEGIN)).await;
    let last = tail.take(4).await.pop().expect("four records");
    trial.interrupt().await;
    unavailable(&tail.fails().await);
    trial.restore().await;
    let other = trial.another_pod().await;
    expected.extend(other.append_each(&a, 10..20).await);
    let mut at = trial.pod.tail(&selector, Resume::At(last.offset)).await;
    assert_eq!(at.next().await, last, "the record the reader stood on");
    assert_eq!(offsets(&at.take(16).await), expected[4..]);
    let mut after = trial.pod.tail(&selector, Resume::After(last.offset)).await;
    assert_eq!(offsets(&after.take(16).await), expected[4..]);
}

pub(super) async fn l4_every_interruption_is_told_and_survived(trial: Trial) {
    let a = Key::of(&family("posts"));
    let selector = Selector::Key(a.clone());
    let mut after = Offset::BEGIN;
    for round in 0..5 {
        let mut tail = trial.pod.tail(&selector, Resume::After(after)).await;
        trial.pod.append(&a, round.to_string()).await;
        let seen = tail.next().await;
        assert_eq!(seen.text(), round.to_string());
        after = seen.offset;
        trial.interrupt().await;
        unavailable(&tail.fails().await);
        trial.restore().await;
    }
}

pub(super) async fn l4_calls_say_that_the_backend_is_away(trial: Trial) {
    let a = Key::of(&family("posts"));
    let selector = Selector::Key(a.clone());
    trial.pod.append(&a, "before").await;
    trial.interrupt().await;
    let log = trial.pod.log();
    unavailable(&soon("a head", log.head(&selector)).await.expect_err("unreachable"));
    unavailable(&soon("a ping", trial.pod.ping()).await.expect_err("unreachable"));
    let tail = soon("a tail", log.subscribe(&selector, Resume::After(Offset::BEGIN))).await;
    unavailable(&tail.err().expect("unreachable"));
    match trial.pod.try_append(&a, "during", &[], None).await {
        Err(AppendError::Backend(error)) => unavailable(&error),
        // It may have been sent before anybody knew.
        Err(AppendError::MaybeCommitted(error)) => unavailable(&error),
        other => panic!("{other:?}"),
    }
    trial.restore().await;
    soon("a ping", trial.pod.ping()).await.expect("reachable again");
    trial.pod.append(&a, "after").await;
    let seen = texts(&trial.pod.read_all(&selector).await);
    assert_eq!((&*seen[0], seen.last().map(String::as_str)), ("before", Some("after")));
}

pub(super) async fn l7_an_append_whose_ack_is_lost_is_an_unknown_outcome(trial: Trial) {
    let a = Key::of(&family("posts"));
    trial.lose_next_ack().await;
    let unknown = trial.pod.try_append(&a, "once", &[], None).await;
    let Err(error @ AppendError::MaybeCommitted(_)) = unknown else { panic!("{unknown:?}") };
    assert_eq!(error.retry(), Retry::MayDuplicate);
    assert_eq!(texts(&trial.pod.read_all(&Selector::Key(a.clone())).await), ["once"], "it was committed");
    trial.pod.append(&a, "and the next is acknowledged").await;
}

pub(super) async fn l7_repeating_an_unknown_append_with_its_id_is_safe(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    let id = id("click-1");
    let entries = [(&a, "one"), (&b, "two"), (&a, "three")];
    trial.lose_next_ack().await;
    let unknown = trial.pod.try_batch(&entries, &[], Some(&id)).await;
    assert!(matches!(unknown, Err(AppendError::MaybeCommitted(_))), "{unknown:?}");
    let repeated = trial.pod.try_batch(&entries, &[], Some(&id)).await;
    let seen = trial.pod.read_all(&Selector::Family(rooms)).await;
    assert_eq!(texts(&seen), ["one", "two", "three"], "once");
    match repeated {
        Ok(appended) => assert_eq!(appended.offsets.iter().collect::<Vec<_>>(), offsets(&seen)),
        Err(AppendError::Duplicate) => {}
        other => panic!("{other:?}"),
    }
}

pub(super) async fn l7_an_unknown_append_is_committed_where_its_expectation_held(trial: Trial) {
    let a = Key::of(&family("posts"));
    let first = trial.pod.append(&a, "first").await;
    trial.lose_next_ack().await;
    let unknown = trial.pod.try_append(&a, "second", &[(&a, first)], None).await;
    assert!(matches!(unknown, Err(AppendError::MaybeCommitted(_))), "{unknown:?}");
    // Without an id, the same append is now judged like any other.
    let conflict = trial.pod.try_append(&a, "second", &[(&a, first)], None).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
    assert_eq!(texts(&trial.pod.read_all(&Selector::Key(a)).await), ["first", "second"]);
}

pub(super) async fn s2_a_cas_whose_ack_is_lost_is_an_unknown_outcome(trial: Trial) {
    let theme = cell(["app", "theme"]);
    let rev = trial.pod.cas(&theme, Expected::Absent, "light").await;
    trial.lose_next_ack().await;
    let unknown = trial.pod.try_cas(&theme, Expected::At(rev), "dark").await;
    let Err(error @ CasError::MaybeCommitted(_)) = unknown else { panic!("{unknown:?}") };
    assert_eq!(error.retry(), Retry::MayDuplicate);
    let conflict = trial.pod.try_cas(&theme, Expected::At(rev), "dark").await;
    assert!(matches!(conflict, Err(CasError::Conflict { .. })), "it was committed: {conflict:?}");
    let (_, bytes) = trial.another_pod().await.load(&theme).await.expect("written");
    assert_eq!(bytes, "dark");
}

pub(super) async fn s3_a_delete_whose_ack_is_lost_is_an_unknown_outcome(trial: Trial) {
    let theme = cell(["app", "theme"]);
    let rev = trial.pod.cas(&theme, Expected::Absent, "light").await;
    trial.lose_next_ack().await;
    let unknown = trial.pod.try_delete(&theme, rev).await;
    assert!(matches!(unknown, Err(CasError::MaybeCommitted(_))), "{unknown:?}");
    assert!(trial.pod.cas(&theme, Expected::Absent, "dark").await > rev, "it was deleted");
}

pub(super) async fn s2_the_store_says_that_it_is_away(trial: Trial) {
    let theme = cell(["app", "theme"]);
    let rev = trial.pod.cas(&theme, Expected::Absent, "light").await;
    trial.interrupt().await;
    unavailable(&soon("a load", trial.pod.store().load(&theme)).await.expect_err("unreachable"));
    let watched = soon("a watch", trial.pod.store().watch(&CellSelector::One(theme.clone()))).await;
    unavailable(&watched.err().expect("unreachable"));
    match trial.pod.try_cas(&theme, Expected::At(rev), "dark").await {
        Err(CasError::Backend(error) | CasError::MaybeCommitted(error)) => unavailable(&error),
        other => panic!("{other:?}"),
    }
    trial.restore().await;
    let (rev, _) = trial.pod.load(&theme).await.expect("kept");
    trial.pod.cas(&theme, Expected::At(rev), "after").await;
}

pub(super) async fn s5_an_interrupted_watch_says_so_and_the_next_replays_the_present(trial: Trial) {
    let (kept, gone, fresh) = (cell(["app", "kept"]), cell(["app", "gone"]), cell(["app", "new"]));
    let kept_at = trial.pod.cas(&kept, Expected::Absent, "kept").await;
    let gone_at = trial.pod.cas(&gone, Expected::Absent, "gone").await;
    let below = CellSelector::Below(cell(["app"]));
    let mut watch = trial.pod.watch(&below).await;
    assert_eq!(watch.present().await.len(), 2);
    let mut one = trial.pod.watch(&CellSelector::One(kept.clone())).await;
    assert_eq!(one.present().await.len(), 1);
    trial.interrupt().await;
    unavailable(&watch.fails().await);
    unavailable(&one.fails().await);
    trial.restore().await;
    let other = trial.another_pod().await;
    other.try_delete(&gone, gone_at).await.expect("deleted");
    let fresh_at = other.cas(&fresh, Expected::Absent, "new").await;
    let mut watch = trial.pod.watch(&below).await;
    assert_eq!(watch.present().await, [(kept, kept_at), (fresh, fresh_at)]);
}

pub(super) async fn f1_an_interrupted_feed_says_so(trial: Trial) {
    use futures_util::StreamExt;
    let topic = crate::Topic::new("news").expect("a valid name");
    let mut messages = trial.pod.broadcast().subscribe(&topic).await.expect("listening");
    trial.interrupt().await;
    let item = soon("the error", messages.next()).await.expect("never a silent end");
    unavailable(&item.expect_err("unreachable"));
    assert!(soon("the end", messages.next()).await.is_none());
    trial.restore().await;
    let mut messages = trial.pod.broadcast().subscribe(&topic).await.expect("listening");
    trial.pod.broadcast().publish(&topic, "hello".into()).await.expect("published");
    assert_eq!(soon("a message", messages.next()).await.expect("an item").expect("a message"), "hello");
}

pub(super) async fn l7_the_offsets_of_a_repeat_are_where_the_records_are(trial: Trial) {
    let a = Key::of(&family("posts"));
    let once = id("click-2");
    trial.pod.append_each(&a, 0..3).await;
    trial.lose_next_ack().await;
    let unknown = trial.pod.try_append(&a, "mine", &[], Some(&once)).await;
    assert!(matches!(unknown, Err(AppendError::MaybeCommitted(_))), "{unknown:?}");
    trial.another_pod().await.append_each(&a, 3..6).await;
    match trial.pod.try_append(&a, "mine", &[], Some(&once)).await {
        Ok(appended) => {
            let at = appended.offsets.get(0).expect("an offset");
            let there = trial.pod.read(&Selector::Key(a), Offset(at.0 - 1), at, 1).await;
            assert_eq!(texts(&there), ["mine"]);
            assert!(matches!(appended.offsets, Offsets::Run { count: 1, .. } | Offsets::List(_)));
        }
        Err(AppendError::Duplicate) => {}
        other => panic!("{other:?}"),
    }
}
