//! Free ports.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Below the ports the kernel hands out by itself (from 32,768 on Linux): while a killed server is down, no outgoing
/// connection can be given its port, and no client that keeps dialling it can end up connected to itself.
const RANGE: Range<u16> = 10_000..32_000;

const ATTEMPTS: usize = 1_000;

/// A port of the loopback interface nobody listens on at this moment.
///
/// Somebody else may take it before it is used; whoever uses it must be ready for that.
///
/// # Panics
/// If there is none, or this machine has no loopback interface.
#[must_use]
pub fn free_port() -> u16 {
    (0..ATTEMPTS)
        .map(|_| candidate())
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("one of a thousand ports of the loopback interface is free")
}

/// Random, so that test processes that start together do not compete for the same ports.
fn candidate() -> u16 {
    let width = u64::from(RANGE.end - RANGE.start);
    let step = RandomState::new().hash_one(()) % width;
    RANGE.start + u16::try_from(step).expect("a remainder is smaller than what it was divided by, a u16")
}
