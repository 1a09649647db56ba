//! How keys, cells and topics become subjects, injectively.
//!
//! A name becomes one token: `A-Z a-z 0-9 - _` stand for themselves and every other byte of its UTF-8 is `=XX` in
//! upper-case hexadecimal. A plain field's unnamed instance is the lone token `=`, which no name becomes.

use std::{collections::HashMap, fmt::Write as _};

use via_backplane::{CellKey, Family, Key, Selector, Topic};

/// The token of a plain field's unnamed instance.
const UNNAMED: &str = "=";

/// The longest prefix, in bytes.
pub(crate) const MAX_PREFIX_BYTES: usize = 32;

/// Whether a prefix can stand in a stream's name and in a subject.
pub(crate) fn is_valid_prefix(prefix: &str) -> bool {
    (1..=MAX_PREFIX_BYTES).contains(&prefix.len()) && prefix.bytes().all(stands_for_itself)
}

fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn encode(name: &str, subject: &mut String) {
    for byte in name.bytes() {
        if stands_for_itself(byte) {
            subject.push(char::from(byte));
        } else {
            write!(subject, "={byte:02X}").expect("a string takes everything");
        }
    }
}

/// The name a token stands for; `None` for a token that no name becomes.
fn decode(token: &str) -> Option<String> {
    let mut name = Vec::with_capacity(token.len());
    let mut bytes = token.bytes();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'=' => {
                let digit = |byte: u8| match byte {
                    b'0'..=b'9' => Some(byte - b'0'),
                    b'A'..=b'F' => Some(byte - b'A' + 10),
                    _ => None,
                };
                let escaped = digit(bytes.next()?)? << 4 | digit(bytes.next()?)?;
                if stands_for_itself(escaped) {
                    return None;
                }
                escaped
            }
            byte if stands_for_itself(byte) => byte,
            _ => return None,
        });
    }
    String::from_utf8(name).ok()
}

/// The subjects of one generation of the event stream.
///
/// The generation is part of them, so that what was addressed to a log that is gone cannot land in its successor.
#[derive(Debug, Clone)]
pub(crate) struct LogSubjects {
    /// `<prefix>.<incarnation>.`
    root: String,
}

impl LogSubjects {
    pub(crate) fn new(prefix: &str, incarnation: &str) -> Self {
        Self { root: format!("{prefix}.{incarnation}.") }
    }

    /// What the stream listens to.
    pub(crate) fn all(&self) -> String {
        format!("{}>", self.root)
    }

    /// Where a key's records go.
    pub(crate) fn events(&self, key: &Key) -> String {
        self.of_key("e.", key)
    }

    /// Where a key's floor is kept: in the log, so that neither outlives the other.
    pub(crate) fn floor(&self, key: &Key) -> String {
        self.of_key("f.", key)
    }

    /// Where all floors of a family are kept: one wildcard.
    pub(crate) fn floors(&self, family: &Family) -> String {
        self.of_family("f.", family)
    }

    /// Where records go that only carry an expectation.
    pub(crate) fn guard(&self) -> String {
        format!("{}g", self.root)
    }

    /// What a reader's selector means; a family is one wildcard.
    pub(crate) fn wanted(&self, selector: &Selector) -> String {
        match selector {
            Selector::Key(key) => self.events(key),
            Selector::Family(family) => self.family(family),
        }
    }

    pub(crate) fn family(&self, family: &Family) -> String {
        self.of_family("e.", family)
    }

    fn of_family(&self, kind: &str, family: &Family) -> String {
        let mut subject = format!("{}{kind}", self.root);
        encode(family.as_str(), &mut subject);
        subject.push_str(".*");
        subject
    }

    fn of_key(&self, kind: &str, key: &Key) -> String {
        let family = key.family().as_str();
        let instance = key.instance_name();
        let length = self.root.len() + kind.len() + family.len() + 1 + instance.map_or(1, str::len);
        let mut subject = String::with_capacity(length);
        subject.push_str(&self.root);
        subject.push_str(kind);
        encode(family, &mut subject);
        subject.push('.');
        match instance {
            Some(instance) => encode(instance, &mut subject),
            None => subject.push_str(UNNAMED),
        }
        subject
    }

