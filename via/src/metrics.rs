//! Every metric the web side emits, by name; `docs/metrics.md` explains each.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use via_backplane::metrics::{Kind, Metric};

pub(crate) const TAB_STREAMS: &str = "via_tab_streams";
pub(crate) const TAB_STREAMS_OPENED: &str = "via_tab_streams_opened_total";
pub(crate) const TAB_DOCUMENTS: &str = "via_tab_documents_total";
pub(crate) const ACTION_TOTAL: &str = "via_action_total";
pub(crate) const ACTION_SECONDS: &str = "via_action_seconds";
pub(crate) const ACTION_RUNNING: &str = "via_action_running";
pub(crate) const FRAME_RENDERED: &str = "via_frame_rendered_total";
pub(crate) const FRAME_RENDER_SECONDS: &str = "via_frame_render_seconds";
pub(crate) const FRAME_FAILED: &str = "via_frame_failed_total";
pub(crate) const FRAME_PUBLISHED: &str = "via_frame_published_total";
pub(crate) const FRAME_BYTES: &str = "via_frame_bytes";
pub(crate) const FRAME_SENT: &str = "via_frame_sent_total";
pub(crate) const FRAME_TASKS: &str = "via_frame_tasks";

/// Every metric the web side emits.
pub(crate) const CATALOGUE: &[Metric] = &[
    Metric::new(TAB_STREAMS, Kind::Gauge, &["page"], "tabs whose stream this pod holds"),
    Metric::new(TAB_STREAMS_OPENED, Kind::Counter, &["page"], "streams opened; reconnects count again"),
    Metric::new(TAB_DOCUMENTS, Kind::Counter, &["page"], "documents served"),
    Metric::new(
        ACTION_TOTAL,
        Kind::Counter,
        &["page", "outcome"],
        "actions by the code they were answered with",
    ),
    Metric::new(
        ACTION_SECONDS,
        Kind::Histogram,
        &["page"],
        "time an action ran, without reading its request",
    ),
    Metric::new(ACTION_RUNNING, Kind::Gauge, &["page"], "actions running now"),
    Metric::new(FRAME_RENDERED, Kind::Counter, &["page"], "renders of a view, for documents and for streams"),
    Metric::new(FRAME_RENDER_SECONDS, Kind::Histogram, &["page"], "time one render took"),
    Metric::new(
        FRAME_FAILED,
        Kind::Counter,
        &["page", "reason"],
        "renders without a result: panicked, or not loaded in time",
    ),
    Metric::new(
        FRAME_PUBLISHED,
        Kind::Counter,
        &["page"],
        "frames that differed from the last and went to the page's tabs",
    ),
    Metric::new(FRAME_BYTES, Kind::Histogram, &["page"], "size of a published frame as an event"),
    Metric::new(FRAME_SENT, Kind::Counter, &["page"], "frames sent, counted once per tab"),
    Metric::new(
        FRAME_TASKS,
        Kind::Gauge,
        &["page"],
        "views kept up to date, one per page and parameters with a tab",
    ),
];

/// A page's handles, looked up once.
pub(crate) struct OfPage {
    page: Arc<str>,
    pub(crate) streams: Gauge,
    pub(crate) streams_opened: Counter,
    pub(crate) documents: Counter,
    pub(crate) action_seconds: Histogram,
    pub(crate) actions_running: Gauge,
    pub(crate) rendered: Counter,
    pub(crate) render_seconds: Histogram,
    pub(crate) published: Counter,
    pub(crate) frame_bytes: Histogram,
    pub(crate) sent: Counter,
    pub(crate) frame_tasks: Gauge,
}

impl OfPage {
    pub(crate) fn new(page: &Arc<str>) -> Self {
        Self {
            page: page.clone(),
            streams: gauge!(TAB_STREAMS, "page" => page.clone()),
            streams_opened: counter!(TAB_STREAMS_OPENED, "page" => page.clone()),
            documents: counter!(TAB_DOCUMENTS, "page" => page.clone()),
            action_seconds: histogram!(ACTION_SECONDS, "page" => page.clone()),
            actions_running: gauge!(ACTION_RUNNING, "page" => page.clone()),
            rendered: counter!(FRAME_RENDERED, "page" => page.clone()),
            render_seconds: histogram!(FRAME_RENDER_SECONDS, "page" => page.clone()),
            published: counter!(FRAME_PUBLISHED, "page" => page.clone()),
            frame_bytes: histogram!(FRAME_BYTES, "page" => page.clone()),
            sent: counter!(FRAME_SENT, "page" => page.clone()),
            frame_tasks: gauge!(FRAME_TASKS, "page" => page.clone()),
        }
    }

    pub(crate) fn answered(&self, outcome: &'static str) {
        counter!(ACTION_TOTAL, "page" => self.page.clone(), "outcome" => outcome).increment(1);
    }

    pub(crate) fn render_failed(&self, reason: &'static str) {
        counter!(FRAME_FAILED, "page" => self.page.clone(), "reason" => reason).increment(1);
    }
}

/// One more for as long as it lives.
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The rows of the page: name, type, labels.
    fn listed() -> BTreeSet<[String; 3]> {
        let page = include_str!("../../docs/metrics.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `via_"));
        rows.map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().replace('`', ""));
            let mut cell = || cells.next().expect("a row has a name, a type and labels");
            [format!("via_{}", cell()), cell(), cell()]
        })
        .collect()
    }

    #[test]
    fn the_page_lists_exactly_what_the_code_emits() {
        let catalogue = CATALOGUE.iter().chain(via_backplane::metrics::CATALOGUE);
        let emitted: BTreeSet<_> = catalogue
            .map(|metric| {
                let kind = format!("{:?}", metric.kind).to_lowercase();
                [metric.name.to_owned(), kind, metric.labels.join(", ")]
            })
            .collect();
        let listed = listed();
        let missing: Vec<_> = emitted.difference(&listed).collect();
        let stale: Vec<_> = listed.difference(&emitted).collect();
        assert!(
            missing.is_empty() && stale.is_empty(),
            "not on the page: {missing:?}; only there: {stale:?}"
        );
    }
}
