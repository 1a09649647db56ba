//! The servers' configuration.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nats_servers::{Cluster, Config, find};
use serde::{Deserialize, Serialize};
use via_backplane::{Backplane, Engine, Event, Fold, Recorded, Waited};

use crate::{check, deploy, text};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the configuration takes from its environment.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("VIA_NATS_NAME", "nats-1"),
    ("VIA_NATS_PASSWORD", "a-secret"),
    ("VIA_NATS_SYS_PASSWORD", "another-secret"),
];

#[test]
fn nats_server_accepts_its_configuration() {
    let program = find().unwrap_or_else(|error| panic!("{error}"));
    let mut server = Command::new(program);
    server.arg("-t").arg("-c").arg(deploy("nats/nats.conf")).envs(ENVIRONMENT);
    check(&mut server);
}

#[derive(Clone, Serialize, Deserialize, Event)]
#[event(name = "deploy.counted", version = 1)]
struct Counted;

impl Fold<u64> for Counted {
    fn fold(self, count: &mut u64, _at: &Recorded) {
        *count += 1;
    }
}

#[tokio::test]
async fn an_app_needs_no_more_than_its_account_and_permissions_give() {
    let nats = Cluster::start(Config::new().extra(accounts()), 3).unwrap_or_else(|error| panic!("{error}"));
    let urls: Vec<String> = nats.servers().iter().map(|server| as_user(server.port())).collect();
    let backplane = Arc::new(vianats::connect(urls.join(",")).await.expect("the user may connect"));
    let engine = Engine::start(backplane.clone());

    let counts = engine.events::<Counted, u64>("counts").expect("the first of its name");
    let position = counts.append(Counted).await.expect("an append is permitted");
    let waited = counts.wait_for(&position, PATIENCE).await;
    assert!(matches!(waited, Waited::Reached), "{waited:?}");

    let theme = engine.cell::<String>("theme").expect("the first of its name");
    theme.set("dark".to_owned()).await.expect("a cell is permitted");
    assert_eq!(*theme.loaded().await, "dark");

    backplane.ping().await.expect("a ping is permitted");
    engine.shutdown(PATIENCE).await.expect("no background task failed");
    for server in nats.servers() {
        assert!(!server.log().contains("Violation"), "{}", server.log());
    }
}

/// From the first account on: what comes before says where a server of the compose file listens and stores.
fn accounts() -> String {
    let text = text("nats/nats.conf");
    let (_, accounts) = text.split_once("\naccounts {").expect("there are accounts");
    ENVIRONMENT.iter().fold(format!("accounts {{{accounts}"), |accounts, (name, value)| {
        accounts.replace(&format!("${name}"), value)
    })
}

fn as_user(port: u16) -> String {
    let (_, password) = ENVIRONMENT[1];
    format!("nats://via:{password}@127.0.0.1:{port}")
}
