//! Free loopback ports, and waiting until somebody listens there.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::shell::Background;

/// How long a server may take to accept its first connection.
const LISTEN_WITHIN: Duration = Duration::from_secs(20);

/// A loopback port nobody listens on right now.
pub fn free() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Waits until the port accepts; fails at once when the server has ended.
pub fn wait_for(server: &mut Background, port: u16) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let started = Instant::now();
    while started.elapsed() < LISTEN_WITHIN {
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return Ok(());
        }
        server.still_running()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("nobody listens on {address} after {} s", LISTEN_WITHIN.as_secs())
}
