//! Several servers.

use nats_servers::{Cluster, Config, shared_cluster};

use crate::client::Client;

#[test]
fn a_stream_outlives_its_leader() {
    let cluster = Cluster::start(Config::new(), 3).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(cluster.urls().len(), 3);
    let mut client = Client::connect(cluster.servers()[0].addr());
    assert!(!client.info.contains("connect_urls"), "no way around a proxy is told: {}", client.info);
    client.make_stream("s", 3);
    let ack = client.append("s.a", "inbox.1", "one");
    assert!(ack.contains("\"seq\":1"), "{ack}");

    let leader = cluster.stream_leader("s").unwrap_or_else(|error| panic!("{error}"));
    leader.kill();
    let next = cluster.stream_leader("s").unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(next.name(), leader.name());
    let ack = Client::connect(next.addr()).append("s.a", "inbox.1", "two");
    assert!(ack.contains("\"seq\":2"), "{ack}");

    leader.restart().unwrap_or_else(|error| panic!("{error}"));
    let ack = Client::connect(leader.addr()).append("s.a", "inbox.1", "three");
    assert!(ack.contains("\"seq\":3"), "{ack}");
}

#[test]
fn the_shared_cluster_is_there_for_everybody() {
    let shared = shared_cluster().unwrap_or_else(|error| panic!("{error}"));
    let again = shared_cluster().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(shared.urls(), again.urls());
    for addr in shared.addrs().unwrap_or_else(|error| panic!("{error}")) {
        assert!(Client::connect(addr).info.contains("\"cluster\":\"via\""));
    }
}
