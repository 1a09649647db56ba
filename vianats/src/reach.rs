//! Until every server knows of a subscription.
//!
//! A server tells the others what its clients listen to, and does not wait for them: a message that is published through
//! another one a moment later may pass by. So a question follows the subscription over the same connections: a message to
//! what every pod listens to, that is traced and not delivered. Each server that has a pod reports that it came by, and
//! where it went from there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::time::timeout;
use via_backplane::{BackendError, ErrorKind};

use crate::{
    link::{Link, unavailable},
    names,
};

const TRACE_TO: &str = "Nats-Trace-Dest";
const TRACE_ONLY: &str = "Nats-Trace-Only";
const TRACE_HOP: &str = "Nats-Trace-Hop";

/// How long a server may take to report; they do within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// What makes this pod's server one of those that are asked.
pub(crate) struct Presence {
    subject: Arc<str>,
    /// Nothing is ever delivered to it.
    _subscription: Subscriber,
}

impl Presence {
    pub(crate) async fn announce(link: &Link, prefix: &str) -> Result<Self, BackendError> {
        let subject = names::pods(prefix);
        let subscription = link.listen(subject.clone()).await?;
        Ok(Self { subject: subject.into(), _subscription: subscription })
    }

    /// Waits until every server that has a pod knows what this one has subscribed to so far. A server that says nothing is not
    /// waited for: one that hangs would keep everybody on the others from listening.
    ///
    /// # Errors
    /// If the connection ends, or a report is not understood.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn is_known(&self, link: &Link) -> Result<(), BackendError> {
        let asked = link.now();
        // Not an inbox: whoever asks for a trace has to be allowed to publish where it goes.
        let reports_to = format!("{}.{:016x}", self.subject, rand::random::<u64>());
        let mut reports = link.listen(reports_to.clone()).await?;
        let mut headers = HeaderMap::new();
        headers.insert(TRACE_TO, reports_to);
        headers.insert(TRACE_ONLY, "true");
        link.send(self.subject.to_string(), Some(headers), Bytes::new()).await?;
        let all = async {
            let mut route = Route::default();
            while !route.is_complete() {
                let report = reports.next().await;
                let report = report.ok_or_else(|| unavailable("the client ended the subscription"))?;
                route.take(&report.payload)?;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            over = link.over(asked, &self.subject) => Err(over),
            all = timeout(PATIENCE, all) => all.unwrap_or_else(|_| {
                tracing::debug!(subject = %self.subject, "a server did not say that it knows of a subscription");
                Ok(())
            }),
        }
    }
}

/// Where a message went, as the servers report it in any order.
#[derive(Debug)]
struct Route {
    /// Where it came by, or is to come by: the way from server to server, `2.1` for the first one after the second one after
    /// ours. Ours is the empty way.
    servers: BTreeMap<String, Came>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    ByNow,
    NotYet,
}

impl Default for Route {
    fn default() -> Self {
        Self { servers: BTreeMap::from([(String::new(), Came::NotYet)]) }
    }
}

impl Route {
    fn is_complete(&self) -> bool {
        self.servers.values().all(|came| *came == Came::ByNow)
    }

    fn take(&mut self, report: &[u8]) -> Result<(), BackendError> {
        #[derive(Deserialize)]
        struct Report {
            request: Request,
            /// To how many servers it went on from there.
            #[serde(default)]
            hops: u16,
        }
        #[derive(Deserialize)]
        struct Request {
            #[serde(default)]
            header: BTreeMap<String, Vec<String>>,
        }
        let mut report: Report = serde_json::from_slice(report).map_err(|error| {
            BackendError::new(ErrorKind::Internal, "a server's trace was not understood").with_source(error)
        })?;
        let way = report.request.header.remove(TRACE_HOP).and_then(|mut ways| ways.pop()).unwrap_or_default();
        for hop in 1..=report.hops {
            let next = if way.is_empty() { hop.to_string() } else { format!("{way}.{hop}") };
            self.servers.entry(next).or_insert(Came::NotYet);
        }
        self.servers.insert(way, Came::ByNow);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(way: &str, hops: usize) -> Vec<u8> {
        let headers = if way.is_empty() { String::new() } else { format!(r#""Nats-Trace-Hop":["{way}"]"#) };
        format!(
            r#"{{"server":{{"name":"n"}},"request":{{"header":{{{headers}}},"msgsize":83}},"hops":{hops}}}"#
        )
        .into_bytes()
    }

    fn complete_after(reports: &[(&str, usize)]) -> Option<usize> {
        let mut route = Route::default();
        for (index, (way, hops)) in reports.iter().enumerate() {
            assert!(!route.is_complete(), "{reports:?} was complete after {index}");
            route.take(&report(way, *hops)).expect("understood");
        }
        route.is_complete().then_some(reports.len())
    }

    #[test]
    fn a_route_is_complete_when_every_server_on_it_has_reported() {
        assert_eq!(complete_after(&[("", 0)]), Some(1));
        assert_eq!(complete_after(&[("", 2), ("1", 0), ("2", 0)]), Some(3));
        assert_eq!(complete_after(&[("", 2), ("1", 0)]), None);
    }

    #[test]
    fn servers_report_in_any_order() {
        assert_eq!(complete_after(&[("2", 0), ("1", 0), ("", 2)]), Some(3));
        assert_eq!(complete_after(&[("1.2", 0), ("", 1), ("1", 2), ("1.1", 0)]), Some(4));
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        assert!(Route::default().take(b"nonsense").is_err());
    }
}
