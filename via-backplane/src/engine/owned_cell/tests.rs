//! A cell under races, lost answers and damage.

use std::convert::Infallible;

use super::{
    super::map_store::{Counting, Fault, MapStore},
    *,
};
use crate::internal_cell;

#[derive(Clone, PartialEq, prost::Message)]
struct Count {
    #[prost(uint64, tag = "2")]
    count: u64,
}

impl Owned for Count {
    const FORMAT: u32 = 2;
}

/// The same cell as a later binary knows it.
#[derive(Clone, PartialEq, prost::Message)]
struct LaterCount {
    #[prost(uint64, tag = "2")]
    count: u64,
    #[prost(uint64, tag = "3")]
    step: u64,
}

impl Owned for LaterCount {
    const FORMAT: u32 = 3;
}

fn cell() -> CellKey {
    internal_cell(&["test", "count"])
}

fn add(present: Option<&Held<Count>>) -> Result<Change<Count>, Infallible> {
    Ok(Change::Put(Count { count: present.map_or(0, |present| present.value.count) + 1 }))
}

async fn count(store: &MapStore) -> u64 {
    load::<Count>(&store.another(), &cell()).await.expect("it loads").map_or(0, |held| held.value.count)
}

#[tokio::test]
async fn a_change_creates_and_changes() {
    let (store, chance) = (MapStore::new(), Counting::default());
    assert_eq!(load::<Count>(&store, &cell()).await.expect("it loads"), None);
    let first = change(&store, &chance, &cell(), add).await.expect("changed").expect("stored");
    let second = change(&store, &chance, &cell(), add).await.expect("changed").expect("stored");
    assert!(second.rev > first.rev);
    assert_eq!(load(&store, &cell()).await.expect("it loads"), Some(second));
    assert_eq!(store.ttl(&cell()), Some(Ttl::Forever));
}

#[tokio::test]
async fn keeping_writes_nothing() {
    let store = MapStore::new();
    let kept = change::<Count, Infallible>(&store, &Counting::default(), &cell(), |_| Ok(Change::Keep)).await;
    assert_eq!(kept.expect("kept"), None);
    assert!(store.names().is_empty());
}

