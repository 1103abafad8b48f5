//! A connection to an origin: from the pool if one is good, else made anew within the connect limit.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use snapshot::generation::{CONNECTIONS_PER_THREAD, Origin, OriginHost, ProxyProtocol};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connect::{self, ConnectError};
use super::room::{Grant, OpeningGuard, Permit, Refused, Room};
use crate::failure::Failure;
use crate::generation::{OriginRuntime, OriginTlsRuntime};
use crate::h1::client::OriginConnection;
use crate::h2::client::{SharedConnection, StreamGuard};
use crate::io::Io;
use crate::proxy_protocol::{self, Ends};
use crate::telemetry::metrics::{OriginConnection as Source, SiteMetrics, Wait};
use crate::worker::Worker;

/// Time for the golden origin to do anything, whatever the real one is allowed.
pub const REHEARSAL_TIME: Duration = Duration::from_secs(5);

/// What the request needs of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Wants<'a> {
    /// HTTP/1.1 only: upgrades.
    pub http1: bool,
    /// HTTP/2 even without TLS: gRPC.
    pub http2: bool,
    /// Not from the pool.
    pub fresh: bool,
    /// To wait while all connections are in use; else `Failure::OriginBusy` comes at once.
    pub patience: bool,
    /// The visitor's connection, where the origin is told of it in a PROXY header.
    pub ends: Option<&'a Ends>,
}

impl Wants<'_> {
    /// Whether a stream of a shared connection may do. Without TLS only those who ask for HTTP/2 get it: the connection may
    /// be there on a guess.
    fn shares(&self, origin: &OriginRuntime) -> bool {
        !self.http1 && (self.http2 || origin.tls.is_some())
    }
}

/// A connection to send one request on.
pub enum Transport {
    /// For this request alone.
    Http1(OriginConnection),
    /// Shared with others, one stream reserved; true when it carried requests before.
    Http2(Rc<SharedConnection>, StreamGuard, bool),
}

/// Gets a connection.
pub async fn connect(
    origin: &OriginRuntime,
    wants: Wants<'_>,
    worker: &Rc<Worker>,
    metrics: &SiteMetrics,
) -> Result<Transport, Failure> {
    if wants.shares(origin)
        && let Some((shared, stream)) = worker.pools.shared(origin.pool)
    {
        metrics.origin_connection(worker.thread(), origin.index, Source::Reused);
        return Ok(Transport::Http2(shared, stream, true));
    }
    if !wants.http2 && !wants.fresh {
        let (limit, ends) = (origin.origin.timeouts.keep_alive, wants.ends);
        while let Some(mut idle) = worker.pools.take(origin.pool, limit, ends) {
            if poll_fn(|cx| Poll::Ready(idle.poll_fresh(cx))).await {
                metrics.origin_connection(worker.thread(), origin.index, Source::Reused);
                return Ok(Transport::Http1(idle));
            }
        }
    }
    // Boxed, so that requests that find a connection do not carry the memory of making one.
    let obtained = Box::pin(obtain(origin, wants, worker, metrics)).await;
    let source = match &obtained {
        Ok(Transport::Http1(connection)) if connection.used == 0 => Source::New,
        Ok(Transport::Http2(_, _, false)) => Source::New,
        Ok(_) => Source::Reused,
        // Nothing was tried.
        Err(Failure::OriginBusy) => return obtained,
        Err(_) => Source::Failed,
    };
    metrics.origin_connection(worker.thread(), origin.index, source);
    obtained
}

