//! Grouping, on a server that syncs before it acknowledges.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use nats_servers::{Config, Server};
use via_backplane::{Append, Backplane, Entries, Entry, Family, Key, Offset, ReadRange, Selector};

use crate::notes::builder;

#[tokio::test]
async fn appends_that_wait_together_are_each_acknowledged_where_they_are() {
    const APPENDS: usize = 6_000;
    let server = Server::start(Config::new().sync_always()).expect("a server");
    let backplane = builder(&server.url()).connect().await.expect("connected");
    let (posts, news) =
        (Family::new("posts").expect("a valid name"), Family::new("news").expect("a valid name"));
    let key = |n: usize| {
        Key::instance(if n.is_multiple_of(3) { &news } else { &posts }, (n % 7).to_string())
            .expect("a valid name")
    };
    let appends = (0..APPENDS).map(|n| {
        let entry = Entry { key: key(n), record: n.to_string().into() };
        let append = backplane.log().append(Append::new(Entries::One(entry)));
        async move { (n, append.await.expect("appended").offsets.get(0).expect("an offset")) }
    });
    let acknowledged: Vec<_> = stream::iter(appends).buffer_unordered(1_500).collect().await;
    let distinct: BTreeSet<_> = acknowledged.iter().map(|(_, offset)| *offset).collect();
    assert_eq!(distinct.len(), APPENDS, "no two share an offset");
    let mut found = 0;
    for family in [&posts, &news] {
        let all = ReadRange { after: Offset::BEGIN, up_to: Offset(u64::MAX), limit: usize::MAX };
        let read = backplane.log().read(&Selector::Family(family.clone()), all).await.expect("read");
        let records: std::collections::BTreeMap<_, _> =
            read.iter().map(|record| (record.offset, (record.key.clone(), record.bytes.to_vec()))).collect();
        for (n, offset) in acknowledged.iter().filter(|(n, _)| key(*n).family() == family) {
            assert_eq!(
                records.get(offset),
                Some(&(key(*n), n.to_string().into_bytes())),
                "append {n} at {offset}"
            );
            found += 1;
        }
    }
    assert_eq!(found, APPENDS);
    backplane.close().await;
}
