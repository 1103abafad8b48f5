//! What is known of a client connection: who, over what, and the raw material of its fingerprints.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;

use crate::h2::preface::ClientPreface;
use crate::tls::{ClientHello, TlsFacts};

/// One accepted connection. Lives as long as the connection, read by every request on it.
pub struct Connection {
    /// Number of the connection on this edge thread.
    pub id: u64,
    /// The peer, which may be a trusted proxy.
    pub peer: SocketAddr,
    /// The address it came in on.
    pub local: SocketAddr,
    /// What the handshake settled; `None` on a plain connection.
    pub tls: Option<TlsFacts>,
    /// The ClientHello as it came, bounded; fingerprints are computed from it.
    pub hello: Option<ClientHello>,
    /// How an HTTP/2 client introduced itself, once its first request has come.
    pub preface: OnceCell<ClientPreface>,
    /// Requests so far.
    pub requests: Cell<u64>,
    /// The listener it came from.
    pub listener: Rc<ListenerState>,
}

impl Connection {
    /// Whether this connection should end after the exchange at hand: its listener is gone or the process is ending.
    pub fn is_draining(&self) -> bool {
        self.listener.draining.get()
    }
}

/// One listener on one edge thread.
pub struct ListenerState {
    /// Address as configured.
    pub configured: SocketAddr,
    /// Whether connections begin with a TLS handshake.
    pub tls: Cell<bool>,
    /// Set when the listener is removed or the process ends.
    pub draining: Cell<bool>,
    /// A private listener for golden requests: where they are sent instead of to any real origin.
    pub rehearsal: Option<SocketAddr>,
}
