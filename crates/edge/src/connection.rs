//! What is known of a client connection: who, over what, the raw material of its fingerprints, and how it is to end.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::event::Ja4;
use snapshot::generation::Drain;
use tokio::time::Instant;

use crate::h2::preface::ClientPreface;
use crate::io::Timer;
use crate::path::Path;
use crate::pressure::{Level, Pressure};
use crate::seats::Seat;
use crate::tls::{ClientHello, TlsFacts, ja4};

/// One accepted connection. Lives as long as the connection, read by every request on it.
pub struct Connection {
    /// Number of the connection on this edge thread.
    pub id: u64,
    /// The peer, which may be a trusted proxy; after a PROXY header, whom the header names.
    pub peer: SocketAddr,
    /// The address it came in on; after a PROXY header, the one the header names.
    pub local: SocketAddr,
    /// Whether `peer` and `local` are from a trusted proxy's PROXY header instead of from the connection itself.
    pub introduced: bool,
    /// The way to the peer, as it was when its connection began to be used; nothing behind a trusted proxy's PROXY header.
    pub path: Path,
    /// What the handshake settled; `None` on a plain connection.
    pub tls: Option<TlsFacts>,
    /// The ClientHello as it came, bounded; fingerprints are computed from it.
    pub hello: Option<ClientHello>,
    /// How an HTTP/2 client introduced itself, once its first request has come.
    pub preface: OnceCell<ClientPreface>,
    /// Fingerprints, computed when the first request asks.
    pub fingerprints: Fingerprints,
    /// Requests so far.
    pub requests: Cell<u64>,
    /// Requests being served on it now: they share what it can carry.
    pub sharers: Cell<u32>,
    /// What it is at, and whether it is to make room.
    pub seat: Rc<Seat>,
    /// The listener it came from.
    pub listener: Rc<ListenerState>,
}

/// What tells kinds of clients apart; each computed once for a connection.
#[derive(Default)]
pub struct Fingerprints {
    ja4: OnceCell<Option<Ja4>>,
    introduction: OnceCell<Arc<str>>,
}

impl Connection {
    /// The fingerprint of the ClientHello.
    pub fn ja4(&self) -> Option<Ja4> {
        self.ja4_ref().copied()
    }

    /// The same, where it is kept.
    pub fn ja4_ref(&self) -> Option<&Ja4> {
        let hello = self.hello.as_ref()?;
        self.fingerprints.ja4.get_or_init(|| ja4::ja4(hello)).as_ref()
    }

    /// How an HTTP/2 client introduced itself; `None` until that has been seen.
    pub fn introduction(&self) -> Option<Arc<str>> {
        let preface = self.preface.get()?;
        Some(self.fingerprints.introduction.get_or_init(|| preface.fingerprint().into()).clone())
    }

    /// Whether this connection should end after the exchange at hand: its listener is gone, the process is ending or short of
    /// resources, or another connection needs the room.
    pub fn is_draining(&self) -> bool {
        self.listener.ending().is_some()
            || self.seat.left().is_some()
            || self.listener.pressure.level() > Level::Normal
    }

    /// Until when it may wait for a request, at most until `deadline`.
    pub fn idle_until(&self, deadline: Instant) -> Instant {
        let deadline = Ending::idle_until(self.listener.ending(), deadline);
        self.seat.left().map_or(deadline, |left| left.min(deadline))
    }
}

/// How the connections of a listener, or of a whole thread, are to end. `None` is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// When connections without a request are closed.
    idle: Option<Instant>,
    /// When requests and responses are cut off.
    requests: Option<Instant>,
    /// When tunnels, event streams and gRPC calls are cut off.
    lasting: Option<Instant>,
}

impl Ending {
    /// The process ends: everything ends within these limits.
    pub fn of_process(limits: &Drain, now: Instant) -> Self {
        Self {
            idle: now.checked_add(limits.idle),
            requests: now.checked_add(limits.requests),
            lasting: now.checked_add(limits.tunnels),
        }
    }

