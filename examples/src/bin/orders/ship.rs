//! Shipping an order: the side effect, as the pod that runs it sees it.

use std::{net::SocketAddr, sync::OnceLock, time::Duration};

use hyper::{Request, StatusCode, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use via_backplane::{AppendFailed, AppendId, AppendOptions, BoxError, Delivery, Events};

use crate::shop::{Happened, Orders};

/// The endpoint; via makes the components, so what they are told comes to them from beside.
static ENDPOINT: OnceLock<SocketAddr> = OnceLock::new();

/// How long a person waits for the endpoint.
const PATIENCE: Duration = Duration::from_secs(5);

/// The endpoint does not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("the endpoint answered {0}")]
struct Refused(StatusCode);

/// Says which endpoint is called from now on.
///
/// # Panics
/// If that was said before.
pub(crate) fn use_endpoint(endpoint: SocketAddr) {
    ENDPOINT.set(endpoint).expect("a process calls one endpoint");
}

/// The endpoint that is called.
///
/// # Panics
/// If nobody has said which.
pub(crate) fn endpoint() -> SocketAddr {
    *ENDPOINT.get().expect("main says so before there is a page")
}

/// Has an order shipped, and notes that it was.
///
/// It runs again whenever nobody knows whether it ended, so both of its effects have names: the request its key, under which the endpoint ships
/// once, and the event its id, under which it is appended once.
pub(crate) async fn ship(
    delivery: Delivery<Happened>,
    orders: Events<Happened, Orders>,
) -> Result<(), BoxError> {
    // What it appends comes back to it: it is in the same family.
    let Happened::Placed { article } = &delivery.event else { return Ok(()) };
    post("/ship", &delivery.idempotency_key(), article).await?;
    let once = AppendOptions::default().id(AppendId::new(format!("shipped {}", delivery.id))?);
    match orders.append_with(Happened::Shipped { order: delivery.id }, once).await {
        Ok(_) | Err(AppendFailed::Duplicate { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Has the endpoint take everything from now on.
pub(crate) async fn repair() -> Result<(), BoxError> {
    timeout(PATIENCE, post("/repair", "", "")).await?
}

async fn post(path: &str, key: &str, body: &str) -> Result<(), BoxError> {
    let stream = TcpStream::connect(endpoint()).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(path)
        .header(HOST, endpoint().to_string())
        .header("idempotency-key", key)
        .body(body.to_owned())?;
    let answered = async move { Ok::<_, BoxError>(sender.send_request(request).await?.status()) };
    // Both in this future: a handler that takes too long is dropped, and its connection with it. An error of the connection is the answer's.
    let (status, _) = tokio::join!(answered, connection);
    match status? {
        StatusCode::OK => Ok(()),
        refused => Err(Refused(refused).into()),
    }
}