#[tokio::test]
async fn a_rejection_writes_nothing() {
    let store = MapStore::new();
    let rejected = change::<Count, _>(&store, &Counting::default(), &cell(), |_| Err("no")).await;
    assert!(matches!(rejected, Err(ChangeError::Rejected("no"))), "{rejected:?}");
    assert!(store.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_runs_the_edit_on_what_the_winner_wrote() {
    // Paused between its load and its write, the loser's revision is taken.
    let store = MapStore::new().script(1, Fault::Pause);
    let (chance, cell) = (Counting::default(), cell());
    let (changed, ()) = tokio::join!(change(&store, &chance, &cell, add), async {
        store.paused().await;
        change(&store.another(), &Counting::from(1), &cell, add).await.expect("changed");
        store.resume();
    });
    assert_eq!(changed.expect("changed").expect("stored").value.count, 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_always_loses_gives_up() {
    let store = MapStore::new();
    let other = store.another();
    let contended = change::<Count, Infallible>(&store, &Counting::default(), &cell(), |present| {
        // Whoever wins does so between this change's load and its write.
        other.overwrite(&cell(), seal(&Bytes::from_static(b"other"), &Count { count: 7 }));
        add(present)
    })
    .await;
    assert!(matches!(contended, Err(ChangeError::Contended)), "{contended:?}");
}

#[tokio::test]
async fn a_write_at_another_revision_conflicts() {
    let (store, chance) = (MapStore::new(), Counting::default());
    let held = change(&store, &chance, &cell(), add).await.expect("changed").expect("stored");
    let put = async |expected| {
        put_at(&store, &chance, &cell(), expected, Count { count: 9 }).await.expect("an outcome")
    };
    let stale = put(Expected::Absent).await;
    assert!(matches!(stale, Put::Conflict), "{stale:?}");
    let exact = put(Expected::At(held.rev)).await;
    assert!(matches!(exact, Put::Written(_)), "{exact:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_found_by_its_nonce() {
    for lost in [Fault::LoseAck, Fault::LoseRequest] {
        let store = MapStore::new().script(1, lost);
        let changed = change(&store, &Counting::default(), &cell(), add).await;
        assert_eq!(changed.expect("changed").expect("stored").value.count, 1, "{lost:?}");
        assert_eq!(count(&store).await, 1, "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_that_was_overwritten_stays_unknown() {
    // The write lands, its answer is lost, and before the repeat somebody else writes.
    let store = MapStore::new().script(1, Fault::LoseAck).script(2, Fault::Pause);
    let (chance, cell) = (Counting::default(), cell());
    let (changed, ()) = tokio::join!(change(&store, &chance, &cell, add), async {
        store.paused().await;
        change(&store.another(), &Counting::from(1), &cell, add).await.expect("changed");
        store.resume();
    });
    assert!(matches!(changed, Err(ChangeError::Cell(OwnedError::Unknown(_)))), "{changed:?}");
    assert_eq!(count(&store).await, 2, "it was committed, and run only once");
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_outlasts_the_repeats_stays_unknown() {
    let store = MapStore::new();
    store.always(Some(Fault::LoseRequest));
    let put = put_at(&store, &Counting::default(), &cell(), Expected::Absent, Count { count: 1 }).await;
    let unknown = put.expect_err("nobody knows");
    assert!(matches!(unknown, OwnedError::Unknown(_)), "{unknown:?}");
    assert_eq!(unknown.retry(), Retry::MayDuplicate);
}

#[tokio::test]
async fn a_failure_before_the_write_is_no_unknown_outcome() {
    for call in [0, 1] {
        let store = MapStore::new().script(call, Fault::Fail);
        let failed = change(&store, &Counting::default(), &cell(), add).await;
        assert!(matches!(failed, Err(ChangeError::Cell(OwnedError::Backend(_)))), "{failed:?}");
        assert!(store.names().is_empty());
    }
}

#[tokio::test]
async fn a_cell_beyond_the_limit_is_refused() {
    let store = MapStore::with_max_cell(8);
    let refused = change(&store, &Counting::default(), &cell(), add).await;
    assert!(matches!(refused, Err(ChangeError::Cell(OwnedError::TooLarge(_)))), "{refused:?}");
}

#[tokio::test]
async fn damage_anywhere_is_noticed_and_never_overwritten() {
    let (store, chance) = (MapStore::new(), Counting::default());
    change(&store, &chance, &cell(), add).await.expect("changed");
    let good = store.bytes(&cell()).expect("stored");
    let flipped = (0..good.len() * 8).map(|bit| {
        let mut bytes = good.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let truncated = (0..good.len()).map(|len| good[..len].to_vec());
    for damaged in flipped.chain(truncated) {
        store.overwrite(&cell(), damaged.clone());
        let error = change(&store, &chance, &cell(), add).await.expect_err("damaged");
        assert!(matches!(error, ChangeError::Cell(OwnedError::Garbled { .. })), "{error:?}");
        assert_eq!(store.bytes(&cell()).expect("still there"), damaged);
    }
}

#[tokio::test]
async fn a_cell_of_a_later_binary_is_left_alone_and_of_an_earlier_one_taken_over() {
    let (store, chance) = (MapStore::new(), Counting::default());
    change(&store, &chance, &cell(), add).await.expect("changed");
    let add_step = |present: Option<&Held<LaterCount>>| {
        let count = present.expect("readable").value.count;
        Ok::<_, Infallible>(Change::Put(LaterCount { count, step: 5 }))
    };
    change(&store, &chance, &cell(), add_step).await.expect("changed");
    let error = change(&store, &chance, &cell(), add).await.expect_err("newer");
    let told = matches!(error, ChangeError::Cell(OwnedError::Newer { format: 3, known: 2, .. }));
    assert!(told, "{error:?}");
    let held = load::<LaterCount>(&store, &cell()).await.expect("it loads").expect("stored");
    assert_eq!((held.value.count, held.value.step), (1, 5));
}

#[test]
fn the_length_is_known_before_it_is_written() {
    let value = Count { count: 300 };
    assert_eq!(sealed_len(&value), seal(&Bytes::from_static(&[9; 16]), &value).len());
}

#[test]
fn the_layout_is_what_the_page_says() {
    let sealed = seal(&Bytes::from_static(&[9; 16]), &Count { count: 300 });
    let (rest, check) = sealed.split_at(sealed.len() - 16);
    assert_eq!(check, &blake3::hash(&rest[..rest.len() - 2]).as_bytes()[..16]);
    assert_eq!(rest, b"\x0a\x10\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x10\xac\x02\x70\x02\x7a\x10");
}
