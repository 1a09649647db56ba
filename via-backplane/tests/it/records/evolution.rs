//! Events and states of older versions, as today's program reads them.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use via_backplane::{
    Codec, CodecId, DecodeError, Engine, Event, Events, Fold, HaltReason, MigrateError, Recorded, Status,
    Waited, codec::MessagePack, golden, state,
};
use via_inmem::InMemory;

/// How long a fact may take to come true before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// An order, when it was a text; JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(name = "order.placed", version = 1, codec = "json")]
struct PlacedV1 {
    item: String,
}

/// An order, when it was for one item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(name = "order.placed", version = 2, upcast = PlacedV1)]
struct PlacedV2 {
    item: String,
    quantity: u32,
}

impl From<PlacedV1> for PlacedV2 {
    fn from(PlacedV1 { item }: PlacedV1) -> Self {
        Self { item, quantity: 1 }
    }
}

/// An order as it is today. There never was a version 3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(name = "order.placed", version = 4, upcast = PlacedV2)]
enum Placed {
    Nothing,
    Lines(BTreeMap<String, u32>),
}

impl From<PlacedV2> for Placed {
    fn from(PlacedV2 { item, quantity }: PlacedV2) -> Self {
        match quantity {
            0 => Self::Nothing,
            _ => Self::Lines(BTreeMap::from([(item, quantity)])),
        }
    }
}

fn encoded(event: &impl Event) -> Vec<u8> {
    let mut payload = Vec::new();
    event.encode(&mut payload).expect("the event can be encoded");
    payload
}

/// What today's type reads where an older one was written.
fn read_today<E: Event>(event: &E) -> Placed {
    Placed::decode(E::VERSION, E::CODEC, &encoded(event)).expect("older versions are read")
}

fn any_v1() -> impl Strategy<Value = PlacedV1> {
    any::<String>().prop_map(|item| PlacedV1 { item })
}

fn any_v2() -> impl Strategy<Value = PlacedV2> {
    (any::<String>(), 0..3_u32).prop_map(|(item, quantity)| PlacedV2 { item, quantity })
}

proptest! {
    #[test]
    fn an_event_goes_through_every_version_after_its_own(v1 in any_v1(), v2 in any_v2()) {
        prop_assert_eq!(read_today(&v1), Placed::from(PlacedV2::from(v1)));
        prop_assert_eq!(read_today(&v2), Placed::from(v2.clone()));
        let today = Placed::from(v2);
        prop_assert_eq!(read_today(&today), today);
    }

    #[test]
    fn a_version_nobody_knows_is_never_a_guess(
        version in prop_oneof![0..8_u32, any::<u32>()],
        codec in 0..5_u32,
        payload in any::<Vec<u8>>(),
    ) {
        let answer = Placed::decode(version, CodecId(codec), &payload);
        match version {
            0 => prop_assert!(matches!(answer, Err(DecodeError::NoUpcaster { version: 0, current: 1 })), "{answer:?}"),
            3 => prop_assert!(matches!(answer, Err(DecodeError::NoUpcaster { version: 3, current: 4 })), "{answer:?}"),
            1 | 2 | 4 => {
                let newer = matches!(answer, Err(DecodeError::Newer { .. } | DecodeError::NoUpcaster { .. }));
                prop_assert!(!newer, "{answer:?}");
            }
            _ => {
                let newer = matches!(answer, Err(DecodeError::Newer { version: seen, known: 4 }) if seen == version);
                prop_assert!(newer, "{answer:?}");
            }
        }
    }
}

#[test]
fn each_version_keeps_its_codec() {
    let v1 = PlacedV1 { item: "tea".into() };
    assert_eq!(encoded(&v1), br#"{"item":"tea"}"#);
    let error = Placed::decode(1, CodecId::MESSAGE_PACK, &encoded(&v1)).expect_err("version 1 is JSON");
    let expected = (CodecId::MESSAGE_PACK, CodecId::JSON);
    assert!(
        matches!(error, DecodeError::ForeignCodec { codec, expected: json } if (codec, json) == expected),
        "{error:?}"
    );
}

#[test]
fn stored_orders_are_still_readable() {
    golden::events::<Placed>("tests/golden/order.placed")
        .example("tea", &PlacedV1 { item: "tea".into() })
        .example("two teas", &PlacedV2 { item: "tea".into(), quantity: 2 })
        .example("nothing", &PlacedV2 { item: "tea".into(), quantity: 0 })
        .example("nothing", &Placed::Nothing)
        .example("lines", &Placed::Lines(BTreeMap::from([("milk".into(), 1), ("tea".into(), 2)])))
        .check();
}

/// What was ordered, when only how much was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OrderedV1(u32);

/// What was ordered, when the last item was remembered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OrderedV2 {
    total: u32,
    last: Option<String>,
}

impl From<OrderedV1> for OrderedV2 {
    fn from(OrderedV1(total): OrderedV1) -> Self {
        Self { total, last: None }
    }
}

/// What was ordered, as it is today.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Ordered {
    /// Ordered before items were told apart.
    unknown: u32,
    items: BTreeMap<String, u32>,
}

impl From<OrderedV2> for Ordered {
    fn from(OrderedV2 { total, last }: OrderedV2) -> Self {
        let items: BTreeMap<_, _> = last.into_iter().map(|item| (item, total.min(1))).collect();
        Self { unknown: total - items.values().sum::<u32>(), items }
    }
}

#[state(version = 3, migrate(1 = OrderedV1, 2 = OrderedV2))]
impl Fold<Ordered> for Placed {
    fn fold(self, ordered: &mut Ordered, _at: &Recorded) {
        let Self::Lines(lines) = self else { return };
        for (item, quantity) in lines {
            let sum = ordered.items.entry(item).or_default();
            *sum = sum.saturating_add(quantity);
        }
    }
}

