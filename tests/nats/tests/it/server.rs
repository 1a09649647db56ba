//! One server.

use nats_servers::{Config, Server};

use crate::client::Client;

fn start(config: Config) -> Server {
    Server::start(config).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_server_that_started_answers_with_jetstream() {
    let server = start(Config::new());
    let client = Client::connect(server.addr());
    assert!(client.info.starts_with("INFO {"), "{}", client.info);
    assert!(client.info.contains("\"jetstream\":true"), "{}", client.info);
}

#[test]
fn a_killed_server_comes_back_where_it_was_with_its_store() {
    let server = start(Config::new().sync_always());
    let mut client = Client::connect(server.addr());
    client.make_stream("s", 1);
    let (_, ack) = client.ask("s.a", "inbox.1", "one");
    assert!(ack.contains("\"seq\":1"), "{ack}");

    let port = server.port();
    server.kill();
    assert_eq!(client.line_or_end(), None, "the connection died with the server");
    server.restart().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(server.port(), port);
    let (_, ack) = Client::connect(server.addr()).ask("s.a", "inbox.2", "two");
    assert!(ack.contains("\"seq\":2"), "{ack}");
}

#[test]
fn a_paused_server_answers_when_it_runs_on() {
    let server = start(Config::new());
    let mut client = Client::connect(server.addr());
    server.pause().unwrap_or_else(|error| panic!("{error}"));
    client.publish("inbox.me", "inbox.reply", "hello");
    server.resume().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(client.message(), ("inbox.me".to_owned(), "hello".to_owned()));
    server.stop();
    assert!(server.pause().is_err_and(|error| error.contains("ended")));
}

#[test]
fn what_is_configured_is_what_the_server_says() {
    let extra = "authorization { users: [ { user: ada, password: secret } ] }";
    let server = start(Config::new().max_payload(4096).extra(extra));
    let info = read_info(&server);
    assert!(info.contains("\"max_payload\":4096"), "{info}");
    assert!(info.contains("\"auth_required\":true"), "{info}");
}

#[test]
fn a_wrong_configuration_is_an_error_with_the_servers_words() {
    let error = Server::start(Config::new().extra("no_such_setting: 1")).expect_err("it is refused");
    assert!(error.contains("no_such_setting"), "{error}");
}

#[test]
fn a_fixed_port_somebody_has_is_an_error() {
    let first = start(Config::new());
    let error = Server::start(Config::new().port(first.port())).expect_err("it is taken");
    assert!(error.contains("address already in use"), "{error}");
}

#[test]
fn a_server_leaves_nothing_behind() {
    let server = start(Config::new());
    let (dir, addr) = (server.dir().to_owned(), server.addr());
    assert!(server.store_dir().is_dir());
    drop(server);
    assert!(!dir.exists());
    assert!(std::net::TcpStream::connect(addr).is_err());
}

fn read_info(server: &Server) -> String {
    use std::io::{BufRead, BufReader};
    let stream = std::net::TcpStream::connect(server.addr()).expect("it listens");
    let mut info = String::new();
    BufReader::new(stream).read_line(&mut info).expect("it greets");
    info
}
