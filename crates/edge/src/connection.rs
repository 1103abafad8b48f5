//! What is known of a client connection: who, over what, the raw material of its fingerprints, and how it is to end.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use snapshot::generation::Drain;
use tokio::time::Instant;

use crate::h2::preface::ClientPreface;
use crate::io::Timer;
use crate::tls::{ClientHello, TlsFacts};

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
        self.listener.ending().is_some()
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
    /// Somebody has to poll again when the ending begins; `Wakers` is for that.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        listener: &ListenerState,
        lasting: impl FnOnce() -> bool,
    ) -> Poll<()> {
        let Some(ending) = listener.ending() else { return Poll::Pending };
        let deadline = if lasting() { ending.lasting } else { ending.requests };
        deadline.map_or(Poll::Pending, |deadline| self.0.poll(cx, deadline))
    }
}

/// Wakes the tasks of a thread's connections when something other than traffic concerns them. One place per open connection;
/// freed places are used again, so it grows to the largest number of connections and no further.
#[derive(Default)]
pub struct Wakers {
    places: Vec<Option<Waker>>,
    free: Vec<u32>,
}

impl Wakers {
    /// Enters a task; answers its place.
    pub fn insert(&mut self, waker: Waker) -> u32 {
        if let Some(place) = self.free.pop()
            && let Some(held) = self.places.get_mut(place as usize)
        {
            *held = Some(waker);
            return place;
        }
        self.places.push(Some(waker));
        (self.places.len() - 1) as u32
    }

    /// Forgets the task of a place.
    pub fn remove(&mut self, place: u32) {
        if self.places.get_mut(place as usize).is_some_and(|held| held.take().is_some()) {
            self.free.push(place);
        }
    }

    /// Wakes them all.
    pub fn wake(&self) {
        self.places.iter().flatten().for_each(Waker::wake_by_ref);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn places_of_connections_that_are_gone_are_used_again() {
        let [one, two] = std::array::from_fn(|_| Arc::new(Counting::default()));
        let mut wakers = Wakers::default();
        let first = wakers.insert(one.clone().into());
        let second = wakers.insert(two.clone().into());
        wakers.wake();
        wakers.remove(first);
        wakers.remove(first);
        assert_eq!((wakers.insert(two.clone().into()), wakers.insert(two.clone().into())), (first, 2));
        wakers.remove(second);
        wakers.wake();
        assert_eq!([one.0.load(Ordering::Relaxed), two.0.load(Ordering::Relaxed)], [1, 3]);
    }

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
