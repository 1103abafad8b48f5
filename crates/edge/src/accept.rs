//! Accepting connections: admit, shake hands, hand over to the protocol side.

use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use base::event::Protocol;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::connection::{Connection, Cutoff, Fingerprints, ListenerState};
use crate::h1::parse::Refusal;
use crate::io::{Io, Timer};
use crate::path::Path;
use crate::proxy_protocol::Said;
use crate::proxy_protocol::receive::{ReceiveError, receive};
use crate::seats::Seat;
use crate::telemetry::metrics::{ConnectionRefused, Handshake};
use crate::tls::{self, Alpn, HandshakeError};
use crate::worker::{Admission, Done, Worker};
use crate::{h1, h2};

/// Pause after an accept error that is about resources (file descriptors, memory); the next try comes after it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections taken from the backlog of a listener that is being removed, at most.
const LAST_CALL: usize = 65_536;
/// Answer to a connection that a full thread cannot take.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Type: text/plain\r\n\
Content-Length: 44\r\nConnection: close\r\n\r\nToo many connections. Try again in a moment.";
/// Answer to a connection whose network has, or opens, more than it may (RFC 6585 section 4).
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nContent-Type: text/plain\r\n\
Content-Length: 63\r\nConnection: close\r\n\r\nToo many connections from your network. Try again in a moment.\n";
/// Connections closed in a row while there are no descriptors; then the others on the thread get their turn.
const SHED_AT_ONCE: usize = 64;
/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How an accept loop is to end.
pub struct Stop {
    /// Whether to take what waits in the backlog first, because nobody else will.
    pub last_call: bool,
    /// Dropped when the socket is closed.
    pub done: Option<Done>,
}

/// Accepts until told to stop; then takes what has already connected, if that is wanted, and closes the socket.
pub async fn run(
    listener: TcpListener,
    state: Rc<ListenerState>,
    worker: Rc<Worker>,
    stopped: oneshot::Receiver<Stop>,
) {
    let mut stopped = pin!(stopped);
    let mut spare = Spare::default();
    let stop = loop {
        #[cfg(feature = "faults")]
        if crate::fault::accepts_nothing(&state) {
            break (&mut stopped).await.ok();
        }
        tokio::select! {
            biased;
            stop = &mut stopped => break stop.ok(),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => take(stream, peer, &state, &worker),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(listener = %state.configured, %error, "cannot accept connections for a moment");
                    spare.shed(&listener, &state, &worker).await;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    };
    // Closing the socket would reset whoever waits in its backlog, if no other process has it too. Asked of the kernel
    // directly: the runtime may not have heard of the last ones yet.
    if let Ok(listener) = listener.into_std()
        && stop.as_ref().is_some_and(|stop| stop.last_call)
    {
        for _ in 0..LAST_CALL {
            let Ok((stream, peer)) = listener.accept() else { break };
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                take(stream, peer, &state, &worker);
            }
        }
    }
    // The socket is closed by now, whichever way it went, and whoever waits for that hears of it.
    drop(stop.and_then(|stop| stop.done));
}

/// Errors of the connection that was to be accepted, not of the listener (accept(2)).
fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied)
}

fn take(stream: TcpStream, peer: SocketAddr, state: &Rc<ListenerState>, worker: &Rc<Worker>) {
    #[cfg(feature = "faults")]
    if crate::fault::closes(state) {
        return;
    }
    let admission = match worker.admit(peer, state) {
        Ok(admission) => admission,
        Err(reason) => return turn_away(stream, state, reason),
    };
    let (state, worker) = (state.clone(), worker.clone());
    tokio::task::spawn_local(serve(stream, peer, state, worker, admission));
}

/// Tells a client over plain HTTP that there is no room for it: one write and one read that never wait, so that it costs next
/// to nothing. Over TLS that would be a handshake, so there the connection is only closed.
fn turn_away(stream: TcpStream, state: &ListenerState, reason: ConnectionRefused) {
    if state.tls.get() {
        return;
    }
    let Ok(mut stream) = stream.into_std() else { return };
    let answer = match reason {
        // Told nothing: each word would be work for a client that is known to attack.
        ConnectionRefused::Banned => return,
        ConnectionRefused::AddressConnections
        | ConnectionRefused::AddressRate
        | ConnectionRefused::AddressHandshakes => TOO_MANY,
        ConnectionRefused::Connections
        | ConnectionRefused::Descriptors
        | ConnectionRefused::Pressure
        | ConnectionRefused::Handshakes => BUSY,
    };
    let told = stream.write(answer).is_ok() && stream.shutdown(Shutdown::Write).is_ok();
    if told {
        // A request that is here already, left unread, would reset the answer away.
        crate::ignore(stream.read(&mut [0; 4096]));
    }
}

