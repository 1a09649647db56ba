//! Snapshots and compaction where a server or a connection is in the way.

use std::{sync::Arc, time::Duration};

use nats_servers::{Config, Server};
use tokio::time::timeout;
use via_backplane::{
    Backplane, CellSelector, Engine, Key, Offset, ReadRange, Selector, Status, internal_cell,
};
use vianats::Nats;

use crate::{
    notes::{PATIENCE, Pod, builder},
    watches::Watching,
};

/// How long what is to be dropped is announced: short, so that much is dropped in a test's time.
const GRACE: Duration = Duration::from_millis(40);

/// A pod that snapshots every fourth record, and compacts soon after.
async fn saving(url: &str) -> Pod {
    let backplane: Arc<dyn Backplane> = Arc::new(builder(url).connect().await.expect("connected"));
    let builder = Engine::builder(backplane).snapshot_interval(4).snapshot_pause(Duration::ZERO);
    let engine = builder.compaction_grace(GRACE).start();
    let notes = engine.events("notes").expect("a valid name");
    Pod { engine, notes }
}

/// A connection that looks at what the pods have left on the server.
struct Observer(Nats);

impl Observer {
    async fn on(server: &Server) -> Self {
        Self(builder(&server.url()).connect().await.expect("connected"))
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

    async fn chunks(&self) -> usize {
        let chunks = CellSelector::Below(internal_cell(&["chunks", "notes"]));
        Watching::on(&self.0, chunks).await.present().await.len()
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
async fn late_pod_shows(url: &str, noted: &[String]) {
    let late = saving(url).await;
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
    assert!(manifest < PAYLOAD && chunks > 6, "a manifest of {manifest} bytes, {chunks} chunks");
    late_pod_shows(&server.url(), &noted).await;
    pod.stop().await;
}
