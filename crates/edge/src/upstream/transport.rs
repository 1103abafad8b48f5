//! A connection to an origin: from the pool if one is good, else made anew within the connect limit.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use snapshot::generation::{Origin, OriginHost};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connect::{self, ConnectError};
use crate::failure::Failure;
use crate::generation::{OriginRuntime, OriginTlsRuntime};
use crate::h1::client::OriginConnection;
use crate::h2::client::SharedConnection;
use crate::io::Io;
use crate::telemetry::metrics::{OriginConnection as Source, SiteMetrics};
use crate::worker::Worker;

/// Time for the golden origin to do anything, whatever the real one is allowed.
pub const REHEARSAL_TIME: Duration = Duration::from_secs(5);

/// What the request needs of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Wants {
    /// HTTP/1.1 only: upgrades.
    pub http1: bool,
    /// HTTP/2 even without TLS: gRPC.
    pub http2: bool,
    /// Not from the pool.
    pub fresh: bool,
}

/// A connection to send one request on.
pub enum Transport {
    /// For this request alone.
    Http1(OriginConnection),
    /// Shared with others; true when it carried requests before.
    Http2(Rc<SharedConnection>, bool),
}

/// Gets a connection.
pub async fn connect(
    origin: &OriginRuntime,
    wants: Wants,
    worker: &Rc<Worker>,
    metrics: &SiteMetrics,
) -> Result<Transport, Failure> {
    // Without TLS only those who ask for HTTP/2 get it: the connection may be there on a guess.
    if !wants.http1
        && (wants.http2 || origin.tls.is_some())
        && let Some(shared) = worker.pools.shared(origin.pool)
    {
        metrics.origin_connection(worker.thread(), origin.index, Source::Reused);
        return Ok(Transport::Http2(shared, true));
    }
    if !wants.http2 && !wants.fresh {
        while let Some(mut idle) = worker.pools.take(origin.pool, origin.origin.timeouts.keep_alive) {
            if poll_fn(|cx| Poll::Ready(idle.poll_fresh(cx))).await {
                metrics.origin_connection(worker.thread(), origin.index, Source::Reused);
                return Ok(Transport::Http1(idle));
            }
        }
    }
    let limit = origin.origin.timeouts.connect;
    let opened = match tokio::time::timeout(limit, open(origin, wants, worker)).await {
        Ok(opened) => opened,
        Err(_elapsed) => Err(Failure::OriginConnectTimeout),
    };
    let source = if opened.is_ok() { Source::New } else { Source::Failed };
    metrics.origin_connection(worker.thread(), origin.index, source);
    opened
}

/// A plain connection to the golden origin, which is never pooled or counted.
pub async fn rehearse(golden: SocketAddr) -> Result<Transport, Failure> {
    let stream = connect::connect(&[golden], REHEARSAL_TIME).await.map_err(|_| Failure::OriginRefused)?;
    Ok(Transport::Http1(OriginConnection::new(Io::Tcp(stream))))
}

async fn open(origin: &OriginRuntime, wants: Wants, worker: &Rc<Worker>) -> Result<Transport, Failure> {
    let stream = dial(&origin.origin, worker).await?;
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
    if !http2 {
        return Ok(Transport::Http1(OriginConnection::new(io)));
    }
    let shared = SharedConnection::open(io, Some(worker.shard.clone()))
        .await
        .map_err(|_| Failure::OriginBadResponse)?;
    worker.pools.share(origin.pool, shared.clone());
    Ok(Transport::Http2(shared, false))
}

async fn dial(origin: &Origin, worker: &Rc<Worker>) -> Result<TcpStream, Failure> {
    let addresses = match &origin.host {
        OriginHost::Address(address) => smallvec::smallvec![(*address, origin.port).into()],
        OriginHost::Name(name) => worker
            .resolver
            .resolve(name, origin.port, origin.timeouts.resolve, Instant::now())
            .await
            .map_err(|_| Failure::OriginName)?,
    };
    connect::connect(&addresses, origin.timeouts.connect).await.map_err(|error| match error {
        ConnectError::Refused => Failure::OriginRefused,
        ConnectError::TimedOut => Failure::OriginConnectTimeout,
        _ => Failure::OriginUnreachable,
    })
}

/// The TLS handshake; true when the origin chose HTTP/2.
async fn shake_hands(stream: TcpStream, tls: &OriginTlsRuntime, wants: Wants) -> Result<(Io, bool), Failure> {
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