/// A descriptor kept for the moment when there are no others: with it whoever waits can at least be told.
struct Spare(Option<std::fs::File>);

impl Default for Spare {
    fn default() -> Self {
        Self(std::fs::File::open("/dev/null").ok())
    }
}

impl Spare {
    /// Turns connections of the backlog away, one after the other on the descriptor that was spared for it.
    async fn shed(&mut self, listener: &TcpListener, state: &ListenerState, worker: &Worker) {
        if self.0.take().is_some() {
            for _ in 0..SHED_AT_ONCE {
                let next = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await;
                let Poll::Ready(Ok((stream, _))) = next else { break };
                worker.shard.connection_refused(ConnectionRefused::Descriptors);
                turn_away(stream, state, ConnectionRefused::Descriptors);
            }
        }
        *self = Self::default();
    }
}

async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    listener: Rc<ListenerState>,
    worker: Rc<Worker>,
    mut admission: Admission,
) {
    poll_fn(|cx| {
        admission.seat.wake_with(cx.waker());
        Poll::Ready(())
    })
    .await;
    // Asked of the kernel only where the listener's own address does not say it.
    let Some(local) = listener.bound.get().or_else(|| stream.local_addr().ok()) else { return };
    let (mut peer, mut local, mut introduced) = (peer, local, false);
    if listener.proxy_protocol.get() && worker.generation().snapshot.trusted_proxies.contains(peer.ip()) {
        match introduce(&mut stream, peer, &listener, &admission.seat, &worker).await {
            Some(Said::Nothing) => {}
            Some(Said::Proxied(ends)) => {
                (peer, local, introduced) = (ends.source, ends.destination, true);
                if let Err(reason) = admission.charge(peer.ip(), &listener) {
                    return turn_away(stream, &listener, reason);
                }
            }
            None => return,
        }
    }
    let mut connection = Connection {
        id: admission.seat.number,
        peer,
        local,
        introduced,
        path: Path::default(),
        tls: None,
        hello: None,
        preface: OnceCell::new(),
        fingerprints: Fingerprints::default(),
        requests: Cell::new(0),
        sharers: Cell::new(0),
        seat: admission.seat.clone(),
        listener,
    };
    if connection.listener.tls.get() {
        let (state, seat) = (connection.listener.clone(), connection.seat.clone());
        // Boxed, so that the connection's task does not carry the memory of a handshake.
        let shaking = Box::pin(shake_hands(stream, &mut connection, &worker));
        let Some((stream, alpn)) = before_cutoff(shaking, &state, &seat).await.flatten() else { return };
        admission.shaken();
        connection.path = measured(&stream, introduced);
        let connection = Rc::new(connection);
        worker
            .shard
            .connection_speaks(if alpn == Alpn::H2 { Protocol::Http2 } else { Protocol::Http11 }, true);
        match alpn {
            Alpn::H2 => h2::server::run(stream, connection, worker).await,
            Alpn::H1 | Alpn::None => h1::server::run(stream, connection, worker).await,
            // Over with its handshake.
            Alpn::AcmeTls => {}
        }
    } else {
        let limit = worker.generation().snapshot.limits.keep_alive;
        let first = while_idle(begins_with_preface(&stream), &connection, limit).await;
        let Some(http2) = first else { return };
        let stream = Io::Tcp(stream);
        connection.path = measured(&stream, introduced);
        let connection = Rc::new(connection);
        worker.shard.connection_speaks(if http2 { Protocol::Http2 } else { Protocol::Http11 }, false);
        if http2 {
            h2::server::run(stream, connection, worker).await;
        } else {
            h1::server::run(stream, connection, worker).await;
        }
    }
    drop(admission);
}

/// The way to the peer. Behind a proxy that names somebody else it is the way to the proxy, which says nothing.
fn measured(stream: &Io, introduced: bool) -> Path {
    if introduced { Path::default() } else { Path::of(stream.socket()) }
}