impl Fold<Vec<String>> for PlacedV2 {
    fn fold(self, items: &mut Vec<String>, _at: &Recorded) {
        items.push(self.item);
    }
}

fn migrate(
    version: u32,
    state: &(impl Serialize + for<'a> Deserialize<'a>),
) -> Result<Ordered, MigrateError> {
    let mut snapshot = Vec::new();
    MessagePack::encode(state, &mut snapshot).expect("the state can be encoded");
    <Placed as Fold<Ordered>>::migrate(version, CodecId::MESSAGE_PACK, &snapshot)
}

proptest! {
    #[test]
    fn a_state_goes_through_every_version_after_its_own(total in any::<u32>(), last in any::<Option<String>>()) {
        let v1 = OrderedV1(total);
        let migrated = migrate(1, &v1).expect("version 1 is migrated");
        prop_assert_eq!(migrated, Ordered::from(OrderedV2::from(v1)));
        let v2 = OrderedV2 { total, last };
        prop_assert_eq!(migrate(2, &v2).expect("version 2 is migrated"), Ordered::from(v2));
    }

    #[test]
    fn a_state_nobody_migrates_is_never_a_guess(version in any::<u32>(), codec in 0..4_u32, snapshot in any::<Vec<u8>>()) {
        let answer = <Placed as Fold<Ordered>>::migrate(version, CodecId(codec), &snapshot);
        if !(1..=2).contains(&version) {
            let named = matches!(
                &answer,
                Err(MigrateError::NoMigration { version: seen, current: 3, .. }) if *seen == version
            );
            prop_assert!(named, "{answer:?}");
        }
    }
}

#[test]
fn a_missing_migration_names_all_it_takes_to_write_it() {
    assert_eq!(<Placed as Fold<Ordered>>::STATE_VERSION, 3);
    assert_eq!(<PlacedV2 as Fold<Vec<String>>>::STATE_VERSION, 1, "what is not said has a default");
    let error = migrate(0, &Ordered::default()).expect_err("there was no version 0");
    assert_eq!(
        error.to_string().replace("it::records::evolution::", ""),
        "nothing migrates the state `Ordered` from version 0 to 3: write `migrate(0 = …)` into the `#[state(version = 3)]` \
         of `impl Fold<Ordered> for Placed`, or that impl's `fn migrate`"
    );
    let error = migrate(2, &OrderedV1(3)).expect_err("a number is no version 2");
    assert!(matches!(error, MigrateError::Snapshot { version: 2, .. }), "{error:?}");
    let error =
        <Placed as Fold<Ordered>>::migrate(1, CodecId::JSON, b"3").expect_err("states are MessagePack");
    assert!(matches!(error, MigrateError::Snapshot { version: 1, .. }), "{error:?}");
}

#[test]
fn stored_states_are_still_readable() {
    golden::states::<Placed, Ordered>("tests/golden/ordered")
        .older(1, "three", &OrderedV1(3))
        .older(2, "three", &OrderedV2 { total: 3, last: Some("tea".into()) })
        .example(
            "two items",
            &Ordered { unknown: 2, items: BTreeMap::from([("milk".into(), 1), ("tea".into(), 7)]) },
        )
        .check();
}

fn declare<E: Event + Fold<S>, S: via_backplane::FoldState>(engine: &Engine) -> Events<E, S> {
    engine.events("orders").expect("an upcaster's source claims no event name")
}

async fn until<E, S: Debug>(state: &Events<E, S>, wanted: impl Fn(&Events<E, S>) -> bool) {
    let mut changes = state.changes();
    let reached = async {
        while !wanted(state) {
            assert!(changes.changed().await, "the engine lives");
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("it becomes what it should");
}

#[tokio::test]
async fn a_new_pod_folds_what_old_pods_append_and_halts_them() {
    let memory = InMemory::new();
    let [old, new] = [(); 2].map(|()| Engine::start(Arc::new(memory.clone())));
    let on_old = declare::<PlacedV2, Vec<String>>(&old);
    on_old.append(PlacedV2 { item: "tea".into(), quantity: 2 }).await.expect("memory takes every append");

    let on_new = declare::<Placed, Ordered>(&new);
    let milk = Placed::Lines(BTreeMap::from([("milk".into(), 1)]));
    let position = on_new.append(milk).await.expect("memory takes every append");
    assert_eq!(on_new.wait_for(&position, PATIENCE).await, Waited::Reached);
    let items = BTreeMap::from([("milk".into(), 1), ("tea".into(), 2)]);
    assert_eq!(*on_new.loaded().await, Ordered { unknown: 0, items });

    // The old pod keeps what it could fold, and can still append: what it writes is in the log, behind what it waits for.
    until(&on_old, |orders| matches!(orders.status(), Status::Halted(_))).await;
    let Status::Halted(halt) = on_old.status() else { unreachable!("it stays halted") };
    assert_eq!(halt.reason, HaltReason::NewerVersion { name: "order.placed".into(), version: 4 });
    assert_eq!(*on_old.loaded().await, ["tea"]);
    let late = on_old.append(PlacedV2 { item: "tea".into(), quantity: 1 }).await.expect("it may append");
    assert_eq!(on_new.wait_for(&late, PATIENCE).await, Waited::Reached);
    assert_eq!(on_new.loaded().await.items["tea"], 3);
    for engine in [old, new] {
        engine.shutdown(PATIENCE).await.expect("no task failed");
    }
}
