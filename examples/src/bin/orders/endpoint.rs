//! The endpoint that ships, and how it fails.

use std::{collections::BTreeMap, future, io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpListener;

/// How a request goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It is turned away.
    Busy,
    /// It is never answered.
    Silent,
    /// The order is shipped, and the reply never comes.
    ReplyLost,
}

/// What goes wrong with the first requests for an order, after which all goes well; orders take these in turns.
const TROUBLES: [&[Trouble]; 5] =
    [&[Trouble::Busy], &[Trouble::Silent], &[Trouble::ReplyLost], &[Trouble::Busy, Trouble::ReplyLost], &[]];

/// Articles with this in their name cannot be shipped before the endpoint is repaired.
const BROKEN: &str = "broken";

/// What the endpoint does about a request.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Shipped,
    Unavailable,
    Nothing,
}

/// Everything it was ever asked to ship, and did.
#[derive(Default)]
struct Ledger {
    entries: BTreeMap<String, Entry>,
    is_repaired: bool,
}

/// What became of one idempotency key.
#[derive(Serialize)]
struct Entry {
    number: usize,
    article: String,
    /// How often it was asked for.
    asked: usize,
    /// How often it was shipped, which is what the key keeps at one.
    shipped: usize,
}

impl Ledger {
    fn ask(&mut self, key: &str, article: &str) -> Reply {
        let number = self.entries.len();
        let entry = self.entries.entry(key.to_owned()).or_insert_with(|| Entry {
            number,
            article: article.to_owned(),
            asked: 0,
            shipped: 0,
        });
        let trouble = TROUBLES[entry.number % TROUBLES.len()].get(entry.asked);
        entry.asked += 1;
        if entry.shipped > 0 {
            return Reply::Shipped;
        }
        if entry.article.contains(BROKEN) && !self.is_repaired {
            return Reply::Unavailable;
        }
        match trouble {
            Some(Trouble::Busy) => return Reply::Unavailable,
            Some(Trouble::Silent) => return Reply::Nothing,
            Some(Trouble::ReplyLost) | None => entry.shipped += 1,
        }
        trouble.map_or(Reply::Shipped, |_| Reply::Nothing)
    }
}

/// The endpoint, about to be served.
pub(crate) struct Endpoint {
    listener: TcpListener,
    addr: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
#[error("the endpoint cannot listen on {addr}")]
pub(crate) struct ListenError {
    addr: SocketAddr,
    source: io::Error,
}

impl Endpoint {
    pub(crate) async fn listen(addr: SocketAddr) -> Result<Self, ListenError> {
        let refused = |source| ListenError { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, addr })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) async fn serve(self) -> io::Result<()> {
        axum::serve(self.listener, router()).await
    }
}

type Shared = State<Arc<Mutex<Ledger>>>;

fn router() -> Router {
    Router::new()
        .route("/ship", post(ship))
        .route("/repair", post(async |ledger: Shared| ledger.lock().is_repaired = true))
        .route("/ledger", get(show))
        .with_state(Arc::default())
}

async fn ship(ledger: Shared, headers: HeaderMap, article: String) -> Response {
    let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()) else {
        return (StatusCode::BAD_REQUEST, "an order needs an Idempotency-Key").into_response();
    };
    let reply = ledger.lock().ask(key, &article);
    match reply {
        Reply::Shipped => StatusCode::OK.into_response(),
        Reply::Unavailable => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        // Until whoever asked has lost patience, and the connection.
        Reply::Nothing => future::pending().await,
    }
}

async fn show(ledger: Shared) -> Response {
    let json = serde_json::to_string_pretty(&ledger.lock().entries).expect("a ledger is JSON");
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(ledger: &Ledger, key: &str) -> usize {
        ledger.entries[key].shipped
    }

    #[test]
    fn whatever_goes_wrong_an_order_is_shipped_once_and_soon() {
        let mut ledger = Ledger::default();
        for (number, troubles) in TROUBLES.iter().enumerate() {
            let key = number.to_string();
            for _ in *troubles {
                assert_ne!(ledger.ask(&key, "a kettle"), Reply::Shipped, "{troubles:?}");
            }
            assert_eq!(ledger.ask(&key, "a kettle"), Reply::Shipped, "{troubles:?}");
            assert_eq!(ledger.ask(&key, "a kettle"), Reply::Shipped, "a repeat");
            assert_eq!(shipped(&ledger, &key), 1);
        }
    }

    #[test]
    fn what_is_broken_is_not_shipped_before_the_endpoint_is_repaired() {
        let mut ledger = Ledger::default();
        for _ in 0..9 {
            assert_eq!(ledger.ask("key", "a broken vase"), Reply::Unavailable);
        }
        assert_eq!(shipped(&ledger, "key"), 0);
        ledger.is_repaired = true;
        assert_eq!(ledger.ask("key", "a broken vase"), Reply::Shipped);
        assert_eq!(shipped(&ledger, "key"), 1);
    }
}
