//! Snapshots and compaction where a server or a connection is in the way.

use std::{collections::BTreeMap, error::Error as _, ops::Range, sync::Arc, time::Duration};

use futures_util::future::join_all;
use nats_servers::{Config, Proxy, Server};
use serde_json::json;
use tokio::time::timeout;
use via_backplane::{
    Backplane, CellSelector, Engine, Key, Offset, ReadRange, Retry, Selector, Status, internal_cell,
};
use vianats::Nats;

use crate::{
    meter::Meter,
    notes::{Noted, PATIENCE, Pod, api, builder},
    watches::Watching,
};

/// How long what is to be dropped is announced: short, so that much is dropped in a test's time.
const GRACE: Duration = Duration::from_millis(40);

/// A pod that snapshots every fourth record, and compacts soon after.
async fn saving(url: &str) -> Pod {
    every(4, builder(url)).await
}

/// A pod that snapshots every so many records, and compacts soon after.
async fn every(records: u64, connection: vianats::Builder) -> Pod {
    let backplane: Arc<dyn Backplane> = Arc::new(connection.connect().await.expect("connected"));
    let builder =
        Engine::builder(backplane).with_snapshot_interval(records).with_snapshot_pause(Duration::ZERO);
    let engine = builder.with_compaction_grace(GRACE).start();
    let notes = engine.events("notes").expect("a valid name");
    Pod { engine, notes }
}

/// A connection that looks at what the pods have left on the server.
struct Observer(Nats);

impl Observer {
    async fn on(server: &Server) -> Self {
        Self::with(builder(&server.url())).await
    }

    async fn with(connection: vianats::Builder) -> Self {
        Self(connection.connect().await.expect("connected"))
    }

    async fn floor(&self, key: &Key) -> Offset {
        self.0.compactor().expect("it compacts").floor(key).await.expect("known")
    }

    /// The first record of a key that is left.
    async fn first_left(&self, key: &Key) -> Option<Offset> {
        let all = ReadRange { after: Offset::BEGIN, up_to: Offset(u64::MAX), limit: 1 };
        let read = self.0.log().read(&Selector::Key(key.clone()), all).await.expect("read");
        read.iter().map(|record| record.offset).next()
    }

    /// How many bytes what names a key's snapshots has.
    async fn manifest(&self) -> usize {
        let name = internal_cell(&["snapshots", "notes", "plain"]);
        self.0.store().load(&name).await.expect("loaded").expect("a manifest").bytes.len()
    }

    /// How many chunks there are of which snapshots.
    async fn chunks(&self) -> BTreeMap<String, usize> {
        let below = internal_cell(&["chunks", "notes", "plain"]);
        let chunks = Watching::on(&self.0, CellSelector::Below(below.clone())).await.present().await;
        let mut of = BTreeMap::new();
        for (chunk, _) in chunks {
            let (_, generation) = chunk.as_str().split_at(below.as_str().len() + 1);
            let (generation, _) = generation.split_once('/').expect("a generation and a number");
            *of.entry(generation.to_owned()).or_default() += 1;
        }
        of
    }
}

/// Appends notes until the key's records at and below an offset are gone; answers what was appended.
async fn note_until_dropped(pod: &Pod, observer: &Observer, above: Offset) -> Vec<String> {
    let mut noted = Vec::new();
    let drops = async {
        while observer.first_left(pod.notes.key()).await.is_none_or(|first| first <= above) {
            let text = format!("more:{}", noted.len());
            let position = pod.note(text.clone()).await;
            pod.reaches(&position).await;
            noted.push(text);
        }
    };
    timeout(PATIENCE, drops).await.expect("what snapshots cover is dropped");
    noted
}

/// A pod that comes last sees what was noted, though not all of it is in the log any more.
async fn late_pod_shows(late: Pod, noted: &[String]) {
    assert_shows(&late, noted).await;
    late.stop().await;
}

async fn assert_shows(pod: &Pod, noted: &[String]) {
    let shown = pod.until(|notes| notes.len() >= noted.len()).await;
    // Not compared by `assert_eq`, which would print all of them.
    assert!(*shown == noted, "{} of {} are shown, or others", shown.len(), noted.len());
    assert_eq!(pod.notes.status(), Status::Live);
}

#[tokio::test]
async fn a_snapshot_larger_than_the_server_takes_at_once_is_loaded_whole() {
    const PAYLOAD: usize = 64 << 10;
    let server = Server::start(Config::new().max_payload(PAYLOAD)).expect("a server");
    let pod = saving(&server.url()).await;
    let observer = Observer::on(&server).await;
    let mut noted = Vec::new();
    for number in 0..12 {
        noted.push(format!("{number}:{}", "x".repeat(PAYLOAD / 2)));
        pod.note(noted[number].clone()).await;
    }
    assert_shows(&pod, &noted).await;
    noted.extend(note_until_dropped(&pod, &observer, pod.notes.covered().offset).await);
    let (manifest, chunks) = (observer.manifest().await, observer.chunks().await);
    assert!(manifest < PAYLOAD, "{manifest} bytes");
    assert!(chunks.values().any(|chunks| *chunks > 6), "{chunks:?}");
    late_pod_shows(saving(&server.url()).await, &noted).await;
    pod.stop().await;
}

