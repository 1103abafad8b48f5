//! What systemd is told (sd_notify(3)): that serving has begun, that this process lives, that it ends.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The service manager's socket, if there is one.
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often a sign of life is wanted, and when the last one was given.
    watchdog: Option<(Duration, Mutex<Instant>)>,
}

impl Notify {
    /// As the environment says; silent without it.
    pub fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| connect(&name));
        let period = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        // Half of what is allowed, as sd_watchdog_enabled(3) recommends.
        let watchdog = period.map(|period| (Duration::from_micros(period / 2), Mutex::new(Instant::now())));
        Self { socket, watchdog }
    }

    fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            tracing::debug!(%error, "the service manager could not be told something");
        }
    }

    /// Serving has begun.
    pub fn ready(&self) {
        self.say(&format!("READY=1\nMAINPID={}\nSTATUS=serving", std::process::id()));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=finishing requests");
    }

    /// A sign of life, when one is due. Given by the thread that watches the edge: when that stands still, nothing else
    /// would notice a dead edge.
    pub fn watchdog(&self) {
        let Some((period, last)) = &self.watchdog else { return };
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.elapsed() >= *period {
            *last = Instant::now();
            self.say("WATCHDOG=1");
        }
    }
}

fn connect(name: &OsString) -> Option<(UnixDatagram, SocketAddr)> {
    let bytes = name.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    };
    match (UnixDatagram::unbound(), address) {
        (Ok(socket), Ok(address)) => Some((socket, address)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_to_a_path_and_is_silent_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let socket = connect(&path.into_os_string());
        let watchdog = Some((Duration::ZERO, Mutex::new(Instant::now())));
        let notify = Notify { socket, watchdog };
        notify.ready();
        notify.watchdog();
        let mut buffer = [0; 256];
        let count = manager.recv(&mut buffer).unwrap();
        assert!(buffer[..count].starts_with(b"READY=1\nMAINPID="));
        let count = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"WATCHDOG=1");
        Notify { socket: None, watchdog: None }.ready();
    }
}
