//! What stands between.

use std::net::TcpStream;

use nats_servers::{Config, Link, Proxy, Server};

use crate::client::Client;

fn server() -> Server {
    Server::start(Config::new()).unwrap_or_else(|error| panic!("{error}"))
}

fn proxy(server: &Server) -> Proxy {
    Proxy::start(server.addr()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_proxy_forwards_both_ways_whatever_the_size() {
    let server = server();
    let proxy = proxy(&server);
    let mut client = Client::connect(proxy.addr());
    for size in [0, 1, 4096, 300_000, 1_000_000] {
        let body = "x".repeat(size);
        let (_, echo) = client.ask("inbox.echo", "inbox.none", &body);
        assert_eq!(echo.len(), size);
    }
}

#[test]
fn an_interruption_cuts_and_refuses_until_it_is_over() {
    let server = server();
    let proxy = proxy(&server);
    let mut client = Client::connect(proxy.addr());

    proxy.interrupt();
    assert_eq!(client.line_or_end(), None, "the connection is cut");
    assert!(TcpStream::connect(proxy.addr()).is_err(), "no new one is accepted");
    proxy.interrupt(); // Again is no different.

    proxy.restore().unwrap_or_else(|error| panic!("{error}"));
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.ask("inbox.echo", "inbox.none", "hello").1, "hello");
}

#[test]
fn a_connection_ends_at_both_ends() {
    let server = server();
    let proxy = proxy(&server);
    let mut client = Client::connect(proxy.addr());
    server.kill();
    assert_eq!(client.line_or_end(), None, "the server is gone, and so is the connection");
    assert!(Client::connect_or_none(proxy.addr()).is_none(), "a server that is down takes nobody");
    server.restart().unwrap_or_else(|error| panic!("{error}"));
    drop(Client::connect(proxy.addr()));
}

#[test]
fn exactly_one_acknowledgement_is_lost_of_an_append_that_was_done() {
    let server = server();
    let proxy = proxy(&server);
    let mut client = Client::connect(proxy.addr());
    client.make_stream("s", 1);

    proxy.lose_next_ack();
    // What asks JetStream something is no append.
    let (subject, _) = client.ask("$JS.API.STREAM.INFO.s", "inbox.info", "");
    assert_eq!(subject, "inbox.info");
    client.publish("s.a", "inbox.lost", "one");
    let (subject, ack) = client.ask("s.a", "inbox.kept", "two");
    assert_eq!(subject, "inbox.kept");
    assert!(ack.contains("\"seq\":2"), "the first was appended: {ack}");
    assert_eq!(proxy.acks().lost(), 1);
}

#[test]
fn one_loss_is_shared_by_all_proxies_of_a_link() {
    let server = server();
    let link = Link::to([&server, &server]).unwrap_or_else(|error| panic!("{error}"));
    let [first, second] = link.proxies() else { panic!("a proxy for each server") };
    let mut first = Client::connect(first.addr());
    first.make_stream("s", 1);
    let mut second = Client::connect(second.addr());

    link.lose_next_ack();
    second.publish("s.a", "inbox.lost", "one");
    // The server sends both clients what either is answered: only the asker's proxy swallows it.
    assert_eq!(first.message().0, "inbox.lost");
    let (subject, ack) = first.ask("s.a", "inbox.kept", "two");
    assert_eq!(subject, "inbox.kept");
    assert!(ack.contains("\"seq\":2"), "{ack}");
    assert_eq!(second.message().0, "inbox.kept");
    assert_eq!(link.acks().lost(), 1);
}

#[test]
fn a_loss_that_is_taken_back_is_none() {
    let server = server();
    let proxy = proxy(&server);
    let mut client = Client::connect(proxy.addr());
    client.make_stream("s", 1);
    proxy.lose_next_ack();
    proxy.acks().keep();
    assert_eq!(client.ask("s.a", "inbox.kept", "one").0, "inbox.kept");
}
