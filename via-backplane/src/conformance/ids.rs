//! L6: append ids.

use std::time::Duration;

use super::{
    names::hostile,
    trial::{Pod, Trial, family, id, key, texts, together},
};
use crate::{AppendError, AppendId, Appended, Key, Offset, Selector};

/// A repeat answers the first offsets, or that it is one.
fn repeats(repeated: Result<Appended, AppendError>, first: &Appended) {
    match repeated {
        Ok(appended) => {
            assert_eq!(appended.offsets.iter().collect::<Vec<_>>(), first.offsets.iter().collect::<Vec<_>>());
            assert_eq!(appended.epoch, first.epoch);
        }
        Err(AppendError::Duplicate) => {}
        other => panic!("a repeat, not {other:?}"),
    }
}

async fn append(pod: &Pod, key: &Key, text: &str, id: &AppendId) -> Appended {
    pod.try_append(key, text.to_owned(), &[], Some(id)).await.expect("the id is new")
}

pub(super) async fn l6_a_repeat_answers_the_first_offsets_and_appends_nothing(trial: Trial) {
    let a = Key::of(&family("posts"));
    let (one, two) = (id("one"), id("two"));
    let first = append(&trial.pod, &a, "1", &one).await;
    let second = append(&trial.pod, &a, "2", &two).await;
    trial.pod.append(&a, "3").await;
    let other = trial.another_pod().await;
    for pod in [&trial.pod, &other] {
        repeats(pod.try_append(&a, "1", &[], Some(&one)).await, &first);
        repeats(pod.try_append(&a, "another body", &[], Some(&two)).await, &second);
    }
    assert_eq!(texts(&trial.pod.read_all(&Selector::Key(a)).await), ["1", "2", "3"]);
}

pub(super) async fn l6_a_repeated_batch_answers_all_its_offsets(trial: Trial) {
    let rooms = family("rooms");
    let (a, b) = (key(&rooms, "a"), key(&rooms, "b"));
    let entries = [(&a, "1"), (&b, "2"), (&a, "3")];
    let once = id("batch");
    let first = trial.pod.try_batch(&entries, &[], Some(&once)).await.expect("the id is new");
    trial.pod.append(&b, "4").await;
    repeats(trial.pod.try_batch(&entries, &[], Some(&once)).await, &first);
    assert_eq!(texts(&trial.pod.read_all(&Selector::Family(rooms)).await), ["1", "2", "3", "4"]);
}

pub(super) async fn l6_an_id_belongs_to_its_key(trial: Trial) {
    let rooms = family("rooms");
    let same = id("same");
    let keys = [key(&rooms, "a"), key(&rooms, "b"), Key::of(&rooms), Key::of(&family("other"))];
    for key in &keys {
        trial.pod.append(key, "first").await;
    }
    for key in &keys {
        append(&trial.pod, key, "mine", &same).await;
    }
    for key in keys {
        assert_eq!(
            texts(&trial.pod.read_all(&Selector::Key(key.clone())).await),
            ["first", "mine"],
            "{key:?}"
        );
    }
}

pub(super) async fn l6_a_repeat_beats_a_failed_expectation(trial: Trial) {
    let a = Key::of(&family("posts"));
    let once = id("decide");
    let expect = [(&a, Offset::BEGIN)];
    let first = trial.pod.try_append(&a, "1", &expect, Some(&once)).await.expect("as expected");
    repeats(trial.pod.try_append(&a, "1", &expect, Some(&once)).await, &first);
    trial.pod.append(&a, "2").await;
    repeats(trial.pod.try_append(&a, "1", &expect, Some(&once)).await, &first);
    let conflict = trial.pod.try_append(&a, "3", &expect, Some(&id("another"))).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
}

pub(super) async fn l6_an_append_that_failed_leaves_its_id_free(trial: Trial) {
    let a = Key::of(&family("posts"));
    let once = id("retry");
    let head = trial.pod.append(&a, "1").await;
    let conflict = trial.pod.try_append(&a, "2", &[(&a, Offset::BEGIN)], Some(&once)).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
    trial.pod.try_append(&a, "2", &[(&a, head)], Some(&once)).await.expect("nothing has this id");
    assert_eq!(texts(&trial.pod.read_all(&Selector::Key(a)).await), ["1", "2"]);
}

pub(super) async fn l6_ids_survive_the_compaction_of_their_records(trial: Trial) {
    let a = Key::of(&family("posts"));
    let once = id("compacted");
    let first = append(&trial.pod, &a, "1", &once).await;
    let head = *trial.pod.append_each(&a, 2..300).await.last().expect("some");
    trial.pod.compact(&a, head).await;
    trial.pod.read_left(&Selector::Key(a.clone()), &[head]).await;
    repeats(trial.pod.try_append(&a, "1", &[], Some(&once)).await, &first);
    assert_eq!(trial.pod.head(&Selector::Key(a)).await, head, "nothing was appended");
}

pub(super) async fn l6_ids_are_remembered_for_the_window(trial: Trial) {
    let a = Key::of(&family("posts"));
    let window = trial.pod.limits().id_window;
    assert!(window >= Duration::from_secs(1), "a window of {window:?} outlasts no retry");
    let once = id("early");
    let first = append(&trial.pod, &a, "1", &once).await;
    if trial.paused {
        // Here the passing of time is the fact.
        tokio::time::sleep(window - Duration::from_millis(1)).await;
    }
    for n in 0..100 {
        append(&trial.pod, &a, "filler", &id(&n.to_string())).await;
    }
    repeats(trial.pod.try_append(&a, "1", &[], Some(&once)).await, &first);
}

pub(super) async fn l6_concurrent_repeats_append_once(trial: Trial) {
    let a = Key::of(&family("posts"));
    let pods = [trial.pod.clone(), trial.another_pod().await];
    for round in 0..20 {
        let answers = together(6, |task| {
            let (pod, a, once) = (pods[task % 2].clone(), a.clone(), id(&format!("round {round}")));
            async move { pod.try_append(&a, round.to_string(), &[], Some(&once)).await }
        })
        .await;
        let accepted: Vec<_> = answers.iter().flatten().collect();
        assert!(!accepted.is_empty(), "{answers:?}");
        assert!(accepted.windows(2).all(|two| two[0] == two[1]), "one append: {accepted:?}");
        assert!(
            answers.iter().all(|answer| matches!(answer, Ok(_) | Err(AppendError::Duplicate))),
            "{answers:?}"
        );
    }
    let expected: Vec<_> = (0..20).map(|round| round.to_string()).collect();
    assert_eq!(texts(&trial.pod.read_all(&Selector::Key(a)).await), expected);
}

pub(super) async fn l6_ids_that_look_alike_are_apart(trial: Trial) {
    let a = Key::of(&family("posts"));
    let names = hostile();
    for name in names.iter().cloned().chain(["i".repeat(crate::MAX_APPEND_ID_BYTES)]) {
        append(&trial.pod, &a, &name, &id(&name)).await;
    }
    assert_eq!(trial.pod.read_all(&Selector::Key(a)).await.len(), names.len() + 1);
}
