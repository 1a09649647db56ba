//! How the store's watches are bounded.

use std::{future::poll_fn, task::Poll, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use via_backplane::{Backplane, CellKey, CellSelector, Change, ErrorKind, Expected, Rev, Ttl};

use crate::InMemory;

fn cell(name: &str) -> CellKey {
    CellKey::new(["app", name]).expect("a valid path")
}

async fn put(backplane: &InMemory, key: &CellKey, ttl: Ttl) -> Rev {
    backplane.store().cas(key, Expected::Absent, Bytes::from_static(b"v"), ttl).await.expect("written")
}

#[tokio::test]
async fn a_watch_that_is_never_polled_ends_with_an_error_and_bounded_memory() {
    let backplane = InMemory::new();
    let below = CellSelector::Below(CellKey::new(["app"]).expect("a valid path"));
    let mut watch = backplane.store().watch(&below).await.expect("watching");
    assert_eq!(watch.next().await.expect("an item").expect("a change"), Change::Begin);
    assert_eq!(watch.next().await.expect("an item").expect("a change"), Change::End);
    for n in 0..=65_536 {
        put(&backplane, &cell(&n.to_string()), Ttl::Forever).await;
    }
    let error = watch.next().await.expect("an item").expect_err("it overflowed");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn many_cells_that_expire_at_once_are_all_told() {
    let backplane = InMemory::new();
    let below = CellSelector::Below(CellKey::new(["app"]).expect("a valid path"));
    for n in 0..1000 {
        put(&backplane, &cell(&n.to_string()), Ttl::For(Duration::from_secs(5))).await;
    }
    let mut watch = backplane.store().watch(&below).await.expect("watching");
    let mut last = 0;
    let mut gone = 0;
    while gone < 1000 {
        match watch.next().await.expect("an item").expect("a change") {
            Change::Gone { rev, .. } => {
                assert!(rev.0 > last, "revisions rise");
                last = rev.0;
                gone += 1;
            }
            Change::Put { .. } => assert_eq!(gone, 0, "nothing is put back"),
            Change::Begin | Change::End => {}
        }
    }
    assert!(backplane.store().load(&cell("7")).await.expect("loaded").is_none());
}

#[tokio::test]
async fn a_change_during_the_replay_is_told_once_and_latest() {
    let backplane = InMemory::new();
    let below = CellSelector::Below(CellKey::new(["app"]).expect("a valid path"));
    let names: Vec<_> = (0..200).map(|n| cell(&format!("{n:03}"))).collect();
    for name in &names {
        put(&backplane, name, Ttl::Forever).await;
    }
    let mut watch = backplane.store().watch(&below).await.expect("watching");
    watch.next().await;
    // The first few are replayed now; one of them and one of the rest change.
    watch.next().await;
    let store = backplane.store();
    let early = store.cas(&names[0], Expected::At(Rev(1)), Bytes::from_static(b"new"), Ttl::Forever).await;
    let late = store.cas(&names[199], Expected::At(Rev(200)), Bytes::from_static(b"new"), Ttl::Forever).await;
    store.delete(&names[150], Rev(151)).await.expect("deleted");
    let mut told = Vec::new();
    poll_fn(|cx| {
        while let Poll::Ready(change) = watch.poll_next_unpin(cx) {
            told.push(change.expect("never ends").expect("no error"));
        }
        Poll::Ready(())
    })
    .await;
    let end = told.iter().position(|change| *change == Change::End).expect("the present ends");
    assert!(told[..end].iter().all(|change| matches!(change, Change::Put { key, .. } if *key != names[150])));
    let rev = |change: &Change| match change {
        Change::Put { key, rev, .. } => Some((key.clone(), *rev)),
        _ => None,
    };
    assert_eq!(told[..end].iter().filter_map(rev).last(), Some((names[199].clone(), late.expect("written"))));
    assert_eq!(
        told[end + 1..].iter().filter_map(rev).collect::<Vec<_>>(),
        [(names[0].clone(), early.expect("written"))]
    );
}