/// Reads the PROXY header of a trusted proxy, within the time of a handshake; `None` ends the connection.
async fn introduce(
    stream: &mut TcpStream,
    proxy: SocketAddr,
    listener: &ListenerState,
    seat: &Seat,
    worker: &Worker,
) -> Option<Said> {
    let limit = worker.generation().snapshot.limits.handshake;
    // Boxed, so that the connection's task does not carry the memory of a header.
    let received = Box::pin(tokio::time::timeout(limit, receive(stream)));
    match before_cutoff(received, listener, seat).await? {
        Ok(Ok(said)) => return Some(said),
        // A proxy's look whether somebody listens: nothing is wrong with that.
        Ok(Err(ReceiveError::Silent)) => return None,
        Ok(Err(error)) => tracing::debug!(%proxy, %error, "a connection without a good PROXY header"),
        Err(_elapsed) => tracing::debug!(%proxy, "a connection whose PROXY header did not come in time"),
    }
    worker.shard.introduction_failed();
    None
}

/// Whether a plain connection starts with the HTTP/2 preface. One that dribbles it in pieces is taken for HTTP/1.1.
async fn begins_with_preface(stream: &TcpStream) -> bool {
    let mut first = [0; HTTP2_PREFACE.len()];
    matches!(stream.peek(&mut first).await, Ok(count) if count == first.len() && &first == HTTP2_PREFACE)
}

/// Waits for the first bytes of a connection, for so long, and no longer than an ending listener's idle connections are kept.
async fn while_idle<T>(work: impl Future<Output = T>, connection: &Connection, limit: Duration) -> Option<T> {
    let (mut work, mut timer) = (pin!(work), Timer::default());
    let deadline = Instant::now() + limit;
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => timer.poll(cx, connection.idle_until(deadline)).map(|()| None),
    })
    .await
}

/// Waits for a handshake unless an ending listener's requests are cut off first, or another connection needs the room.
async fn before_cutoff<T>(work: impl Future<Output = T>, listener: &ListenerState, seat: &Seat) -> Option<T> {
    let (mut work, mut cutoff) = (pin!(work), Cutoff::default());
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if seat.left().is_some() => Poll::Ready(None),
        Poll::Pending => cutoff.poll(cx, listener, seat, || false).map(|()| None),
    })
    .await
}

/// The TLS handshake, within its time. A client that speaks plain HTTP is told so in plain HTTP.
async fn shake_hands(
    stream: TcpStream,
    connection: &mut Connection,
    worker: &Rc<Worker>,
) -> Option<(Io, Alpn)> {
    let generation = worker.generation();
    let settings = generation.tls.clone()?;
    let limit = generation.snapshot.limits.handshake;
    match tokio::time::timeout(limit, tls::accept(stream, &settings)).await {
        // The authority has seen the certificate it came for (RFC 8737 section 4).
        Ok(Ok(accepted)) if accepted.facts.alpn == Alpn::AcmeTls => {
            accepted.close(limit).await;
            None
        }
        Ok(Ok(accepted)) => {
            worker.shard.handshake(if accepted.facts.resumed { Handshake::Resumed } else { Handshake::Full });
            let alpn = accepted.facts.alpn;
            connection.tls = Some(accepted.facts);
            connection.hello = accepted.hello;
            Some((Io::Server(Box::new(accepted.stream)), alpn))
        }
        Ok(Err(HandshakeError::PlainHttp { io, .. })) => {
            worker.shard.handshake(Handshake::Failed);
            let plain = Connection {
                id: connection.id,
                peer: connection.peer,
                local: connection.local,
                introduced: connection.introduced,
                path: Path::default(),
                tls: None,
                hello: None,
                preface: OnceCell::new(),
                fingerprints: Fingerprints::default(),
                requests: Cell::new(0),
                sharers: Cell::new(0),
                seat: connection.seat.clone(),
                listener: connection.listener.clone(),
            };
            let refusal = Refusal { status: 400, reason: "plain_http_on_tls_port" };
            h1::server::reject(Io::Tcp(io), refusal, Rc::new(plain), worker.clone()).await;
            None
        }
        Ok(Err(HandshakeError::Silent)) => None,
        Ok(Err(error)) => {
            worker.shard.handshake(Handshake::Failed);
            tracing::debug!(peer = %base::address::truncate(connection.peer.ip()), reason = error.reason(), "TLS handshake failed");
            None
        }
        Err(_elapsed) => {
            worker.shard.handshake(Handshake::Failed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn answers_are_as_long_as_they_say() {
        for (answer, status) in [(super::BUSY, "503"), (super::TOO_MANY, "429")] {
            let text = std::str::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && head.contains("Retry-After: "));
        }
    }
}
