//! S1 to S4 and S6: cells.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use super::{
    names::hostile,
    trial::{Trial, cell, soon, together},
};
use crate::{CasError, CellKey, CellSelector, Change, Expected, Rev, TooLarge};

/// Short enough to wait for, and a whole second, because adapters may round up.
const MOMENT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

pub(super) async fn s1_a_load_answers_what_was_written(trial: Trial) {
    let other = trial.another_pod().await;
    let theme = cell(["app", "theme"]);
    assert_eq!(trial.pod.load(&theme).await, None);
    let mut expected = Expected::Absent;
    for value in ["", "light", "\0\u{1}", "dark"] {
        let rev = trial.pod.cas(&theme, expected, value).await;
        assert_eq!(trial.pod.load(&theme).await, Some((rev, Bytes::from(value))));
        assert_eq!(other.load(&theme).await, Some((rev, Bytes::from(value))));
        expected = Expected::At(rev);
    }
}

pub(super) async fn s1_cells_with_hostile_names_are_apart(trial: Trial) {
    let names = hostile();
    let mut cells = BTreeMap::new();
    for (n, name) in names.iter().enumerate() {
        cells.insert(cell([name]), n);
        cells.insert(cell(["app", name]), n + 1000);
        cells.insert(cell([name, "app"]), n + 2000);
    }
    cells.insert(cell([&"c".repeat(crate::MAX_CELL_KEY_BYTES)]), 3000);
    assert_eq!(cells.len(), names.len() * 3 + 1);
    for (cell, n) in &cells {
        trial.pod.cas(cell, Expected::Absent, n.to_string()).await;
    }
    for (cell, n) in &cells {
        let (_, bytes) = trial.pod.load(cell).await.unwrap_or_else(|| panic!("{cell:?} was written"));
        assert_eq!(bytes, n.to_string(), "{cell:?}");
    }
}

pub(super) async fn s2_a_write_is_accepted_only_as_expected(trial: Trial) {
    let theme = cell(["app", "theme"]);
    let nobody = trial.pod.try_cas(&theme, Expected::At(Rev(1)), "x").await;
    assert!(matches!(nobody, Err(CasError::Conflict { rev: None })), "{nobody:?}");
    let first = trial.pod.cas(&theme, Expected::Absent, "1").await;
    let again = trial.pod.try_cas(&theme, Expected::Absent, "x").await;
    let Err(CasError::Conflict { rev }) = again else { panic!("{again:?}") };
    assert!(rev.is_none_or(|rev| rev == first), "{rev:?}");
    let second = trial.pod.cas(&theme, Expected::At(first), "2").await;
    assert!(second > first, "revisions rise");
    let stale = trial.pod.try_cas(&theme, Expected::At(first), "x").await;
    let Err(CasError::Conflict { rev }) = stale else { panic!("{stale:?}") };
    assert!(rev.is_none_or(|rev| rev == second), "{rev:?}");
    let future = trial.pod.try_cas(&theme, Expected::At(Rev(second.0 + 1)), "x").await;
    assert!(matches!(future, Err(CasError::Conflict { .. })), "{future:?}");
    assert_eq!(trial.pod.load(&theme).await, Some((second, "2".into())));
}

pub(super) async fn s2_of_racing_writers_exactly_one_wins(trial: Trial) {
    let pods = [trial.pod.clone(), trial.another_pod().await];
    let theme = cell(["app", "theme"]);
    let mut expected = Expected::Absent;
    for round in 0..40 {
        let answers = together(6, |task| {
            let (pod, theme) = (pods[task % 2].clone(), theme.clone());
            async move { pod.try_cas(&theme, expected, format!("{round}:{task}")).await }
        })
        .await;
        let winners: Vec<_> = answers
            .iter()
            .enumerate()
            .filter_map(|(task, answer)| Some((task, *answer.as_ref().ok()?)))
            .collect();
        let [(winner, rev)] = *winners else { panic!("one winner, not {answers:?}") };
        assert!(
            answers.iter().all(|answer| matches!(answer, Ok(_) | Err(CasError::Conflict { .. }))),
            "{answers:?}"
        );
        let (at, bytes) = trial.pod.load(&theme).await.expect("written");
        assert_eq!((at, bytes), (rev, format!("{round}:{winner}").into()));
        expected = Expected::At(rev);
    }
}