/// A stream of somebody else, on the same disk.
struct Filler {
    url: String,
    client: async_nats::Client,
}

impl Filler {
    async fn on(server: &Server) -> Self {
        let url = server.url();
        let config =
            json!({ "name": "filler", "subjects": ["filler"], "storage": "file", "retention": "limits" });
        api(&url, "STREAM.CREATE.filler", config).await;
        let client = async_nats::connect(&url).await.expect("connected");
        Self { url, client }
    }

    /// Stores so many bytes at once, for as long as the server takes them.
    async fn fill(&self, bytes: usize) {
        loop {
            let answer = self.client.request("filler", vec![b'x'; bytes].into()).await.expect("an answer");
            let answer: serde_json::Value = serde_json::from_slice(&answer.payload).expect("JSON");
            if answer["error"].is_object() {
                return;
            }
        }
    }

    async fn empty(&self) {
        api(&self.url, "STREAM.PURGE.filler", json!({})).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_loses_nothing() {
    let meter = Meter::default();
    let _here = meter.here();
    let server = Server::start(Config::new().jetstream("max_file_store: 4MB")).expect("a server");
    let (filler, observer) = (Filler::on(&server).await, Observer::on(&server).await);
    // What a full server refuses is asked for again for as long as a request may take.
    let connection = || builder(&server.url()).request_timeout(Duration::from_secs(1));
    let idle = every(u64::MAX, connection()).await;
    let mut noted = Vec::new();
    for number in 0..8 {
        noted.push(format!("before:{number}"));
        idle.note(noted[number].clone()).await;
    }
    assert_shows(&idle, &noted).await;
    idle.stop().await;

    filler.fill(64 << 10).await;
    // It shows what is there, and a snapshot of so many records is due at once.
    let pod = every(4, connection()).await;
    assert_shows(&pod, &noted).await;
    let written = || meter.count("via_snapshot_written_total", "notes");
    let failures = || meter.count("via_snapshot_failures_total", "notes");
    until(|| failures() > 0).await;
    assert_eq!(written(), 0);
    let refused = pod.notes.append(Noted { text: "refused".into() }).await.expect_err("there is no room");
    assert_eq!(refused.retry(), Retry::Safe, "{refused:?}");
    let cause = refused.source().expect("what the server said").to_string();
    assert!(cause.contains("insufficient resources"), "{cause}");
    assert_shows(&pod, &noted).await;

    filler.empty().await;
    noted.extend(note_until_dropped(&pod, &observer, pod.notes.covered().offset).await);
    assert!(written() > 0);
    assert_shows(&pod, &noted).await;
    late_pod_shows(saving(&server.url()).await, &noted).await;
    pod.stop().await;
}

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool) {
    let so = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, so).await.expect("it comes true");
}

#[tokio::test]
async fn a_pod_that_compaction_overtook_shows_the_whole_history() {
    let meter = Meter::default();
    let _here = meter.here();
    let server = Server::start(Config::new()).expect("a server");
    let proxy = Proxy::start(server.addr()).expect("a proxy");
    let observer = Observer::on(&server).await;
    let (writer, paused) = (saving(&server.url()).await, saving(&proxy.url()).await);
    let mut noted = Vec::new();
    let mut note = async |text: &str| {
        writer.note(text).await;
        noted.push(text.to_owned());
    };
    note("seen").await;
    note("seen too").await;
    assert_shows(&paused, &["seen".to_owned(), "seen too".to_owned()]).await;

    proxy.interrupt();
    note("missed").await;
    assert_shows(&writer, &noted).await;
    let missed = writer.notes.covered().offset;
    noted.extend(note_until_dropped(&writer, &observer, missed).await);
    let shown = paused.notes.read().expect("it serves what it knew").len();
    assert_eq!(shown, 2, "it was told nothing meanwhile");
    let count = |name| meter.count(name, "notes");
    assert_eq!(count("via_events_compaction_reseed_total"), 0);

    proxy.restore().expect("the port is still free");
    assert_shows(&paused, &noted).await;
    assert_eq!(count("via_events_compaction_reseed_total"), 1);
    assert_eq!(count("via_events_compaction_gap_halt_total"), 0);
    // It goes on from there.
    noted.push("after".to_owned());
    paused.note("after").await;
    for pod in [&writer, &paused] {
        assert_shows(pod, &noted).await;
    }
    late_pod_shows(saving(&server.url()).await, &noted).await;
    for pod in [writer, paused] {
        pod.stop().await;
    }
}

