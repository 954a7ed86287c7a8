//! Ports for servers.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

/// Below the ports that the kernel hands out to outgoing connections (from 32768 on Linux): a server that is down for half a
/// minute must find its port free again, and a client that keeps trying a port of that range can even connect to itself.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// Ports that were handed out; none is twice in one process.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of 127.0.0.1 where nothing listens, and which this process was not given before.
///
/// # Panics
/// If there is none.
pub fn free_port() -> u16 {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..1000 {
        let port = rand::random_range(RANGE);
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port);
            return port;
        }
    }
    panic!("no free port in {RANGE:?}");
}
