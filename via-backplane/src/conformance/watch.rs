//! S5: watches.

use std::{collections::BTreeMap, time::Duration};

use super::{
    names::hostile,
    trial::{Pod, Trial, Watching, cell, together},
};
use crate::{CellKey, CellSelector, Change, Expected, Rev};

fn below(prefix: &str) -> CellSelector {
    CellSelector::Below(cell([prefix]))
}

/// Waits until the watch tells of this revision of a cell or a later one; answers what it told.
async fn told(watch: &mut Watching, wanted: &CellKey, rev: Rev) -> Change {
    loop {
        let change = watch.next().await;
        match &change {
            Change::Put { key, rev: at, .. } | Change::Gone { key, rev: at }
                if key == wanted && *at >= rev =>
            {
                return change;
            }
            Change::Begin | Change::End => panic!("the present is told once"),
            _ => {}
        }
    }
}

pub(super) async fn s5_replays_the_present_between_begin_and_end(trial: Trial) {
    let mut expected = BTreeMap::new();
    for n in 0..150 {
        let cell = cell(["app", &format!("{n}")]);
        expected.insert(cell.clone(), trial.pod.cas(&cell, Expected::Absent, n.to_string()).await);
    }
    for n in (0..150).step_by(3) {
        let cell = cell(["app", &format!("{n}")]);
        let rev = expected.remove(&cell).expect("written");
        trial.pod.try_delete(&cell, rev).await.expect("deleted");
    }
    trial.pod.cas(&cell(["elsewhere", "x"]), Expected::Absent, "x").await;
    let mut watch = trial.pod.watch(&below("app")).await;
    assert_eq!(watch.present().await, expected.clone().into_iter().collect::<Vec<_>>());
    let (one, rev) = expected.into_iter().next().expect("some are left");
    let mut watch = trial.pod.watch(&CellSelector::One(one.clone())).await;
    assert_eq!(watch.present().await, [(one, rev)]);
}

pub(super) async fn s5_an_absent_cell_has_an_empty_present_and_is_told_when_it_comes(trial: Trial) {
    let theme = cell(["app", "theme"]);
    let mut one = trial.pod.watch(&CellSelector::One(theme.clone())).await;
    let mut all = trial.pod.watch(&below("app")).await;
    assert_eq!((one.present().await, all.present().await), (vec![], vec![]));
    let rev = trial.another_pod().await.cas(&theme, Expected::Absent, "dark").await;
    for watch in [&mut one, &mut all] {
        let Change::Put { rev: at, bytes, .. } = told(watch, &theme, rev).await else { panic!("a value") };
        assert_eq!(at, rev);
        assert!(bytes.is_none_or(|bytes| bytes == "dark"), "left out, or right");
    }
}

pub(super) async fn s5_tells_every_latest_change_of_any_pod(trial: Trial) {
    let other = trial.another_pod().await;
    let theme = cell(["app", "theme"]);
    let mut watch = trial.pod.watch(&below("app")).await;
    watch.present().await;
    let mut expected = Expected::Absent;
    for n in 0..20_usize {
        let rev = [&trial.pod, &other][n % 2].cas(&theme, expected, n.to_string()).await;
        let change = told(&mut watch, &theme, rev).await;
        assert!(matches!(change, Change::Put { rev: at, .. } if at == rev), "{change:?}");
        expected = Expected::At(rev);
    }
}

pub(super) async fn s5_a_watch_that_sleeps_is_woken(trial: Trial) {
    let theme = cell(["app", "theme"]);
    let mut one = trial.pod.watch(&CellSelector::One(theme.clone())).await;
    let mut all = trial.pod.watch(&below("app")).await;
    one.present().await;
    all.present().await;
    let other = trial.another_pod().await;
    let mut expected = Expected::Absent;
    for _ in 0..10 {
        let (of_one, of_all, rev) = tokio::join!(biased; one.next(), all.next(), async {
            tokio::task::yield_now().await;
            other.cas(&theme, expected, "x").await
        });
        for change in [of_one, of_all] {
            assert!(matches!(change, Change::Put { rev: at, .. } if at == rev), "{change:?}");
        }
        expected = Expected::At(rev);
    }
}