/// Makes a connection, or waits for one: for one that is being opened and may be shared, or for room at the origin.
async fn obtain(
    origin: &OriginRuntime,
    wants: Wants<'_>,
    worker: &Rc<Worker>,
    metrics: &SiteMetrics,
) -> Result<Transport, Failure> {
    let Some(room) = worker.pools.room(origin.pool) else {
        return open(origin, wants, worker, None, &mut None).await;
    };
    let shares = wants.shares(origin);
    let deadline = tokio::time::Instant::now() + origin.origin.timeouts.connect;
    // Each round ends with a connection that was opened for up to so many requests, or at the deadline.
    while let Some(opening) = room.opening().filter(|_| shares) {
        opening.wait(deadline).await?;
        if let Some((shared, stream)) = worker.pools.shared(origin.pool) {
            return Ok(Transport::Http2(shared, stream, true));
        }
    }
    let most = most_connections(&origin.origin, worker);
    let permit = match room.enter(most) {
        Some(permit) => permit,
        None => {
            worker.pools.make_room(origin.pool);
            match room.enter(most) {
                Some(permit) => permit,
                None if !wants.patience => return Err(Failure::OriginBusy),
                None => match wait(origin, wants, &room, metrics).await? {
                    Waited::Transport(transport) => return Ok(transport),
                    Waited::Permit(permit) => permit,
                },
            }
        }
    };
    let mut opening = shares.then(|| room.begin_opening());
    let opened = open(origin, wants, worker, Some(permit), &mut opening).await;
    if let (Err(failure), Some(opening)) = (&opened, &opening) {
        opening.fail(*failure);
    }
    opened
}

/// What waiting has brought.
enum Waited {
    Transport(Transport),
    /// A connection is still to be opened.
    Permit(Permit),
}

async fn wait(
    origin: &OriginRuntime,
    wants: Wants<'_>,
    room: &Room,
    metrics: &SiteMetrics,
) -> Result<Waited, Failure> {
    let Origin { queue, timeouts, .. } = &*origin.origin;
    let waiting = metrics.wait();
    let granted = room.wait(wants.shares(origin), *queue, timeouts.queue).await;
    waiting.ended(match granted {
        Ok(_) => Wait::Served,
        Err(Refused::Full) => Wait::Full,
        Err(Refused::Late) => Wait::Late,
    });
    match granted.map_err(|_| Failure::OriginBusy)? {
        Grant::Permit(permit) => Ok(Waited::Permit(permit)),
        Grant::Stream(shared, stream) => Ok(Waited::Transport(Transport::Http2(shared, stream, true))),
        Grant::Connection(mut connection) => {
            let fits = !wants.http2 && !wants.fresh && connection.introduced.as_deref() == wants.ends;
            if fits && poll_fn(|cx| Poll::Ready(connection.poll_fresh(cx))).await {
                return Ok(Waited::Transport(Transport::Http1(connection)));
            }
            // Its place is good in any case.
            connection.permit.take().map(Waited::Permit).ok_or(Failure::Internal)
        }
    }
}

/// This thread's share of the connections an origin may have: all shares together are what is configured, if that is at least
/// one for each thread.
fn most_connections(origin: &Origin, worker: &Worker) -> usize {
    let Some(all) = origin.max_connections else { return CONNECTIONS_PER_THREAD };
    let threads = worker.shared.ticks.len().max(1);
    share(all, threads, worker.thread())
}

fn share(all: usize, threads: usize, thread: usize) -> usize {
    (all / threads + usize::from(thread % threads < all % threads)).max(1)
}

/// A plain connection to the golden origin, which is never pooled or counted.
pub async fn rehearse(golden: SocketAddr) -> Result<Transport, Failure> {
    let stream = connect::connect(&[golden], REHEARSAL_TIME).await.map_err(|_| Failure::OriginRefused)?;
    Ok(Transport::Http1(OriginConnection::new(Io::Tcp(stream))))
}

/// Opens a connection within the connect limit.
async fn open(
    origin: &OriginRuntime,
    wants: Wants<'_>,
    worker: &Rc<Worker>,
    permit: Option<Permit>,
    opening: &mut Option<OpeningGuard>,
) -> Result<Transport, Failure> {
    let begun = begin(origin, wants, worker, permit, opening);
    let opened = tokio::time::timeout(origin.origin.timeouts.connect, begun).await;
    opened.unwrap_or(Err(Failure::OriginConnectTimeout))
}