    /// A listener was removed: what runs is finished, however long it takes.
    pub fn of_listener(limits: &Drain, now: Instant) -> Self {
        Self { idle: now.checked_add(limits.idle), requests: None, lasting: None }
    }

    /// The earlier one of a deadline of its own and the time an idle connection has left.
    pub fn idle_until(ending: Option<Self>, deadline: Instant) -> Instant {
        ending.and_then(|ending| ending.idle).map_or(deadline, |idle| idle.min(deadline))
    }
}

/// One listener on one edge thread. Stays with its connections while the listener is paused, and after it is gone.
pub struct ListenerState {
    /// Address as configured.
    pub configured: SocketAddr,
    /// Its address, when that is one and not all of the machine: then it is that of every connection.
    pub bound: Cell<Option<SocketAddr>>,
    /// Whether connections begin with a TLS handshake.
    pub tls: Cell<bool>,
    /// Whether connections of trusted proxies begin with a PROXY header.
    pub proxy_protocol: Cell<bool>,
    /// A private listener for golden requests: where they are sent instead of to any real origin.
    pub rehearsal: Option<SocketAddr>,
    /// Set when the listener is removed.
    pub removed: Cell<Option<Ending>>,
    /// Set when the process ends; one for all listeners of the thread.
    pub process: Rc<Cell<Option<Ending>>>,
    /// How short the process is of resources.
    pub pressure: Arc<Pressure>,
}

/// How the connections of a listener begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begins {
    /// With a PROXY header, if they are a trusted proxy's.
    pub proxy_protocol: bool,
    /// With a TLS handshake, after that.
    pub tls: bool,
}

impl ListenerState {
    /// From the next connection on, they begin like this.
    pub fn begin(&self, begins: Begins) {
        self.tls.set(begins.tls);
        self.proxy_protocol.set(begins.proxy_protocol);
    }

    /// How its connections are to end; `None` while they are not.
    pub fn ending(&self) -> Option<Ending> {
        self.process.get().or(self.removed.get())
    }
}

/// The moment at which an exchange on an ending connection is cut off. Until the connection is ending, it costs a look.
#[derive(Default)]
pub struct Cutoff(Timer);

impl Cutoff {
    /// Ready when the time is over. `lasting` tells whether this is a tunnel, an event stream or a gRPC call.
    ///
    /// Somebody has to poll again when the ending begins; `Seats` is for that.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        listener: &ListenerState,
        seat: &Seat,
        lasting: impl FnOnce() -> bool,
    ) -> Poll<()> {
        if seat.is_cleared() {
            return Poll::Ready(());
        }
        let Some(ending) = listener.ending() else { return Poll::Pending };
        let deadline = if lasting() { ending.lasting } else { ending.requests };
        deadline.map_or(Poll::Pending, |deadline| self.0.poll(cx, deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_goes_before_the_listener_and_far_is_never() {
        let now = Instant::now();
        let seconds = std::time::Duration::from_secs;
        let process = Rc::new(Cell::new(None));
        let listener = ListenerState {
            configured: "127.0.0.1:80".parse().unwrap(),
            bound: Cell::new(None),
            tls: Cell::new(false),
            proxy_protocol: Cell::new(false),
            rehearsal: None,
            removed: Cell::new(None),
            process: process.clone(),
            pressure: Arc::default(),
        };
        assert_eq!(listener.ending(), None);
        assert_eq!(Ending::idle_until(listener.ending(), now + seconds(9)), now + seconds(9));
        let limits = Drain { idle: seconds(5), requests: seconds(6), tunnels: std::time::Duration::MAX };
        listener.removed.set(Some(Ending::of_listener(&limits, now)));
        assert_eq!(Ending::idle_until(listener.ending(), now + seconds(9)), now + seconds(5));
        assert_eq!(Ending::idle_until(listener.ending(), now + seconds(3)), now + seconds(3));
        assert_eq!(listener.ending().unwrap().requests, None);
        process.set(Some(Ending::of_process(&limits, now)));
        let ending = listener.ending().unwrap();
        assert_eq!((ending.requests, ending.lasting), (Some(now + seconds(6)), None));
    }
}
