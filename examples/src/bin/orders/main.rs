//! Orders that are shipped by a side effect, to an endpoint that fails.
//!
//! `cargo run --bin orders`, open the printed address, and order something: an order is on its way until the endpoint has shipped it.
//! The endpoint turns requests away, leaves them unanswered, or ships an order and loses the reply, so most orders take
//! several attempts, and each is shipped once. Things to try:
//!
//! - Order something whose name contains "broken": it is given up after five attempts, and shown as a dead letter. Repair the endpoint, and
//!   redrive it.
//! - Run several pods, and kill the one that ships in the middle (`via_consumer_owner` is 1 in its `/metrics`). They need one backplane and
//!   one endpoint, each of these in a terminal of its own:
//!
//! ```text
//! nats-server --jetstream
//! cargo run --bin orders endpoint
//! export VIA_BACKPLANE=nats://127.0.0.1:4222 ORDERS_ENDPOINT=127.0.0.1:4000
//! VIA_ADDR=127.0.0.1:3000 cargo run --bin orders
//! VIA_ADDR=127.0.0.1:3001 cargo run --bin orders
//! curl http://127.0.0.1:4000/ledger
//! ```
//!
//! Five seconds after `kill -9` the other pod ships what is left. In the ledger each order was shipped once, however often it was asked for.
//!
//! `VIA_ADDR` and `VIA_BACKPLANE` are as in the chat. `ORDERS_ENDPOINT` says where the endpoint is; unless set, a pod runs one of its own,
//! whose ledger ends with it.

mod endpoint;
mod ship;
mod shop;

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use endpoint::Endpoint;
use shop::Shop;
use via::App;

/// The variable that says where the endpoint is.
const VARIABLE: &str = "ORDERS_ENDPOINT";
/// Where an endpoint that runs alone listens unless told.
const ALONE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4000);

/// What this program was told and cannot do.
#[derive(Debug, thiserror::Error)]
enum Misuse {
    #[error("{VARIABLE} is `{0}`: write the address of an endpoint, such as {ALONE}")]
    NoAddress(String),
    #[error("`{0}` is nothing to run: write `orders` for a pod, or `orders endpoint`")]
    NoCommand(String),
}

#[tokio::main]
async fn main() -> via::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match env::args().nth(1).as_deref() {
        None => pod(address()?).await,
        Some("endpoint") => alone(address()?.unwrap_or(ALONE)).await,
        Some(other) => Err(Misuse::NoCommand(other.to_owned()).into()),
    }
}

/// Where the endpoint is, if that was said.
fn address() -> Result<Option<SocketAddr>, Misuse> {
    let Some(given) = env::var_os(VARIABLE) else { return Ok(None) };
    let given = given.to_string_lossy();
    let addr = given.trim();
    // As the endpoint prints it, too.
    let addr = addr.strip_prefix("http://").unwrap_or(addr);
    addr.parse().map(Some).map_err(|_| Misuse::NoAddress(given.into_owned()))
}

/// The page, and the side effect where no other pod runs it.
async fn pod(endpoint: Option<SocketAddr>) -> via::Result<()> {
    let addr = env::var("VIA_ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let app = App::new()
        .with_backplane(examples::backplane::from_env().await?)
        .with_prometheus()
        .page::<Shop>("/")
        .stylesheet(include_str!("../../../styles/orders.css"));
    match endpoint {
        // Free ports are for listening.
        Some(free) if free.port() == 0 => Err(Misuse::NoAddress(free.to_string()).into()),
        Some(elsewhere) => {
            ship::use_endpoint(elsewhere);
            app.serve(addr).await
        }
        None => {
            let own = Endpoint::listen(SocketAddr::new(ALONE.ip(), 0)).await?;
            ship::use_endpoint(own.addr());
            tokio::select! {
                biased;
                ended = app.serve(addr) => ended,
                failed = own.serve() => Ok(failed?),
            }
        }
    }
}

/// The endpoint alone, for several pods.
#[expect(clippy::print_stdout, reason = "the address is what it has to say, and port 0 has no other way")]
async fn alone(addr: SocketAddr) -> via::Result<()> {
    let endpoint = Endpoint::listen(addr).await?;
    println!("listening on http://{}", endpoint.addr());
    Ok(endpoint.serve().await?)
}