pub(super) async fn s5_a_delete_is_told_with_a_revision_of_its_own(trial: Trial) {
    let theme = cell(["app", "theme"]);
    let rev = trial.pod.cas(&theme, Expected::Absent, "x").await;
    let mut one = trial.pod.watch(&CellSelector::One(theme.clone())).await;
    let mut all = trial.pod.watch(&below("app")).await;
    one.present().await;
    all.present().await;
    trial.pod.try_delete(&theme, rev).await.expect("deleted");
    for watch in [&mut one, &mut all] {
        let change = told(watch, &theme, rev).await;
        assert!(matches!(change, Change::Gone { rev: at, .. } if at > rev), "{change:?}");
    }
    let next = trial.pod.cas(&theme, Expected::Absent, "y").await;
    assert!(matches!(told(&mut one, &theme, next).await, Change::Put { .. }));
}

pub(super) async fn s5_an_expiry_is_told_though_nobody_touches_the_cell(trial: Trial) {
    let login = cell(["session", "login"]);
    let mut one = trial.pod.watch(&CellSelector::One(login.clone())).await;
    let mut all = trial.pod.watch(&below("session")).await;
    one.present().await;
    all.present().await;
    let rev = trial.pod.cas_for(&login, Expected::Absent, Duration::from_secs(1)).await;
    for watch in [&mut one, &mut all] {
        // The value itself may be coalesced with its end.
        let change = told(watch, &login, Rev(rev.0 + 1)).await;
        assert!(matches!(change, Change::Gone { .. }), "{change:?}");
    }
}

pub(super) async fn s5_a_prefix_is_of_whole_segments(trial: Trial) {
    let names = hostile();
    let prefix = cell(["a"]);
    let mut expected = Vec::new();
    for name in &names {
        let inside = cell(["a", name]);
        expected.push((inside.clone(), trial.pod.cas(&inside, Expected::Absent, "in").await));
        for outside in [cell([&format!("a{name}"), "x"]), cell([name]), cell([&format!("a/{name}")])] {
            // Some of these are one cell, which is there already.
            trial.pod.try_cas(&outside, Expected::Absent, "out").await.ok();
        }
    }
    expected.sort();
    let mut watch = trial.pod.watch(&CellSelector::Below(prefix)).await;
    let mut present = watch.present().await;
    present.sort();
    assert_eq!(present, expected);
    for outside in
        [cell(["a"]), cell(["ab"]), cell(["a-b", "live"]), cell(["a0", "live"]), cell(["a/b", "live"])]
    {
        trial.pod.try_cas(&outside, Expected::Absent, "out").await.ok(); // There, or written now.
    }
    let inside = cell(["a", "live", "deep"]);
    trial.pod.cas(&inside, Expected::Absent, "in").await;
    let change = watch.next().await;
    assert!(matches!(&change, Change::Put { key, .. } if *key == inside), "{change:?}");
}

pub(super) async fn s5_a_change_during_the_replay_is_not_missed(trial: Trial) {
    let cells: Vec<_> = (0..500).map(|n| cell(["app", &format!("{n:03}")])).collect();
    let mut latest = BTreeMap::new();
    for cell in &cells {
        latest.insert(cell.clone(), trial.pod.cas(cell, Expected::Absent, "1").await);
    }
    let mut watch = trial.pod.watch(&below("app")).await;
    assert_eq!(watch.next().await, Change::Begin);
    let mut known = BTreeMap::new();
    while known.len() < 200 {
        let Change::Put { key, rev, .. } = watch.next().await else { panic!("five hundred are there") };
        known.insert(key, rev);
    }
    // Some that were replayed and some that were not, changed and deleted in the middle of it.
    for (n, cell) in cells.iter().enumerate().step_by(7) {
        let rev = latest[cell];
        if n % 2 == 0 {
            latest.insert(cell.clone(), trial.pod.cas(cell, Expected::At(rev), "2").await);
        } else {
            trial.pod.try_delete(cell, rev).await.expect("deleted");
            latest.remove(cell);
        }
    }
    let mut ended = false;
    while !ended || known != latest {
        match watch.next().await {
            Change::Put { key, rev, .. } => drop(known.insert(key, rev)),
            Change::Gone { key, .. } => drop(known.remove(&key)),
            Change::End => ended = true,
            Change::Begin => panic!("the present begins once"),
        }
    }
}

pub(super) async fn s5_a_watch_of_one_cell_tells_of_no_other(trial: Trial) {
    let (mine, other, child) = (cell(["a", "b"]), cell(["a", "c"]), cell(["a", "b", "d"]));
    let mut watch = trial.pod.watch(&CellSelector::One(mine.clone())).await;
    watch.present().await;
    trial.pod.cas(&other, Expected::Absent, "x").await;
    trial.pod.cas(&child, Expected::Absent, "x").await;
    trial.pod.cas(&mine, Expected::Absent, "x").await;
    let change = watch.next().await;
    assert!(matches!(&change, Change::Put { key, .. } if *key == mine), "{change:?}");
}

