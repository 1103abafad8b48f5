//! Accepting connections: admit, shake hands, hand over to the protocol side.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use base::event::Protocol;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::connection::{Connection, ListenerState};
use crate::h1::parse::Refusal;
use crate::io::Io;
use crate::telemetry::metrics::Handshake;
use crate::tls::{self, Alpn, HandshakeError};
use crate::worker::{Admission, Worker};
use crate::{h1, h2};

/// Pause after an accept error that is about resources (file descriptors, memory); the next try comes after it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections taken from the backlog of a listener that is being removed, at most.
const LAST_CALL: usize = 65_536;
/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Accepts until told to stop; then takes what has already connected, closes the socket, and says so.
pub async fn run(
    listener: TcpListener,
    state: Rc<ListenerState>,
    worker: Rc<Worker>,
    stopped: oneshot::Receiver<Option<std::sync::mpsc::Sender<()>>>,
) {
    let mut stopped = pin!(stopped);
    let done = loop {
        #[cfg(feature = "faults")]
        if crate::fault::accepts_nothing(&state) {
            break (&mut stopped).await.ok().flatten();
        }
        tokio::select! {
            biased;
            done = &mut stopped => break done.ok().flatten(),
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
    // Closing the socket would reset whoever waits in its backlog. Asked of the kernel directly: the runtime may not
    // have heard of the last ones yet.
    if let Ok(listener) = listener.into_std() {
        for _ in 0..LAST_CALL {
            let Ok((stream, peer)) = listener.accept() else { break };
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                take(stream, peer, &state, &worker);
            }
        }
    }
    if let Some(done) = done {
        // Nobody waits any more when the reload was given up.
        crate::ignore(done.send(()));
    }
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
        return;
    };
    let (state, worker) = (state.clone(), worker.clone());
    tokio::task::spawn_local(serve(stream, peer, state, worker, admission));
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    listener: Rc<ListenerState>,
    worker: Rc<Worker>,
    admission: Admission,
) {
    let Ok(local) = stream.local_addr() else { return };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut connection = Connection {
        id: admission.id,
        peer,
        local,
        tls: None,
        hello: None,
        preface: OnceCell::new(),
        requests: Cell::new(0),
        listener,
    };
    if connection.listener.tls.get() {
        let Some((stream, alpn)) = shake_hands(stream, &mut connection, &worker).await else { return };
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
        let Ok(http2) = tokio::time::timeout(limit, begins_with_preface(&stream)).await else { return };
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

/// Whether a plain connection starts with the HTTP/2 preface. One that dribbles it in pieces is taken for HTTP/1.1.
async fn begins_with_preface(stream: &TcpStream) -> bool {
    let mut first = [0; HTTP2_PREFACE.len()];
    matches!(stream.peek(&mut first).await, Ok(count) if count == first.len() && &first == HTTP2_PREFACE)
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
