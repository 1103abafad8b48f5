//! Ports that are free and stay free: taken from below the range from which the system picks its own.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// First port handed out.
const FIRST: u16 = 12_000;
/// How many ports are tried; the end lies below 32768, where Linux begins to pick ports for outgoing connections.
const COUNT: u16 = 18_000;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A loopback port nobody listens on and no other call in this process was given.
///
/// Two test processes start at different places of the range, so they seldom meet.
pub fn free() -> u16 {
    let offset = (std::process::id() as u16).wrapping_mul(97) % COUNT;
    for _ in 0..COUNT {
        let port = FIRST + (offset + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// A listening socket on a free loopback port with the queue systemd gives its own (systemd.socket(5), `Backlog=`).
pub fn listening() -> TcpListener {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, free())).unwrap();
    rustix::net::listen(&socket, BACKLOG).unwrap();
    socket
}