pub(super) async fn s5_a_slow_watch_still_tells_the_latest(trial: Trial) {
    let cells: Vec<_> = (0..3).map(|n| cell(["app", &n.to_string()])).collect();
    let mut slow = trial.pod.watch(&below("app")).await;
    let mut one = trial.pod.watch(&CellSelector::One(cells[0].clone())).await;
    slow.present().await;
    one.present().await;
    let mut revs = [None; 3];
    for n in 0..3000 {
        let expected = revs[n % 3].map_or(Expected::Absent, Expected::At);
        revs[n % 3] = Some(trial.pod.cas(&cells[n % 3], expected, n.to_string()).await);
    }
    let latest = |n: usize| revs[n].expect("written");
    assert!(
        matches!(told(&mut one, &cells[0], latest(0)).await, Change::Put { rev, .. } if rev == latest(0))
    );
    let mut last: BTreeMap<CellKey, Rev> = BTreeMap::new();
    while (0..3).any(|n| last.get(&cells[n]) != Some(&latest(n))) {
        let Change::Put { key, rev, .. } = slow.next().await else { panic!("nothing was deleted") };
        assert!(last.insert(key, rev).is_none_or(|before| before < rev), "revisions rise");
    }
}

pub(super) async fn s5_a_watch_and_the_store_agree_under_concurrent_writes(trial: Trial) {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 60;
    let written = |task: usize| (0..10).map(move |n| cell(["app", &format!("{task}-{n}")]));
    let done = |task: usize| cell(["app", &format!("{task}-done")]);
    together(WRITERS + 3, |task| {
        let pod = trial.pod.clone();
        async move {
            if task < WRITERS {
                let cells: Vec<_> = written(task).collect();
                let mut revs = vec![Expected::Absent; cells.len()];
                for n in 0..ROUNDS {
                    revs[n % 10] = Expected::At(pod.cas(&cells[n % 10], revs[n % 10], n.to_string()).await);
                }
                // Every other one is deleted, so that a watch has removals to miss.
                for (cell, rev) in cells.iter().zip(revs).step_by(2) {
                    let Expected::At(rev) = rev else { panic!("each was written") };
                    pod.try_delete(cell, rev).await.expect("nobody else writes it");
                }
                pod.cas(&done(task), Expected::Absent, "done").await;
                return;
            }
            let mut watch = pod.watch(&below("app")).await;
            let mut known: BTreeMap<_, _> = watch.present().await.into_iter().collect();
            // A change that never comes is a wait in vain.
            while !agrees(&pod, &known, (0..WRITERS).map(done), (0..WRITERS).flat_map(written)).await {
                match watch.next().await {
                    Change::Put { key, rev, .. } => {
                        let before = known.insert(key, rev);
                        assert!(before.is_none_or(|before| before <= rev), "revisions rise");
                    }
                    Change::Gone { key, .. } => drop(known.remove(&key)),
                    other => panic!("{other:?}"),
                }
            }
        }
    })
    .await;
}

/// Whether all writers are done, and a watch's picture of what they wrote is the store's.
async fn agrees(
    pod: &Pod,
    known: &BTreeMap<CellKey, Rev>,
    mut done: impl Iterator<Item = CellKey>,
    written: impl Iterator<Item = CellKey>,
) -> bool {
    if !done.all(|cell| known.contains_key(&cell)) {
        return false;
    }
    for cell in written {
        if pod.load(&cell).await.map(|(rev, _)| rev) != known.get(&cell).copied() {
            return false;
        }
    }
    true
}

pub(super) async fn s5_ten_thousand_watches_of_one_cell_each_hear_their_own(trial: Trial) {
    let cells: Vec<_> = (0..10_000).map(|n| cell(["session", &n.to_string()])).collect();
    let mut watches = Vec::new();
    for cell in &cells {
        let mut watch = trial.pod.watch(&CellSelector::One(cell.clone())).await;
        assert_eq!(watch.present().await, []);
        watches.push(watch);
    }
    for (cell, watch) in cells.iter().zip(&mut watches).step_by(7) {
        let rev = trial.pod.cas(cell, Expected::Absent, "x").await;
        let change = watch.next().await;
        assert!(
            matches!(&change, Change::Put { key, rev: at, .. } if key == cell && *at == rev),
            "{change:?}"
        );
    }
}
