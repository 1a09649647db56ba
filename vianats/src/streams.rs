//! The two streams of a prefix: created where they are missing, checked where they are not.

use std::{collections::BTreeMap, sync::atomic::AtomicU64, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use via_backplane::{BackendError, ErrorKind};

use crate::{
    api::{self, ApiError, STREAM_NAME_IN_USE, STREAM_NOT_FOUND},
    generation::{self, Generation, INCARNATION},
    link::{Link, unavailable},
    names::{CellSubjects, LogSubjects},
};

/// Where a stream keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Storage {
    /// On disk. Appends survive restarts of every server.
    #[default]
    File,
    /// In the servers' memory. Appends survive as long as a quorum of servers does.
    Memory,
}

/// What new streams are created with.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// `None`: three where the cluster has three servers, else one.
    pub(crate) replicas: Option<usize>,
    pub(crate) storage: Storage,
    pub(crate) duplicate_window: Duration,
}

/// Deleted cells leave a marker for this long, so that a watch that was away learns of the deletion.
pub(crate) const MARKERS_LIVE: Duration = Duration::from_secs(900);
/// The most replicas JetStream keeps in the usual cluster.
const USUAL_REPLICAS: usize = 3;

/// A stream of a prefix.
pub(crate) trait Kind {
    type Subjects;

    /// Its subjects, given its incarnation.
    fn subjects(prefix: &str, incarnation: &str) -> Self::Subjects;

    /// What it listens to.
    fn listens(subjects: &Self::Subjects) -> String;

    /// The stream's name.
    fn name(prefix: &str) -> String;

    /// Where it tells of what it has stored, if it does.
    fn republishes(subjects: &Self::Subjects) -> Option<Republish>;

    /// What it is created with besides name, subjects and what is wished.
    fn settings(wish: &Wish) -> Value;

    /// The settings whose absence would break a guarantee, with what each one is for.
    fn needs() -> &'static [(&'static str, &'static str)];
}

/// The stream of events and floors.
#[derive(Debug)]
pub(crate) struct Events;

/// The bucket of cells.
#[derive(Debug)]
pub(crate) struct Cells;

impl Kind for Events {
    type Subjects = LogSubjects;

    fn subjects(prefix: &str, incarnation: &str) -> LogSubjects {
        LogSubjects::new(prefix, incarnation)
    }

    fn listens(subjects: &LogSubjects) -> String {
        subjects.all()
    }

    fn republishes(_: &LogSubjects) -> Option<Republish> {
        None
    }

    fn name(prefix: &str) -> String {
        format!("{prefix}-events")
    }

    fn settings(wish: &Wish) -> Value {
        json!({
            "description": "via: events and compaction floors",
            "duplicate_window": nanos(wish.duplicate_window),
            "allow_atomic": true,
        })
    }

    fn needs() -> &'static [(&'static str, &'static str)] {
        &[("allow_atomic", "appends of several records are all or none")]
    }
}

impl Kind for Cells {
    type Subjects = CellSubjects;

    fn subjects(prefix: &str, incarnation: &str) -> CellSubjects {
        CellSubjects::new(prefix, &bucket(prefix), incarnation)
    }

    fn listens(subjects: &CellSubjects) -> String {
        subjects.all()
    }

    fn republishes(subjects: &CellSubjects) -> Option<Republish> {
        Some(Republish { src: subjects.all(), dest: subjects.all_news(), headers_only: false })
    }

    fn name(prefix: &str) -> String {
        format!("KV_{}", bucket(prefix))
    }

    fn settings(_: &Wish) -> Value {
        json!({
            "description": "via: cells",
            // A bucket that is created anew counts on from the time, faster than which nobody writes: a revision of the one
            // that is gone is never met again.
            "first_seq": jiff::Timestamp::now().as_microsecond(),
            // More than one would shorten the time to live of the latest value.
            "max_msgs_per_subject": 1,
            "allow_msg_ttl": true,
            "subject_delete_marker_ttl": nanos(MARKERS_LIVE),
            "allow_rollup_hdrs": true,
            "deny_delete": true,
            "allow_direct": true,
        })
    }

