//! What the conformance suite cannot see: who shares memory with whom, and for how long.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use via_backplane::{
    Append, Backplane, Batch, Entries, Entry, Family, Hole, Key, Offset, ReadRange, Resume, Selector,
    Subscription,
};

use crate::InMemory;

fn family() -> Family {
    Family::new("rooms").expect("a valid name")
}

fn key(instance: &str) -> Key {
    Key::instance(&family(), instance).expect("a valid name")
}

fn append(backplane: &InMemory, key: &Key, record: impl Into<Bytes>) -> Offset {
    let entry = Entry { key: key.clone(), record: record.into() };
    let appended = backplane.log().append(Append::new(Entries::One(entry))).now().expect("ready");
    appended.expect("appended").offsets.get(0).expect("one offset")
}

fn compact(backplane: &InMemory, key: &Key, before: u64) -> Offset {
    let compactor = backplane.compactor().expect("memory compacts");
    let reply = compactor.compact(key, Offset(before));
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(reply)
        .expect("compacted")
}

fn tail(backplane: &InMemory, selector: &Selector, after: u64) -> Subscription {
    let reply = backplane.log().subscribe(selector, Resume::After(Offset(after)));
    reply.now().expect("ready").expect("subscribed")
}

fn next(tail: &mut Subscription) -> Option<Batch> {
    tail.next().now_or_never().map(|batch| batch.expect("never ends").expect("no error"))
}

fn offsets(batch: &Batch) -> Vec<u64> {
    batch.iter().map(|record| record.offset.0).collect()
}

/// Bytes that tell, by their owner's count, whether the log still keeps them.
fn tracked() -> (Arc<()>, Bytes) {
    struct Owner(#[expect(dead_code, reason = "it is counted, not read")] Arc<()>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            b"tracked"
        }
    }
    let count = Arc::new(());
    (count.clone(), Bytes::from_owner(Owner(count)))
}

#[test]
fn a_tail_hands_out_the_chunk_itself() {
    let backplane = InMemory::new();
    append(&backplane, &key("a"), &b"one"[..]);
    let selector = Selector::Family(family());
    let (mut one, mut two) = (tail(&backplane, &selector, 0), tail(&backplane, &selector, 0));
    let (one, two) = (next(&mut one).expect("a batch"), next(&mut two).expect("a batch"));
    let bytes = |batch: &Batch| batch.iter().next().map(|record| record.bytes.as_ptr());
    assert_eq!(bytes(&one), bytes(&two));
}

#[test]
fn a_survivor_does_not_keep_its_neighbours_alive() {
    let backplane = InMemory::new();
    let (lasting, passing) = (key("lasting"), key("passing"));
    append(&backplane, &lasting, &b"kept"[..]);
    let counts: Vec<_> = (0..2000)
        .map(|_| {
            let (count, bytes) = tracked();
            append(&backplane, &passing, bytes);
            count
        })
        .collect();
    // A tail that has read everything and sleeps keeps nothing either.
    let mut tail = tail(&backplane, &Selector::Family(family()), 1990);
    while next(&mut tail).is_some() {}
    compact(&backplane, &passing, 2001);
    let alive = counts.iter().filter(|count| Arc::strong_count(count) > 1).count();
    // The key's head, and at most what a quarter-full neighbour keeps company.
    assert!(alive <= 4, "{alive} dropped records are still in memory");
    drop(tail);
}

#[test]
fn a_batch_that_was_handed_out_does_not_change() {
    let backplane = InMemory::new();
    let a = key("a");
    for _ in 0..10 {
        append(&backplane, &a, &b"x"[..]);
    }
    let mut tail = tail(&backplane, &Selector::Family(family()), 0);
    let batch = next(&mut tail).expect("a batch");
    compact(&backplane, &a, 10);
    assert_eq!(offsets(&batch), (1..=10).collect::<Vec<_>>());
}

#[test]
fn compaction_below_a_running_tail_is_told_with_the_batch_that_crosses_it() {
    let backplane = InMemory::new();
    let (a, b) = (key("a"), key("b"));
    for _ in 0..300 {
        append(&backplane, &a, &b"a"[..]);
        append(&backplane, &b, &b"b"[..]);
    }
    let mut tail = tail(&backplane, &Selector::Family(family()), 0);
    let first = next(&mut tail).expect("a batch");
    let reached = *offsets(&first).last().expect("records");
    compact(&backplane, &a, 401);
    let mut hole = None;
    let mut seen = Vec::new();
    while let Some(batch) = next(&mut tail) {
        // The hole comes before any record behind it.
        if let Some(told) = batch.hole() {
            assert!(seen.is_empty() && hole.is_none(), "told once, and first");
            hole = Some(told.clone());
        }
        seen.extend(offsets(&batch));
    }
    assert_eq!(hole, Some(Hole { floors: vec![(a, Offset(401))] }));
    assert_eq!(seen, (reached + 1..=600).filter(|o| o % 2 == 0 || *o >= 401).collect::<Vec<_>>());
}

#[test]
fn nobody_is_told_of_a_silent_compaction() {
    let backplane = InMemory::builder().silent_compaction().build();
    let (a, b) = (key("a"), key("b"));
    for _ in 0..300 {
        append(&backplane, &a, &b"a"[..]);
        append(&backplane, &b, &b"b"[..]);
    }
    compact(&backplane, &a, 401);
    for selector in [Selector::Family(family()), Selector::Key(a)] {
        let all = ReadRange { after: Offset::BEGIN, up_to: Offset(u64::MAX), limit: usize::MAX };
        let read = backplane.log().read(&selector, all).now().expect("ready").expect("read");
        assert_eq!(read.hole(), None, "{selector:?}");
        let mut tail = tail(&backplane, &selector, 0);
        while let Some(batch) = next(&mut tail) {
            assert_eq!(batch.hole(), None, "{selector:?}");
        }
    }
}

