//! The orders as processes: what is shipped while things die, and what is given up.

use std::{collections::BTreeMap, process::Command, time::Duration};

use nats_servers::{Config, Server, wait_for};
use serde::Deserialize;
use support::{Program, between, get};

mod support;

/// How long a fact may take on a machine that builds meanwhile.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where every program of a test listens.
const ANYWHERE: &str = "127.0.0.1:0";

fn orders() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.env("VIA_ADDR", ANYWHERE);
    command
}

/// The endpoint that several pods share.
fn endpoint() -> Program {
    Program::start(orders().arg("endpoint").env("ORDERS_ENDPOINT", ANYWHERE))
}

fn pod(server: &Server, endpoint: &Program) -> Program {
    Program::start(orders().env("VIA_BACKPLANE", server.url()).env("ORDERS_ENDPOINT", &endpoint.addr))
}

/// Looks until there is something to see; panics with what was there instead.
fn until(what: &str, is: impl Fn(&str) -> bool, mut look: impl FnMut() -> String) -> String {
    let mut seen = String::new();
    let found = wait_for(PATIENCE, || {
        seen = look();
        is(&seen).then(|| seen.clone())
    });
    found.unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}, but\n{seen}"))
}

/// Presses what is on the page behind this text, with something typed.
fn press(pod: &Program, behind: &str, typed: &str) {
    let page = pod.get("/");
    let cookie = between(&page, "set-cookie: ", ";");
    let tab = between(&page, "<meta name=\"via-tab\" content=\"", "\"");
    let token =
        between(page.split_once(behind).unwrap_or_else(|| panic!("no {behind} in {page}")).1, "@act('", "'");
    let signals = format!(r#"{{"article":"{typed}"}}"#);
    let answer = pod.ask(&format!(
        "POST /?_via=act HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\nvia-tab: {tab}\r\norigin: http://x\r\n\
         via-token: {token}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{signals}",
        signals.len()
    ));
    assert!(answer.contains(r#"{"code":"ok""#), "{answer}");
}

fn place(pod: &Program, article: &str) {
    press(pod, "<form", article);
}

/// How many orders the page shows to be so.
fn count(page: &str, state: &str) -> usize {
    page.matches(&format!("<li data-state=\"{state}\">")).count()
}

#[derive(Debug, Deserialize)]
struct Entry {
    article: String,
    asked: usize,
    shipped: usize,
}

/// What the endpoint was asked for and has shipped, by idempotency key.
fn ledger(of: &str) -> BTreeMap<String, Entry> {
    let (_, body) = of.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("a ledger")
}

fn is_owner(pod: &Program) -> bool {
    pod.get("/metrics").contains("via_consumer_owner{family=\"orders\",consumer=\"ship\"} 1")
}

/// The pods: whoever ships, and the other one.
fn by_owner(pods: [Program; 2]) -> (Program, Program) {
    let first_owns = wait_for(PATIENCE, || pods.iter().position(is_owner)).expect("a pod ships") == 0;
    let [first, second] = pods;
    if first_owns { (first, second) } else { (second, first) }
}

#[test]
fn every_order_is_shipped_once_though_the_pod_that_ships_is_killed() {
    const ORDERS: usize = 12;
    let server = Server::start(Config::new()).expect("nats-server runs");
    let endpoint = endpoint();
    let (mut owner, other) = by_owner([pod(&server, &endpoint), pod(&server, &endpoint)]);
    place(&other, "a broken vase");
    for number in 1..ORDERS {
        place(if number % 2 == 0 { &owner } else { &other }, &format!("kettle {number}"));
    }

    // The third order is shipped and never answered for: the pod dies while it waits.
    let reply_lost = |seen: &str| ledger(seen).values().any(|entry| entry.asked == 1 && entry.shipped == 1);
    until("an order is shipped", reply_lost, || endpoint.get("/ledger"));
    owner.process.kill().expect("it runs"); // SIGKILL.
    owner.process.wait().expect("it ends");
    let at_its_death = ledger(&endpoint.get("/ledger"));
    let shipped_then = at_its_death.values().filter(|entry| entry.shipped > 0).count();
    assert!(shipped_then < ORDERS - 1, "it was killed in the middle: {at_its_death:?}");

    let page = until("all but one", |page| count(page, "shipped") == ORDERS - 1, || other.get("/"));
    assert!(is_owner(&other), "the other pod has taken over");
    assert_eq!(count(&page, "given up"), 1, "{page}");
    let letters = between(&page, "<section id=\"letters\">", "</section>");
    assert!(letters.contains("<strong>a broken vase</strong>"), "{letters}");
    assert!(letters.contains("5 attempts: the endpoint answered 503 Service Unavailable"), "{letters}");
    let entries = ledger(&endpoint.get("/ledger"));
    assert_eq!(entries.len(), ORDERS, "{entries:?}");
    for entry in entries.values() {
        assert_eq!(entry.shipped, usize::from(entry.article != "a broken vase"), "{entry:?}");
    }
    let lost = entries.values().find(|entry| entry.article == "kettle 2").expect("it was ordered");
    assert!(lost.asked > 1, "nobody knew that it was shipped: {lost:?}");

    press(&other, "id=\"repair\"", "");
    press(&other, "id=\"redrive-all\"", "");
    until("the broken one", |page| count(page, "shipped") == ORDERS, || other.get("/"));
    let page = until("no letter", |page| !page.contains("id=\"letters\""), || other.get("/"));
    assert_eq!(count(&page, "shipped"), ORDERS, "{page}");
    let entries = ledger(&endpoint.get("/ledger"));
    assert_eq!(entries.len(), ORDERS, "{entries:?}");
    assert!(entries.values().all(|entry| entry.shipped == 1), "{entries:?}");
}

#[test]
fn what_is_given_up_is_shipped_when_it_is_redriven_after_the_repair() {
    let pod = Program::start(&mut orders());
    place(&pod, "a broken vase");
    let page = until("a letter", |page| count(page, "given up") == 1, || pod.get("/"));
    assert!(page.contains("5 attempts: the endpoint answered 503 Service Unavailable"), "{page}");
    press(&pod, "id=\"repair\"", "");
    press(&pod, "<li><strong>a broken vase</strong>", "");
    // Orders and letters are two logs, and a page shows each as far as it is folded.
    let is_shipped = |page: &str| count(page, "shipped") == 1 && !page.contains("id=\"letters\"");
    let page = until("it is shipped, and no letter is left", is_shipped, || pod.get("/"));
    // The endpoint that the pod runs itself.
    let endpoint = between(&page, "href=\"http://", "/ledger\"");
    let entries = ledger(&get(endpoint, "/ledger"));
    assert_eq!(entries.values().map(|entry| (entry.asked, entry.shipped)).collect::<Vec<_>>(), [(6, 1)]);
}

#[test]
fn a_bad_endpoint_is_one_line_that_says_what_to_write() {
    for given in ["", "localhost", "https://127.0.0.1:4000", "127.0.0.1:0"] {
        let output = orders().env("ORDERS_ENDPOINT", given).output().expect("it runs");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        let expected = format!(
            "Error: ORDERS_ENDPOINT is `{given}`: write the address of an endpoint, such as \
             127.0.0.1:4000\n"
        );
        assert_eq!(said, expected);
        assert_eq!(output.status.code(), Some(1));
    }
}
