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

use crate::connection::{Connection, Cutoff, Ending, ListenerState};
use crate::h1::parse::Refusal;
use crate::io::{Io, Timer};
use crate::proxy_protocol::Said;
use crate::proxy_protocol::receive::{ReceiveError, receive};
use crate::telemetry::metrics::Handshake;
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
    let Some(admission) = worker.admit() else {
        if !state.tls.get() {
            turn_away(stream);
        }
        return;
    };
    let (state, worker) = (state.clone(), worker.clone());
    tokio::task::spawn_local(serve(stream, peer, state, worker, admission));
}

/// Tells a client over plain HTTP that the thread is full: one write and one read that never wait, so that it costs next to
/// nothing. Over TLS that would be a handshake.
fn turn_away(stream: TcpStream) {
    let Ok(mut stream) = stream.into_std() else { return };
    let told = stream.write(BUSY).is_ok() && stream.shutdown(Shutdown::Write).is_ok();
    if told {
        // A request that is here already, left unread, would reset the answer away.
        crate::ignore(stream.read(&mut [0; 4096]));
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
        admission.wake_with(cx.waker());
        Poll::Ready(())
    })
    .await;
    // Asked of the kernel only where the listener's own address does not say it.
    let Some(local) = listener.bound.get().or_else(|| stream.local_addr().ok()) else { return };
    let (mut peer, mut local, mut introduced) = (peer, local, false);
    if listener.proxy_protocol.get() && worker.generation().snapshot.trusted_proxies.contains(peer.ip()) {
        match introduce(&mut stream, peer, &listener, &worker).await {
            Some(Said::Nothing) => {}
            Some(Said::Proxied(ends)) => (peer, local, introduced) = (ends.source, ends.destination, true),
            None => return,
        }
    }
    let mut connection = Connection {
        id: admission.id,
        peer,
        local,
        introduced,
        tls: None,
        hello: None,
        preface: OnceCell::new(),
        requests: Cell::new(0),
        listener,
    };
    if connection.listener.tls.get() {
        let state = connection.listener.clone();
        // Boxed, so that the connection's task does not carry the memory of a handshake.
        let shaking = Box::pin(shake_hands(stream, &mut connection, &worker));
        let Some((stream, alpn)) = before_cutoff(shaking, &state).await.flatten() else { return };
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
        let first = while_idle(begins_with_preface(&stream), &connection.listener, limit).await;
        let Some(http2) = first else { return };
        let connection = Rc::new(connection);
        worker.shard.connection_speaks(if http2 { Protocol::Http2 } else { Protocol::Http11 }, false);
        if http2 {
            h2::server::run(Io::Tcp(stream), connection, worker).await;
        } else {
            h1::server::run(Io::Tcp(stream), connection, worker).await;
        }
    }
    drop(admission);
}

/// Reads the PROXY header of a trusted proxy, within the time of a handshake; `None` ends the connection.
async fn introduce(
    stream: &mut TcpStream,
    proxy: SocketAddr,
    listener: &ListenerState,
    worker: &Worker,
) -> Option<Said> {
    let limit = worker.generation().snapshot.limits.handshake;
    // Boxed, so that the connection's task does not carry the memory of a header.
    let outcome = while_idle(Box::pin(receive(stream)), listener, limit).await;
    match outcome {
        Some(Ok(said)) => return Some(said),
        // A proxy's look whether somebody listens, or an ending listener: nothing is wrong with either.
        Some(Err(ReceiveError::Silent)) => return None,
        None if listener.ending().is_some() => return None,
        Some(Err(error)) => tracing::debug!(%proxy, %error, "a connection without a good PROXY header"),
        None => tracing::debug!(%proxy, "a connection whose PROXY header did not come in time"),
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
async fn while_idle<T>(
    work: impl Future<Output = T>,
    listener: &ListenerState,
    limit: Duration,
) -> Option<T> {
    let (mut work, mut timer) = (pin!(work), Timer::default());
    let deadline = Instant::now() + limit;
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => timer.poll(cx, Ending::idle_until(listener.ending(), deadline)).map(|()| None),
    })
    .await
}

/// Waits for something unless an ending listener's requests are cut off first.
async fn before_cutoff<T>(work: impl Future<Output = T>, listener: &ListenerState) -> Option<T> {
    let (mut work, mut cutoff) = (pin!(work), Cutoff::default());
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => cutoff.poll(cx, listener, || false).map(|()| None),
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
                tls: None,
                hello: None,
                preface: OnceCell::new(),
                requests: Cell::new(0),
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
