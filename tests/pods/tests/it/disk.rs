//! A server whose disk is full.

use std::time::{Duration, Instant};

use nats_servers::{Config, Disk, Server};

use crate::process::Pod;

const GRACE: u64 = 100;
/// How long a fact may take on a machine that builds meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_server_without_room_on_its_disk_loses_nothing_that_was_acknowledged() {
    let disk = Disk::of(32 << 20).expect("a disk that can be filled");
    // More than there is: what refuses is the disk, and not the server's own limit.
    let config = disk.under(Config::new().sync_always().jetstream("max_file_store: 1GB"));
    let server = Server::start(config).expect("a server");
    let mut pod = Pod::start(&server, 4, GRACE);
    let (mut acknowledged, mut doubtful) = (Vec::new(), Vec::new());
    for n in 0..20 {
        pod.note(&n.to_string());
        acknowledged.push(n.to_string());
    }
    disk.fill().expect("it is filled");
    let begun = Instant::now();
    // What the file system had set aside already may be used up first.
    let before = loop {
        assert!(begun.elapsed() < PATIENCE, "{} notes found room", acknowledged.len());
        let text = format!("{}:{}", acknowledged.len(), "x".repeat(100_000));
        match pod.try_note(&text) {
            Ok(_) => acknowledged.push(text),
            Err((why, may_be_there)) => {
                if may_be_there {
                    doubtful.push(text);
                }
                break why;
            }
        }
    };
    assert_eq!(pod.notes(20)[..20], acknowledged[..20], "it serves what it has");
    disk.free().expect("there is room again");
    // The server answers nothing about a stream it could not write, until it is started again.
    server.restart().expect("it starts again");
    let begun = Instant::now();
    while let Err((why, may_be_there)) = pod.try_note("after") {
        assert!(begun.elapsed() < PATIENCE, "it does not go on: {why}; before: {before}");
        if may_be_there {
            doubtful.push("after".to_owned());
        }
    }
    acknowledged.push("after".to_owned());
    let mut late = Pod::start(&server, 4, GRACE);
    for shown in [late.notes(acknowledged.len()), pod.notes(acknowledged.len())] {
        let mut left = acknowledged.iter().peekable();
        for note in &shown {
            if left.peek() == Some(&note) {
                left.next();
            } else {
                assert!(doubtful.contains(note), "`{note:.20}` was refused, and is there");
            }
        }
        assert_eq!(left.next(), None, "acknowledged, and gone");
    }
    late.leave();
    pod.leave();
}