/// One pod writes a snapshot in the usual case; here nothing keeps any of them from it.
#[tokio::test]
async fn pods_that_snapshot_at_once_leave_one_row_of_snapshots() {
    const PAYLOAD: usize = 64 << 10;
    let meter = Meter::default();
    let _here = meter.here();
    let server = Server::start(Config::new().max_payload(PAYLOAD)).expect("a server");
    let proxy = Proxy::start(server.addr()).expect("a proxy");
    let observer = Observer::on(&server).await;
    let urls = [server.url(), server.url(), proxy.url()];
    let pods = join_all(urls.iter().map(|url| saving(url))).await;
    // Too large for the manifest, so that every snapshot has chunks of its own.
    let text = |pod: usize, number: usize| format!("{pod}:{number}:{}", "x".repeat(PAYLOAD / 16));
    let note = async |pod: usize, numbers: Range<usize>| {
        for number in numbers {
            pods[pod].note(text(pod, number)).await;
        }
    };
    join_all((0..3).map(|pod| note(pod, 0..8))).await;
    same(&pods, 24).await;

    // A lagging one knows of older snapshots and of an older value when it comes back.
    proxy.interrupt();
    join_all((0..2).map(|pod| note(pod, 8..16))).await;
    proxy.restore().expect("the port is still free");
    join_all((0..3).map(|pod| note(pod, 16..24))).await;
    let noted = same(&pods, 64).await;
    for pod in 0..3 {
        let mine: Vec<_> = noted.iter().filter(|note| note.starts_with(&format!("{pod}:"))).collect();
        let numbers = (0..24).filter(|number| pod < 2 || !(8..16).contains(number));
        assert!(
            mine.into_iter().eq(numbers.map(|number| text(pod, number)).collect::<Vec<_>>().iter()),
            "in its order, once"
        );
    }

    // The current one and the one before; what lost, or was displaced, is gone.
    let row = async {
        while observer.chunks().await.len() != 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, row).await.expect("one row of snapshots");
    for wrong in
        ["via_fold_divergence_total", "via_snapshot_unusable_total", "via_events_compaction_gap_halt_total"]
    {
        assert_eq!(meter.count(wrong, "notes"), 0, "{wrong}");
    }
    late_pod_shows(saving(&server.url()).await, &noted).await;
    for pod in pods {
        pod.stop().await;
    }
}

/// Waits until all pods show so many notes; answers the notes, which are the same.
async fn same(pods: &[Pod], count: usize) -> Vec<String> {
    let first = pods[0].until(|notes| notes.len() >= count).await.to_vec();
    assert_eq!(first.len(), count);
    for pod in pods {
        assert_shows(pod, &first).await;
    }
    first
}

#[tokio::test]
async fn a_server_that_restarts_between_a_floor_and_its_drop_loses_nothing() {
    let meter = Meter::default();
    let _here = meter.here();
    // A user whose compactions stop there.
    let server = Server::start(Config::new().extra(
        "authorization { users: [ { user: admin, password: admin },\
         { user: hindered, password: hindered, permissions: { publish: { deny: [\"$JS.API.STREAM.PURGE.>\"] } } } ] }",
    ));
    let server = server.expect("a server");
    let as_user =
        |user| builder(&server.url()).user_and_password(user, user).request_timeout(Duration::from_secs(1));
    let observer = Observer::with(as_user("admin")).await;
    let hindered = every(4, as_user("hindered")).await;
    let key = hindered.notes.key().clone();
    let mut noted = vec!["0".to_owned()];
    hindered.note("0").await;
    assert_shows(&hindered, &noted).await;
    let first = hindered.notes.covered().offset;
    let raises = async {
        while observer.floor(&key).await <= first {
            let text = noted.len().to_string();
            let position = hindered.note(text.clone()).await;
            hindered.reaches(&position).await;
            noted.push(text);
        }
    };
    timeout(PATIENCE, raises).await.expect("a floor is recorded");
    until(|| meter.count("via_compaction_failures_total", "notes") > 0).await;
    server.kill();
    server.restart().expect("started again");

    let admin = every(4, as_user("admin")).await;
    for pod in [&hindered, &admin] {
        assert_shows(pod, &noted).await;
    }
    assert!(observer.floor(&key).await > first);
    assert_eq!(observer.first_left(&key).await, Some(first), "nothing was dropped yet");
    hindered.stop().await;
    let last = admin.notes.covered().offset;
    noted.extend(note_until_dropped(&admin, &observer, last).await);
    assert_shows(&admin, &noted).await;
    late_pod_shows(every(4, as_user("admin")).await, &noted).await;
    admin.stop().await;
}