    fn needs() -> &'static [(&'static str, &'static str)] {
        &[("allow_msg_ttl", "cells expire"), ("subject_delete_marker_ttl", "watches learn of an expiry")]
    }
}

fn bucket(prefix: &str) -> String {
    format!("{prefix}-cells")
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A stream's own publishing of what it has stored, once it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Republish {
    src: String,
    dest: String,
    #[serde(default)]
    headers_only: bool,
}

/// What the server says about a stream, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Info {
    pub(crate) config: Config,
    pub(crate) created: jiff::Timestamp,
    #[serde(default)]
    pub(crate) state: State,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct State {
    #[serde(default)]
    pub(crate) subjects: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Config {
    pub(crate) name: String,
    #[serde(default)]
    subjects: Vec<String>,
    #[serde(default)]
    retention: String,
    #[serde(default)]
    discard: String,
    #[serde(default)]
    discard_new_per_subject: bool,
    #[serde(default)]
    max_msgs: i64,
    #[serde(default)]
    max_bytes: i64,
    #[serde(default)]
    max_age: i64,
    #[serde(default)]
    max_msgs_per_subject: i64,
    #[serde(default)]
    max_msg_size: i64,
    #[serde(default)]
    pub(crate) storage: Storage,
    #[serde(default)]
    pub(crate) num_replicas: usize,
    #[serde(default)]
    duplicate_window: u64,
    #[serde(default)]
    sealed: bool,
    #[serde(default)]
    no_ack: bool,
    #[serde(default)]
    deny_purge: bool,
    #[serde(default)]
    pub(crate) persist_mode: String,
    #[serde(default)]
    republish: Option<Republish>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// Creates the stream where it is missing; answers what is there then, checked.
///
/// # Errors
/// [`ErrorKind::Misconfigured`] if what is there would lose data, with what to change.
pub(crate) async fn ensure<K: Kind>(
    link: &Link,
    prefix: &str,
    wish: &Wish,
) -> Result<(Generation<K::Subjects>, Info), BackendError> {
    let info = match info::<K>(link, prefix).await {
        Err(ApiError::Refused(refusal)) if refusal.err_code == STREAM_NOT_FOUND => {
            create::<K>(link, prefix, wish).await?
        }
        found => found?,
    };
    check::<K>(prefix, &info)?;
    let generation = generation_of::<K>(prefix, &info)?;
    Ok((generation, info))
}

/// Asks which generation of the stream is there now.
pub(crate) async fn look<K: Kind>(
    link: &Link,
    prefix: &str,
) -> Result<Generation<K::Subjects>, BackendError> {
    match info::<K>(link, prefix).await {
        Ok(info) => generation_of::<K>(prefix, &info),
        Err(ApiError::Refused(refusal)) if refusal.err_code == STREAM_NOT_FOUND => Err(gone::<K>(prefix)),
        Err(error) => Err(error.into()),
    }
}

/// A live pod does not create what an operator has deleted: an empty log would look like data that is gone.
fn gone<K: Kind>(prefix: &str) -> BackendError {
    BackendError::new(
        ErrorKind::Misconfigured,
        format!(
            "the stream `{}` was deleted: restore it, or restart a pod to begin with an empty one",
            K::name(prefix)
        ),
    )
}

async fn info<K: Kind>(link: &Link, prefix: &str) -> Result<Info, ApiError> {
    api::call(link, &format!("STREAM.INFO.{}", K::name(prefix)), &json!({})).await
}

async fn create<K: Kind>(link: &Link, prefix: &str, wish: &Wish) -> Result<Info, BackendError> {
    let incarnation = generation::fresh();
    let subjects = K::subjects(prefix, &incarnation);
    let mut settings = K::settings(wish);
    let config = settings.as_object_mut().expect("settings are an object");
    config.insert("name".into(), K::name(prefix).into());
    config.insert("subjects".into(), json!([K::listens(&subjects)]));
    config.insert("republish".into(), json!(K::republishes(&subjects)));
    config.insert("metadata".into(), json!({ INCARNATION: incarnation }));
    config.insert("retention".into(), "limits".into());
    config.insert("discard".into(), "new".into());
    config.insert("storage".into(), json!(wish.storage));
    let mut replicas = wish.replicas.unwrap_or(USUAL_REPLICAS);
    loop {
        settings["num_replicas"] = replicas.into();
        match api::call(link, &format!("STREAM.CREATE.{}", K::name(prefix)), &settings).await {
            Ok(info) => return Ok(info),
            // Another pod was faster: what it created is what counts.
            Err(ApiError::Refused(refusal)) if refusal.err_code == STREAM_NAME_IN_USE => {
                return match info::<K>(link, prefix).await {
                    Err(ApiError::Refused(refusal)) if refusal.err_code == STREAM_NOT_FOUND => {
                        Err(unavailable("another pod is creating the stream").with_source(refusal))
                    }
                    found => Ok(found?),
                };
            }
            Err(ApiError::Refused(refusal))
                if wish.replicas.is_none() && refusal.err_code == NOT_CLUSTERED =>
            {
                replicas = 1;
            }
            // A cluster that is still coming up, or one that is too small: which of the two, time tells. Fewer copies than
            // usual are never made unasked.
            Err(ApiError::Refused(refusal)) if refusal.err_code == NO_SUITABLE_PEERS => {
                return Err(unavailable(format!(
                    "the cluster has too few servers for {replicas} replicas now: wait for them, or ask for fewer"
                ))
                .with_source(refusal));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// "replicas > 1 not supported in non-clustered mode".
const NOT_CLUSTERED: u64 = 10074;
/// "no suitable peers for placement".
const NO_SUITABLE_PEERS: u64 = 10005;

fn generation_of<K: Kind>(prefix: &str, info: &Info) -> Result<Generation<K::Subjects>, BackendError> {
    let hex = info.config.metadata.get(INCARNATION).filter(|hex| hex.len() == 32);
    let incarnation = hex.and_then(|hex| Some((hex, u128::from_str_radix(hex, 16).ok()?)));
    let (hex, incarnation) = incarnation.ok_or_else(|| {
        misconfigured(format!(
            "the stream `{}` exists and is not via's, as its metadata has no `{INCARNATION}`: rename or delete it, or choose \
             another prefix",
            K::name(prefix)
        ))
    })?;
    Ok(Generation {
        number: generation::number(incarnation, info.created),
        incarnation,
        subjects: K::subjects(prefix, hex),
        duplicate_window: Duration::from_nanos(info.config.duplicate_window),
        highest: AtomicU64::new(0),
        over: CancellationToken::new(),
    })
}

fn misconfigured(message: String) -> BackendError {
    BackendError::new(ErrorKind::Misconfigured, message)
}

/// Refuses a stream that would lose what it acknowledges.
fn check<K: Kind>(prefix: &str, info: &Info) -> Result<(), BackendError> {
    let subjects = generation_of::<K>(prefix, info)?.subjects;
    let mut wrong = wrong_settings::<K>(&info.config, &K::listens(&subjects));
    if let Some(needed) = K::republishes(&subjects)
        && info.config.republish.as_ref() != Some(&needed)
    {
        let Republish { src, dest, .. } = needed;
        wrong.push(format!("watches hear of nothing, set `republish` from {src:?} to {dest:?}"));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(misconfigured(format!("the stream `{}` would lose data: {}", K::name(prefix), wrong.join("; "))))
}

/// What is wrong with a stream's settings, each with the one that is right.
fn wrong_settings<K: Kind>(config: &Config, listens: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |is_right: bool, what: String| {
        if !is_right {
            wrong.push(what);
        }
    };
    expect(
        config.subjects == [listens],
        format!("it listens to {:?}, set `subjects` to [{listens:?}]", config.subjects),
    );
    expect(
        config.retention == "limits",
        format!("it drops messages by `{}`, set `retention` to `limits`", config.retention),
    );
    expect(config.max_age == 0, "it drops messages by age, set `max_age` to 0".into());
    let drops_old = config.discard != "new";
    for (name, limit) in [("max_msgs", config.max_msgs), ("max_bytes", config.max_bytes)] {
        expect(
            limit <= 0 || !drops_old,
            format!("`{name}` drops the oldest messages, set it to -1 or `discard` to `new`"),
        );
    }
    let keeps_one = config.max_msgs_per_subject == 1;
    let is_bucket = K::settings(&Wish::default()).get("max_msgs_per_subject").is_some();
    if is_bucket {
        expect(keeps_one, "a bucket keeps one value per cell, set `max_msgs_per_subject` to 1".into());
        expect(
            !config.discard_new_per_subject,
            "cells could not be rewritten, set `discard_new_per_subject` to false".into(),
        );
    } else {
        expect(
            config.max_msgs_per_subject <= 0,
            "it drops a key's oldest events, set `max_msgs_per_subject` to -1".into(),
        );
        expect(!config.deny_purge, "it cannot be compacted, set `deny_purge` to false".into());
        expect(
            config.duplicate_window > 0,
            "appends with an id could be repeated, set `duplicate_window`".into(),
        );
    }
    expect(!config.sealed, "it is sealed and takes no writes".into());
    expect(!config.no_ack, "it acknowledges nothing, set `no_ack` to false".into());
    expect(config.max_msg_size <= 0, "it refuses large messages, set `max_msg_size` to -1".into());
    // These let somebody else write, or change subjects.
    for setting in ["mirror", "sources", "subject_transform"] {
        let is_set = config.rest.get(setting).is_some_and(|value| !value.is_null());
        expect(!is_set, format!("`{setting}` is set, remove it"));
    }
    for (setting, why) in K::needs() {
        let is_set = config.rest.get(*setting).is_some_and(|value| match value {
            Value::Bool(is_on) => *is_on,
            Value::Null => false,
            Value::Number(number) => number.as_u64() != Some(0),
            _ => true,
        });
        expect(is_set, format!("`{setting}` is not set, without which {why} no longer holds"));
    }
    wrong
}

impl Default for Wish {
    fn default() -> Self {
        Self { replicas: None, storage: Storage::File, duplicate_window: Duration::from_secs(120) }
    }
}

/// Lists the subjects of a stream that match a wildcard, in order.
pub(crate) async fn subjects(link: &Link, stream: &str, filter: &str) -> Result<Vec<String>, BackendError> {
    let mut subjects: Vec<String> = Vec::new();
    loop {
        let body = json!({ "subjects_filter": filter, "offset": subjects.len() });
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            total: usize,
            #[serde(flatten)]
            info: Info,
        }
        let page: Page = api::call(link, &format!("STREAM.INFO.{stream}"), &body).await?;
        let before = subjects.len();
        // Pages are cut from what is there when each is asked for, in order: a subject that came meanwhile moves others on to
        // the next page, where they are met again.
        let last = subjects.last().cloned();
        let found = page.info.state.subjects.into_keys();
        subjects.extend(found.filter(|subject| last.as_ref().is_none_or(|last| subject > last)));
        if subjects.len() == before || subjects.len() >= page.total {
            return Ok(subjects);
        }
        if subjects.len() > MAX_LISTED {
            return Err(unavailable(format!("a family has more than {MAX_LISTED} instances")));
        }
    }
}

/// More names than this are not held in memory at once.
const MAX_LISTED: usize = 10_000_000;
