//! What handlers were given, on whichever pod.

use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use pods::Delivered;

/// How long a fact may take on a machine that builds meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that pods say of their handlers. Lines of one pod are in its order.
pub(crate) struct Ledger {
    lines: Vec<Line>,
    incoming: Receiver<Line>,
    page: Sender<Line>,
}

/// A handler that was begun, or one that was about to end.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) pod: &'static str,
    pub(crate) of: Delivered,
    is_end: bool,
}

/// Where one pod writes.
pub(crate) struct Page {
    pod: &'static str,
    lines: Sender<Line>,
}

impl Page {
    pub(crate) fn delivered(&self, of: Delivered) {
        self.write(of, false);
    }

    pub(crate) fn handled(&self, of: Delivered) {
        self.write(of, true);
    }

    fn write(&self, of: Delivered, is_end: bool) {
        // A test that has seen enough has dropped the ledger.
        self.lines.send(Line { pod: self.pod, of, is_end }).ok();
    }
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let (page, incoming) = channel();
        Self { lines: Vec::new(), incoming, page }
    }

    pub(crate) fn page(&self, pod: &'static str) -> Page {
        Page { pod, lines: self.page.clone() }
    }

    /// Waits until a handler of this text was begun on this pod; answers with what.
    pub(crate) fn delivered(&mut self, pod: &str, text: &str) -> Delivered {
        self.wait_for(pod, text, false)
    }

    /// Waits until a handler of this text has ended on this pod.
    pub(crate) fn handled(&mut self, pod: &str, text: &str) -> Delivered {
        self.wait_for(pod, text, true)
    }

    fn wait_for(&mut self, pod: &str, text: &str, is_end: bool) -> Delivered {
        let is_it = |line: &Line| line.pod == pod && line.of.text == text && line.is_end == is_end;
        let what = if is_end { "handled" } else { "delivered" };
        self.until(&format!("`{text}` is {what} on `{pod}`"), |lines| {
            lines.iter().find(|line| is_it(line)).map(|line| line.of.clone())
        })
    }

    /// Waits until the lines show what is looked for.
    pub(crate) fn until<T>(&mut self, what: &str, look: impl Fn(&[Line]) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(seen) = look(&self.lines) {
                return seen;
            }
            match self.incoming.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
                Ok(line) => self.lines.push(line),
                Err(error) => panic!("not seen that {what}: {error}; {:#?}", self.lines),
            }
        }
    }

    /// What was delivered, to whichever pod.
    pub(crate) fn deliveries(&mut self) -> Vec<Line> {
        self.lines.extend(self.incoming.try_iter());
        self.lines.iter().filter(|line| !line.is_end).cloned().collect()
    }

    /// The deliveries of one text: to whom, under which term, as which attempt.
    pub(crate) fn deliveries_of(&mut self, text: &str) -> Vec<(&'static str, u64, u32)> {
        let of_it = self.deliveries().into_iter().filter(|line| line.of.text == text);
        of_it.map(|line| (line.pod, line.of.term, line.of.attempt)).collect()
    }

    /// Asserts what is to be true whatever has happened: of every event a handler has ended, a term is one pod's, and under it events
    /// come in the order of the log, none of them left out, and none twice.
    pub(crate) fn is_sound(&mut self, appended: &[(u64, String)]) {
        let mut terms = BTreeMap::<u64, (&str, Vec<u64>)>::new();
        for Line { pod, of, .. } in self.deliveries() {
            let (owner, offsets) = terms.entry(of.term).or_insert((pod, Vec::new()));
            assert_eq!(*owner, pod, "two pods under term {}: {:#?}", of.term, self.lines);
            offsets.push(of.offset);
        }
        for (term, (_, offsets)) in &terms {
            let between = offsets[0]..=offsets[offsets.len() - 1];
            let all: Vec<_> =
                appended.iter().map(|(offset, _)| *offset).filter(|at| between.contains(at)).collect();
            assert_eq!(*offsets, all, "under term {term}: {:#?}", self.lines);
        }
        for (offset, text) in appended {
            let is_it = |line: &&Line| line.of.offset == *offset && line.is_end;
            let ended = self.lines.iter().find(is_it);
            let ended = ended.unwrap_or_else(|| panic!("`{text}` was skipped: {:#?}", self.lines));
            assert_eq!(ended.of.text, *text);
            let is_other = |line: &&Line| line.of.offset == *offset && line.of.id != ended.of.id;
            assert!(!self.lines.iter().any(|line| is_other(&line)), "one event, one id: {:#?}", self.lines);
        }
    }
}