    /// The key of a record's subject; `None` for one that no key becomes.
    pub(crate) fn key(&self, subject: &str) -> Option<Key> {
        let (family, instance) = subject.strip_prefix(&self.root)?.strip_prefix("e.")?.split_once('.')?;
        let family = Family::new(decode(family)?).ok()?;
        if instance == UNNAMED {
            return Some(Key::of(&family));
        }
        Key::instance(&family, decode(instance)?).ok()
    }
}

/// The subjects of one generation of the bucket.
#[derive(Debug, Clone)]
pub(crate) struct CellSubjects {
    /// `$KV.<bucket>.<incarnation>.`
    root: String,
    /// `<prefix>.<incarnation>.c.`
    news: String,
}

impl CellSubjects {
    pub(crate) fn new(prefix: &str, bucket: &str, incarnation: &str) -> Self {
        Self { root: format!("$KV.{bucket}.{incarnation}."), news: format!("{prefix}.{incarnation}.c.") }
    }

    /// What the bucket listens to.
    pub(crate) fn all(&self) -> String {
        format!("{}>", self.root)
    }

    /// Where the bucket tells of what it has stored.
    pub(crate) fn all_news(&self) -> String {
        format!("{}>", self.news)
    }

    /// Where a cell is kept.
    pub(crate) fn cell(&self, key: &CellKey) -> String {
        Self::below(&self.root, key)
    }

    /// Where the bucket tells of a cell.
    pub(crate) fn news(&self, key: &CellKey) -> String {
        Self::below(&self.news, key)
    }

    fn below(root: &str, key: &CellKey) -> String {
        let mut subject = String::with_capacity(root.len() + key.as_str().len());
        subject.push_str(root);
        for (index, segment) in key.as_str().split('/').enumerate() {
            if index > 0 {
                subject.push('.');
            }
            encode(segment, &mut subject);
        }
        subject
    }

    /// Where all cells below a path are kept: one wildcard.
    pub(crate) fn cells_below(&self, prefix: &CellKey) -> String {
        format!("{}.>", self.cell(prefix))
    }

    /// The cell of a subject; `None` for one that no cell becomes.
    pub(crate) fn key(&self, subject: &str) -> Option<CellKey> {
        let segments = subject.strip_prefix(&self.root)?.split('.');
        // A cell key's own text has `/` and `%` escaped within a segment, which its constructor does again.
        let segments: Option<Vec<_>> =
            segments.map(|token| Some(decode(token)?.replace("%2F", "/").replace("%25", "%"))).collect();
        CellKey::new(segments?).ok()
    }
}

/// What every pod listens to. Nothing is delivered there; below it, servers report to pods.
pub(crate) fn pods(prefix: &str) -> String {
    format!("{prefix}.pods")
}

/// Where a topic's messages go. They are in no stream.
pub(crate) fn topic(prefix: &str, topic: &Topic) -> String {
    let mut subject = format!("{prefix}.feed.");
    encode(topic.as_str(), &mut subject);
    subject
}

/// How many keys a reader remembers by their subjects; beyond that it starts anew.
const MAX_KNOWN: usize = 4_096;

/// The keys of the subjects a reader has met, so that a record costs a lookup and not an allocation.
#[derive(Debug)]
pub(crate) struct KnownKeys {
    subjects: LogSubjects,
    last: Option<(Box<str>, Key)>,
    known: HashMap<Box<str>, Key>,
}

impl KnownKeys {
    pub(crate) fn new(subjects: LogSubjects) -> Self {
        Self { subjects, last: None, known: HashMap::new() }
    }

    /// The key of a record's subject; `None` for one that no key becomes.
    pub(crate) fn key(&mut self, subject: &str) -> Option<&Key> {
        if self.last.as_ref().is_none_or(|(last, _)| **last != *subject) {
            let key = match self.known.get(subject) {
                Some(key) => key.clone(),
                None => self.meet(subject)?,
            };
            self.last = Some((subject.into(), key));
        }
        self.last.as_ref().map(|(_, key)| key)
    }

