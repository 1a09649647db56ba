//! The exporter behind `/metrics`.

use std::{sync::OnceLock, time::Duration};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use via_backplane::{OnStop, Supervisor};

use crate::metrics::CATALOGUE;

/// How often the exporter's buffers are emptied: what nobody scrapes must not grow.
const UPKEEP: Duration = Duration::from_secs(5);
const SECONDS: [f64; 12] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
const BYTES: [f64; 6] = [256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 1_048_576.0];

#[derive(Debug, thiserror::Error)]
#[error("the metrics recorder of this process is taken: install none, or leave out `with_prometheus`")]
struct Taken(#[source] BuildError);

/// The process's one recorder: every app in it shares it, because metrics are the process's.
pub(crate) fn install() -> crate::Result<PrometheusHandle> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = INSTALLING.lock();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let handle = builder().and_then(PrometheusBuilder::install_recorder).map_err(Taken)?;
    CATALOGUE.iter().for_each(via_backplane::metrics::Metric::describe);
    Ok(HANDLE.get_or_init(|| handle).clone())
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".into()), &BYTES)
}

pub(crate) fn keep_up(handle: PrometheusHandle, supervisor: &Supervisor) {
    supervisor.spawn("metrics upkeep", OnStop::Abort, |_stop| async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            handle.run_upkeep();
        }
    });
}
