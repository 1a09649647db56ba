//! An event with one of everything, for every codec.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// Every kind of value serde knows, but `f32` and `char`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) number: u64,
    pub(crate) balance: i64,
    pub(crate) weight: f64,
    pub(crate) note: String,
    pub(crate) gift: bool,
    pub(crate) coupon: Option<String>,
    pub(crate) referrer: Option<u32>,
    pub(crate) lines: Vec<Line>,
    pub(crate) labels: BTreeMap<String, i16>,
    pub(crate) origin: (u8, i8),
    pub(crate) digest: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Line {
    Discount,
    Text(String),
    Pair(u16, u16),
    Item { sku: Sku, quantity: u32 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sku(pub(crate) String);

impl Order {
    pub(crate) fn example() -> Self {
        Self {
            number: 1 << 40,
            balance: -1_999,
            weight: 0.5,
            note: "für später".into(),
            gift: true,
            coupon: None,
            referrer: Some(300),
            lines: vec![
                Line::Item { sku: Sku("tea-01".into()), quantity: 2 },
                Line::Text("engraved".into()),
                Line::Pair(7, 65_535),
                Line::Discount,
            ],
            labels: BTreeMap::from([("fragile".into(), -1), ("hot".into(), 400)]),
            origin: (255, -128),
            digest: vec![0, 127, 128, 255],
        }
    }
}

/// Any order; weights are whole numbers, because JSON does not keep every bit pattern of a float.
pub(crate) fn any_order() -> impl Strategy<Value = Order> {
    let line = prop_oneof![
        Just(Line::Discount),
        any::<String>().prop_map(Line::Text),
        any::<(u16, u16)>().prop_map(|(a, b)| Line::Pair(a, b)),
        (any::<String>(), any::<u32>()).prop_map(|(sku, quantity)| Line::Item { sku: Sku(sku), quantity }),
    ];
    let numbers = (any::<u64>(), any::<i64>(), any::<i32>(), any::<bool>(), any::<(u8, i8)>());
    let rest = (
        any::<String>(),
        any::<Option<String>>(),
        any::<Option<u32>>(),
        prop::collection::vec(line, 0..5),
        prop::collection::btree_map(any::<String>(), any::<i16>(), 0..4),
        any::<Vec<u8>>(),
    );
    (numbers, rest).prop_map(
        |((number, balance, weight, gift, origin), (note, coupon, referrer, lines, labels, digest))| Order {
            number,
            balance,
            weight: f64::from(weight),
            note,
            gift,
            coupon,
            referrer,
            lines,
            labels,
            origin,
            digest,
        },
    )
}