    fn meet(&mut self, subject: &str) -> Option<Key> {
        let key = self.subjects.key(subject)?;
        if self.known.len() == MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(subject.into(), key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects() -> LogSubjects {
        LogSubjects::new("via", "00ff")
    }

    fn key(family: &str, instance: Option<&str>) -> Key {
        let family = Family::new(family).expect("a valid name");
        instance.map_or_else(
            || Key::of(&family),
            |instance| Key::instance(&family, instance).expect("a valid name"),
        )
    }

    #[test]
    fn a_key_is_readable_where_it_can_be() {
        assert_eq!(subjects().events(&key("posts", None)), "via.00ff.e.posts.=");
        assert_eq!(subjects().events(&key("rooms", Some("42"))), "via.00ff.e.rooms.42");
        assert_eq!(subjects().floor(&key("a.b", Some("*"))), "via.00ff.f.a=2Eb.=2A");
        let family = Family::new("é").expect("a valid name");
        assert_eq!(subjects().family(&family), "via.00ff.e.=C3=A9.*");
        assert_eq!(subjects().floors(&family), "via.00ff.f.=C3=A9.*");
    }

    #[test]
    fn every_key_comes_back_from_its_subject() {
        let names = ["a", "A", "a.b", "=", "==3D", "*", ">", " ", "\0", "é", "🦀", "a/b", "%2F", "-_"];
        for family in names {
            for instance in names.map(Some).into_iter().chain([None]) {
                let key = key(family, instance);
                assert_eq!(subjects().key(&subjects().events(&key)), Some(key));
            }
        }
    }

    #[test]
    fn a_subject_that_no_key_becomes_is_nobodys() {
        for foreign in [
            "via.00ff.e.posts",
            "via.00ff.e.posts.a.b",
            "via.00ff.e.posts.",
            "via.00ff.e.posts.=6",
            "via.00ff.e.posts.=61",
            "via.00ff.e.posts.=2e",
            "via.00ff.e.posts.=FF",
            "via.00ff.e.po$ts.a",
            "via.00ff.f.posts.=",
            "via.ffff.e.posts.=",
        ] {
            assert_eq!(subjects().key(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn every_cell_comes_back_from_its_subject() {
        let subjects = CellSubjects::new("via", "via-cells", "00ff");
        let cells: [&[&str]; 7] =
            [&["app", "theme"], &["a/b"], &["a", "b"], &["a%2Fb"], &["%"], &["a.b", "*", ">"], &["é"]];
        let mut seen = std::collections::BTreeSet::new();
        for segments in cells {
            let cell = CellKey::new(segments).expect("a valid path");
            let subject = subjects.cell(&cell);
            assert_eq!(subjects.key(&subject), Some(cell));
            assert!(seen.insert(subject.clone()), "{subject} is one cell's");
        }
        let app = CellKey::new(["app"]).expect("a valid path");
        assert_eq!(subjects.cells_below(&app), "$KV.via-cells.00ff.app.>");
        assert_eq!(subjects.news(&app), "via.00ff.c.app");
    }

    #[test]
    fn prefixes_are_what_streams_can_be_called() {
        assert!(is_valid_prefix("via") && is_valid_prefix("shop-2_eu"));
        for wrong in ["", "a.b", "a b", "ä", &"x".repeat(33)] {
            assert!(!is_valid_prefix(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_reader_remembers_a_bounded_number_of_keys() {
        let mut known = KnownKeys::new(subjects());
        for n in 0..=MAX_KNOWN {
            let key = key("rooms", Some(&n.to_string()));
            assert_eq!(known.key(&subjects().events(&key)), Some(&key));
        }
        assert!(known.known.len() <= MAX_KNOWN);
        assert_eq!(known.key("via.00ff.e.po$ts.a"), None);
    }
}