#[test]
fn a_tail_above_the_floor_is_told_of_no_hole() {
    let backplane = InMemory::new();
    let a = key("a");
    for _ in 0..100 {
        append(&backplane, &a, &b"a"[..]);
    }
    compact(&backplane, &a, 50);
    for selector in [Selector::Family(family()), Selector::Key(a.clone())] {
        let mut above = tail(&backplane, &selector, 49);
        assert_eq!(next(&mut above).expect("a batch").hole(), None, "{selector:?}");
        let mut below = tail(&backplane, &selector, 48);
        let hole = Hole { floors: vec![(a.clone(), Offset(50))] };
        assert_eq!(next(&mut below).expect("a batch").hole(), Some(&hole), "{selector:?}");
    }
}

/// The same log, kept the plain way.
#[derive(Default)]
struct Model {
    records: Vec<(u64, Key)>,
    dropped: Vec<(u64, Key)>,
    floors: BTreeMap<Key, u64>,
}

impl Model {
    fn retained(&self, selector: &Selector, after: u64) -> Vec<u64> {
        let wanted = self.records.iter().filter(|(offset, key)| *offset > after && selector.wants(key));
        wanted.map(|(offset, _)| *offset).collect()
    }

    fn compact(&mut self, key: &Key, before: u64) {
        let head =
            self.records.iter().filter(|(_, k)| k == key).map(|(offset, _)| *offset).max().unwrap_or(0);
        let floor = self.floors.entry(key.clone()).or_default();
        *floor = (*floor).max(before.min(head));
        let floor = *floor;
        let goes = |(offset, k): &mut (u64, Key)| k == key && *offset < floor;
        self.dropped.extend(self.records.extract_if(.., goes));
    }

    /// Records that are gone, between two offsets, and that nobody was told of.
    fn untold(&self, selector: &Selector, after: u64, to: u64, told: &BTreeMap<Key, Offset>) -> Vec<u64> {
        let passed = |offset: &u64| after < *offset && *offset <= to;
        let gone = self.dropped.iter().filter(|(offset, key)| passed(offset) && selector.wants(key));
        gone.filter(|(offset, key)| told.get(key).is_none_or(|floor| floor.0 <= *offset))
            .map(|(offset, _)| *offset)
            .collect()
    }
}

/// A tail that lives through it all.
struct Lasting {
    selector: Selector,
    tail: Subscription,
    after: u64,
    told: BTreeMap<Key, Offset>,
}

impl Lasting {
    fn new(backplane: &InMemory, selector: &Selector) -> Self {
        let tail = tail(backplane, selector, 0);
        Self { selector: selector.clone(), tail, after: 0, told: BTreeMap::new() }
    }

    fn follow(&mut self, batch: &Batch, model: &Model) {
        self.told.extend(batch.hole().into_iter().flat_map(|hole| hole.floors.clone()));
        let seen = offsets(batch);
        let to = *seen.last().expect("a batch has records");
        let mut expected = model.retained(&self.selector, self.after);
        expected.retain(|offset| *offset <= to);
        assert_eq!(seen, expected);
        let untold = model.untold(&self.selector, self.after, to, &self.told);
        assert_eq!(untold, [0; 0], "{:?} crossed these from {} to {to}", self.selector, self.after);
        self.after = to;
    }
}

#[test]
fn any_mix_of_appends_and_compactions_reads_as_the_plain_log_does() {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};
    for seed in 0..40 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let backplane = InMemory::new();
        let mut model = Model::default();
        let keys: Vec<_> = (0..rng.random_range(1..6)).map(|n| key(&n.to_string())).collect();
        let selectors: Vec<_> =
            keys.iter().cloned().map(Selector::Key).chain([Selector::Family(family())]).collect();
        let mut lasting: Vec<_> =
            selectors.iter().map(|selector| Lasting::new(&backplane, selector)).collect();
        for _ in 0..rng.random_range(1..60) {
            let key = &keys[rng.random_range(0..keys.len())];
            if rng.random_ratio(1, 4) {
                let before = rng.random_range(0..model.records.last().map_or(1, |(offset, _)| offset + 9));
                compact(&backplane, key, before);
                model.compact(key, before);
            }
            for _ in 0..rng.random_range(1..200) {
                let offset = append(&backplane, key, &b"r"[..]).0;
                model.records.push((offset, key.clone()));
            }
            for lasting in &mut lasting {
                // Each reads on by a batch or two, so that compaction happens behind, at and ahead of it.
                for _ in 0..rng.random_range(0..3) {
                    let Some(batch) = next(&mut lasting.tail) else { break };
                    lasting.follow(&batch, &model);
                }
            }
            for selector in &selectors {
                let after = rng.random_range(0..=model.records.last().map_or(0, |(offset, _)| *offset));
                let expected = model.retained(selector, after);
                let mut tail = tail(&backplane, selector, after);
                let mut seen = Vec::new();
                while let Some(batch) = next(&mut tail) {
                    seen.extend(offsets(&batch));
                }
                assert_eq!(seen, expected, "seed {seed}, {selector:?} after {after}");
                let limit = rng.random_range(0..600);
                let up_to = after + rng.random_range(0..600);
                let range = ReadRange { after: Offset(after), up_to: Offset(up_to), limit };
                let read = backplane.log().read(selector, range).now().expect("ready").expect("read");
                let expected: Vec<_> =
                    expected.into_iter().filter(|offset| *offset <= up_to).take(limit).collect();
                assert_eq!(offsets(&read), expected, "seed {seed}, {selector:?} {range:?}");
            }
        }
    }
}