async fn begin(
    origin: &OriginRuntime,
    wants: Wants<'_>,
    worker: &Rc<Worker>,
    permit: Option<Permit>,
    opening: &mut Option<OpeningGuard>,
) -> Result<Transport, Failure> {
    let mut stream = dial(&origin.origin, worker).await?;
    if let (Some(version), Some(ends)) = (origin.origin.proxy_protocol, wants.ends) {
        introduce(&mut stream, version, ends).await?;
    }
    let (io, http2) = match &origin.tls {
        None => (Io::Tcp(stream), wants.http2 && !wants.http1),
        Some(tls) => {
            let (stream, http2) = shake_hands(stream, tls, wants).await?;
            if wants.http2 && !wants.http1 && !http2 {
                return Err(Failure::OriginTls);
            }
            (stream, http2)
        }
    };
    opening.iter().for_each(|opening| opening.learn(http2));
    if !http2 {
        let mut connection = OriginConnection::new(io);
        (connection.permit, connection.introduced) = (permit, wants.ends.copied().map(Box::new));
        return Ok(Transport::Http1(connection));
    }
    let shared = SharedConnection::open(io, permit, opening, Some(worker.shard.clone()))
        .await
        .map_err(|_| Failure::OriginBadResponse)?;
    // For this request first, then for those who wait.
    let stream = shared.reserve().ok_or(Failure::OriginBadResponse)?;
    worker.pools.share(origin.pool, shared.clone());
    Ok(Transport::Http2(shared, stream, false))
}

/// Tells the origin whose connection this is, before anything else.
async fn introduce(stream: &mut TcpStream, version: ProxyProtocol, ends: &Ends) -> Result<(), Failure> {
    let mut header = Vec::with_capacity(proxy_protocol::MAX_V1);
    match version {
        ProxyProtocol::V1 => proxy_protocol::write_v1(ends, &mut header),
        ProxyProtocol::V2 => proxy_protocol::write_v2(ends, &mut header),
    }
    stream.write_all(&header).await.map_err(|_| Failure::OriginClosed)
}

async fn dial(origin: &Origin, worker: &Rc<Worker>) -> Result<TcpStream, Failure> {
    let mut addresses = match &origin.host {
        OriginHost::Address(address) => smallvec::smallvec![(*address, origin.port).into()],
        OriginHost::Name(name) => worker
            .resolver
            .resolve(name, origin.port, origin.timeouts.resolve, Instant::now())
            .await
            .map_err(|_| Failure::OriginName)?,
    };
    if addresses.len() > 1 {
        // Else the first address of a name would get everything.
        connect::rotate(&mut addresses, worker.with_random(base::random::Random::next_u64) as usize);
    }
    connect::connect(&addresses, origin.timeouts.connect).await.map_err(|error| match error {
        ConnectError::Refused => Failure::OriginRefused,
        ConnectError::TimedOut => Failure::OriginConnectTimeout,
        _ => Failure::OriginUnreachable,
    })
}

/// The TLS handshake; true when the origin chose HTTP/2.
async fn shake_hands(
    stream: TcpStream,
    tls: &OriginTlsRuntime,
    wants: Wants<'_>,
) -> Result<(Io, bool), Failure> {
    let config = if wants.http1 { &tls.http1 } else { &tls.config };
    let stream =
        TlsConnector::from(config.clone()).connect(tls.name.clone(), stream).await.map_err(|error| {
            let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match cause {
                Some(rustls::Error::InvalidCertificate(_)) => Failure::OriginCertificate,
                _ => Failure::OriginTls,
            }
        })?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Io::Client(Box::new(stream)), http2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_threads_are_what_is_configured() {
        for (all, threads, expected) in
            [(8, 4, vec![2, 2, 2, 2]), (10, 4, vec![3, 3, 2, 2]), (2, 4, vec![1; 4]), (7, 1, vec![7])]
        {
            let shares: Vec<usize> = (0..threads).map(|thread| share(all, threads, thread)).collect();
            assert_eq!(shares, expected, "{all} over {threads}");
        }
    }
}