pub(super) async fn s2_no_increment_is_lost(trial: Trial) {
    let (tasks, each) = (6, 30);
    let pods = [trial.pod.clone(), trial.another_pod().await];
    let count = cell(["app", "count"]);
    together(tasks, |task| {
        let (pod, count) = (pods[task % 2].clone(), count.clone());
        async move {
            let mut done = 0;
            while done < each {
                let (expected, value) = match pod.load(&count).await {
                    Some((rev, bytes)) => (
                        Expected::At(rev),
                        String::from_utf8_lossy(&bytes).parse::<usize>().expect("a number"),
                    ),
                    None => (Expected::Absent, 0),
                };
                match pod.try_cas(&count, expected, (value + 1).to_string()).await {
                    Ok(_) => done += 1,
                    Err(CasError::Conflict { .. }) => tokio::task::yield_now().await,
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    })
    .await;
    let (_, bytes) = trial.pod.load(&count).await.expect("written");
    assert_eq!(bytes, (tasks * each).to_string());
}

pub(super) async fn s2_revisions_rise_through_deletes(trial: Trial) {
    let (theme, other) = (cell(["app", "theme"]), cell(["app", "other"]));
    let mut last = Rev(0);
    for _ in 0..5 {
        let rev = trial.pod.cas(&theme, Expected::Absent, "x").await;
        assert!(rev > last, "{rev:?} after {last:?}");
        trial.pod.try_delete(&theme, rev).await.expect("deleted");
        let aba = trial.pod.try_cas(&theme, Expected::At(rev), "y").await;
        assert!(
            matches!(aba, Err(CasError::Conflict { .. })),
            "a deleted revision is never met again: {aba:?}"
        );
        last = rev;
    }
    trial.pod.cas(&other, Expected::Absent, "x").await;
}

pub(super) async fn s2_the_incarnation_is_one_for_every_pod(trial: Trial) {
    let other = trial.another_pod().await;
    let before = trial.pod.store().incarnation().await.expect("known");
    trial.pod.cas(&cell(["app", "theme"]), Expected::Absent, "x").await;
    assert_eq!(trial.pod.store().incarnation().await.expect("known"), before);
    assert_eq!(other.store().incarnation().await.expect("known"), before);
}

pub(super) async fn s3_a_delete_takes_place_only_as_expected(trial: Trial) {
    let theme = cell(["app", "theme"]);
    let nobody = trial.pod.try_delete(&theme, Rev(1)).await;
    assert!(matches!(nobody, Err(CasError::Conflict { rev: None })), "{nobody:?}");
    let first = trial.pod.cas(&theme, Expected::Absent, "1").await;
    let second = trial.pod.cas(&theme, Expected::At(first), "2").await;
    let stale = trial.pod.try_delete(&theme, first).await;
    assert!(matches!(stale, Err(CasError::Conflict { .. })), "{stale:?}");
    assert_eq!(trial.pod.load(&theme).await, Some((second, "2".into())));
    trial.pod.try_delete(&theme, second).await.expect("deleted");
    assert_eq!(trial.pod.load(&theme).await, None);
    let twice = trial.pod.try_delete(&theme, second).await;
    assert!(matches!(twice, Err(CasError::Conflict { .. })), "{twice:?}");
}

pub(super) async fn s3_of_a_racing_write_and_delete_one_wins(trial: Trial) {
    let pods = [trial.pod.clone(), trial.another_pod().await];
    let theme = cell(["app", "theme"]);
    for _ in 0..40 {
        let rev = match trial.pod.load(&theme).await {
            Some((rev, _)) => rev,
            None => trial.pod.cas(&theme, Expected::Absent, "x").await,
        };
        let won = together(4, |task| {
            let (pod, theme) = (pods[task % 2].clone(), theme.clone());
            async move {
                if task < 2 {
                    pod.try_cas(&theme, Expected::At(rev), "y").await.map(Some)
                } else {
                    pod.try_delete(&theme, rev).await.map(|()| None)
                }
            }
        })
        .await;
        let winners: Vec<_> = won.into_iter().flatten().collect();
        let [winner] = *winners else { panic!("one winner, not {winners:?}") };
        assert_eq!(trial.pod.load(&theme).await.map(|(rev, _)| rev), winner);
    }
}

/// Waits until a watch says that the cell is gone; answers the revision of its end.
async fn gone(trial: &Trial, cell: &CellKey) -> Rev {
    let mut watch = trial.pod.watch(&CellSelector::One(cell.clone())).await;
    if watch.present().await.is_empty() {
        return Rev(0);
    }
    loop {
        if let Change::Gone { rev, .. } = watch.next().await {
            return rev;
        }
    }
}

pub(super) async fn s4_a_cell_expires_and_its_revisions_go_on(trial: Trial) {
    let login = cell(["session", "login"]);
    let mut last = Rev(0);
    for _ in 0..2 {
        let rev = trial.pod.cas_for(&login, Expected::Absent, MOMENT).await;
        assert!(rev > last, "revisions rise through expiry");
        let end = gone(&trial, &login).await;
        assert!(end == Rev(0) || end > rev, "the end has a revision too");
        assert_eq!(trial.pod.load(&login).await, None);
        let stale = trial.pod.try_cas(&login, Expected::At(rev), "x").await;
        assert!(matches!(stale, Err(CasError::Conflict { .. })), "{stale:?}");
        last = rev;
    }
}

pub(super) async fn s4_a_cell_lives_as_long_as_was_said(trial: Trial) {
    let (long, forever, short) = (cell(["s", "long"]), cell(["s", "forever"]), cell(["s", "short"]));
    let long_at = trial.pod.cas_for(&long, Expected::Absent, LONG).await;
    let forever_at = trial.pod.cas(&forever, Expected::Absent, "x").await;
    trial.pod.cas_for(&short, Expected::Absent, MOMENT).await;
    gone(&trial, &short).await;
    assert_eq!(trial.pod.load(&long).await.map(|(rev, _)| rev), Some(long_at));
    assert_eq!(trial.pod.load(&forever).await.map(|(rev, _)| rev), Some(forever_at));
}

pub(super) async fn s4_a_rewrite_replaces_the_time_to_live(trial: Trial) {
    let (longer, forever, shorter) = (cell(["s", "longer"]), cell(["s", "forever"]), cell(["s", "shorter"]));
    let rev = trial.pod.cas_for(&longer, Expected::Absent, MOMENT).await;
    trial.pod.cas_for(&longer, Expected::At(rev), LONG).await;
    let rev = trial.pod.cas_for(&forever, Expected::Absent, MOMENT).await;
    trial.pod.cas(&forever, Expected::At(rev), "for ever").await;
    // Written last, so that whatever the first two were given at first is over when this one is.
    let rev = trial.pod.cas(&shorter, Expected::Absent, "for ever").await;
    trial.pod.cas_for(&shorter, Expected::At(rev), MOMENT).await;
    gone(&trial, &shorter).await;
    assert!(trial.pod.load(&longer).await.is_some(), "it was given longer");
    assert!(trial.pod.load(&forever).await.is_some(), "it was given no end");
    assert!(trial.pod.load(&shorter).await.is_none());
}

pub(super) async fn s4_a_cell_written_over_an_expired_one_expires_too(trial: Trial) {
    let login = cell(["session", "login"]);
    trial.pod.cas_for(&login, Expected::Absent, MOMENT).await;
    gone(&trial, &login).await;
    trial.pod.cas_for(&login, Expected::Absent, MOMENT).await;
    gone(&trial, &login).await;
    let rev = trial.pod.cas(&login, Expected::Absent, "x").await;
    trial.pod.try_delete(&login, rev).await.expect("deleted");
    trial.pod.cas_for(&login, Expected::Absent, MOMENT).await;
    gone(&trial, &login).await;
    assert_eq!(trial.pod.load(&login).await, None);
}

pub(super) async fn s6_a_cell_at_the_limit_is_accepted_and_one_over_refused(trial: Trial) {
    let large = cell(["app", "large"]);
    let limit = trial.pod.limits().max_cell;
    let rev = trial.pod.cas(&large, Expected::Absent, vec![b'x'; limit]).await;
    let refused = trial.pod.try_cas(&large, Expected::At(rev), vec![b'y'; limit + 1]).await;
    let Err(CasError::TooLarge(TooLarge { what: "cell", size, limit: told })) = refused else {
        panic!("refused with the limit, not {refused:?}");
    };
    assert_eq!((size, told), (limit + 1, limit));
    let (at, bytes) = soon("a load", trial.pod.load(&large)).await.expect("kept");
    assert_eq!((at, bytes.len()), (rev, limit));
}
