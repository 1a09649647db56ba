//! What a pod tells whoever operates it: its log and its metrics.

use std::{io::Write, sync::Arc};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use crate::notes::PATIENCE;

/// What was logged while it lives, on this thread, which runs the whole test.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.text().lines().filter(|line| line.contains(" WARN ")).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// What was counted while it lives, on this thread.
pub(crate) struct Meter(PrometheusHandle);

impl Meter {
    /// Runs a test whose metrics are kept.
    pub(crate) fn start() -> (Self, metrics::LocalRecorderGuard<'static>) {
        // One for each test, and a test is a process.
        let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
        (Self(recorder.handle()), metrics::set_default_local_recorder(recorder))
    }

    /// A metric's value, named with its labels as Prometheus writes it; nothing where it was never recorded.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        let text = self.0.render();
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.next()?.parse().ok()
    }

    /// Waits until a metric has this value.
    pub(crate) async fn says(&self, name: &str, wanted: f64) {
        let says = async {
            while self.value(name) != Some(wanted) {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, says).await;
        assert!(in_time.is_ok(), "`{name}` is {:?}, not {wanted}", self.value(name));
    }
}
