//! A visitor of this edge's own listeners, for golden requests and probes: the client sides of `h1` and `h2`, pointed at
//! ourselves.

use std::cell::Cell;
use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use base::event::Protocol;
use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::h1::client::{
    ExchangeError, ExchangeErrorKind, ExchangeLimits, OriginConnection, Outgoing, Recycle,
};
use crate::h1::encode::{self, BodyFraming};
use crate::h2::client::SharedConnection;
use crate::io::Io;
use crate::message::{Body, Fill, HeaderList, ResponseHead};
use crate::pipeline::Inform;
use crate::tls::visitor as tls;
use crate::{h1, h2};

/// Bytes of an answer that are looked at; what is asked for is far smaller.
const MAX_ANSWER: usize = 256 * 1024;

/// How to reach a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// HTTP/1.1 without TLS.
    Plain,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    TlsHttp2,
}

impl Way {
    /// `http` or `https`.
    pub fn scheme(self) -> &'static str {
        if self == Self::Plain { "http" } else { "https" }
    }

    /// `http/1.1` or `h2`, as logs and traces name it.
    pub fn protocol(self) -> &'static str {
        if self == Self::TlsHttp2 { Protocol::Http2.name() } else { Protocol::Http11.name() }
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Question<'a> {
    /// GET or POST.
    pub method: Method,
    /// `Host` or `:authority`.
    pub authority: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Further fields.
    pub fields: &'a [(&'static str, &'a str)],
    /// The body; `None` announces none at all.
    pub body: Option<&'a [u8]>,
}

/// What was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Status and fields.
    pub head: ResponseHead,
    /// The whole body, at most `MAX_ANSWER` bytes.
    pub body: Vec<u8>,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VisitError {
    /// Not in time.
    #[error("nothing within {} s", .0.as_secs())]
    Late(Duration),
    /// Refused by a TLS alert.
    #[error("a TLS alert ({0})")]
    Alert(io::Error),
    /// No connection, or none that lasts.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// The connection ended, or the answer could not be read.
    #[error("{0}")]
    Broken(&'static str),
}

impl From<io::Error> for VisitError {
    fn from(error: io::Error) -> Self {
        if tls::is_alert(&error) { Self::Alert(error) } else { Self::Connect(error) }
    }
}

impl From<ExchangeError> for VisitError {
    fn from(error: ExchangeError) -> Self {
        Self::Broken(match error.kind {
            ExchangeErrorKind::Closed => "the connection closed without an answer",
            ExchangeErrorKind::TimedOut => "no answer in time",
            ExchangeErrorKind::Client(_) | ExchangeErrorKind::BadResponse => "an answer that is not HTTP",
        })
    }
}

/// One connection.
pub(crate) struct Visitor {
    line: Line,
    limit: Duration,
    /// Whether the certificate is for the host; `None` without TLS.
    pub covered: Option<bool>,
}

enum Line {
    Http1(Rc<Slot>),
    Http2(Rc<SharedConnection>),
}

/// Where an HTTP/1.1 connection rests between two requests.
struct Slot(Cell<Option<OriginConnection>>);

impl Recycle for Slot {
    fn recycle(&self, connection: OriginConnection) {
        self.0.set(Some(connection));
    }
}

impl Visitor {
    /// Connects; `limit` holds for this and for each request.
    pub async fn connect(
        address: SocketAddr,
        way: Way,
        host: &str,
        limit: Duration,
    ) -> Result<Self, VisitError> {
        within(limit, async {
            let stream = dial(address).await?;
            if way == Way::Plain {
                return Ok(Self { line: http1(Io::Tcp(stream)), limit, covered: None });
            }
            let presented = tls::connect(stream, host, way == Way::TlsHttp2).await?;
            let covered = Some(presented.covers(host));
            if presented.http2 != (way == Way::TlsHttp2) {
                return Err(VisitError::Broken("a handshake that did not agree on the protocol offered"));
            }
            let line = if presented.http2 {
                let shared = SharedConnection::open(presented.io, None).await;
                Line::Http2(
                    shared.map_err(|_| VisitError::Broken("a connection that does not speak HTTP/2"))?,
                )
            } else {
                http1(presented.io)
            };
            Ok(Self { line, limit, covered })
        })
        .await
    }

    /// Asks, and reads the whole answer.
    pub async fn ask(&self, question: &Question<'_>) -> Result<Answer, VisitError> {
        within(self.limit, async {
            let limits = ExchangeLimits { response: self.limit, idle: self.limit, tunnel: self.limit };
            let body = question.body.map_or(Body::Empty, |body| Body::Full(Bytes::copy_from_slice(body)));
            let (head, body) = match &self.line {
                Line::Http1(slot) => {
                    let wire = wire(question);
                    let framing = question
                        .body
                        .map_or(BodyFraming::None, |body| BodyFraming::Length(body.len() as u64));
                    exchange(slot, &wire, body, framing, limits).await?
                }
                Line::Http2(shared) => {
                    let request = http2_request(question)
                        .ok_or(VisitError::Broken("a request that cannot be written"))?;
                    shared.exchange(request, body, limits, &mut Deaf).await?
                }
            };
            Ok(Answer { head, body: read(body).await? })
        })
        .await
    }

    /// Sends these bytes as a request head over HTTP/1.1, right or wrong, and reads the answer.
    pub async fn ask_raw(&self, wire: &[u8]) -> Result<Answer, VisitError> {
        let Line::Http1(slot) = &self.line else { return Err(VisitError::Broken("not HTTP/1.1")) };
        within(self.limit, async {
            let limits = ExchangeLimits { response: self.limit, idle: self.limit, tunnel: self.limit };
            let (head, body) = exchange(slot, wire, Body::Empty, BodyFraming::None, limits).await?;
            Ok(Answer { head, body: read(body).await? })
        })
        .await
    }
}

/// Asks where a certificate is demanded, over TLS with HTTP/1.1 and without one: the status, or the alert as an error.
///
/// TLS 1.3 tells the refusal only after the client's side of the handshake is done, as the answer to the first read.
pub(crate) async fn ask_without_certificate(
    address: SocketAddr,
    question: &Question<'_>,
    host: &str,
    limit: Duration,
) -> Result<u16, VisitError> {
    within(limit, async {
        let mut presented = tls::connect(dial(address).await?, host, false).await?;
        // The refusal may already be here, and writing then fails where reading tells why.
        crate::ignore(presented.io.write_all(&wire(question)).await);
        crate::ignore(presented.io.flush().await);
        let mut first = [0; b"HTTP/1.1 421".len()];
        presented.io.read_exact(&mut first).await?;
        let status = first.strip_prefix(b"HTTP/1.1 ").and_then(|status| std::str::from_utf8(status).ok());
        status.and_then(|status| status.parse().ok()).ok_or(VisitError::Broken("an answer that is not HTTP"))
    })
    .await
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, VisitError>>,
) -> Result<T, VisitError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(VisitError::Late(limit)))
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn http1(io: Io) -> Line {
    Line::Http1(Rc::new(Slot(Cell::new(Some(OriginConnection::new(io))))))
}

async fn exchange(
    slot: &Rc<Slot>,
    wire: &[u8],
    body: Body,
    framing: BodyFraming,
    limits: ExchangeLimits,
) -> Result<(ResponseHead, Body), VisitError> {
    let closed = VisitError::Broken("the connection was not kept for another request");
    let connection = slot.0.take().ok_or(closed)?;
    let outgoing =
        Outgoing { head: wire, body, framing, to_head: false, tunnel: false, expects_continue: false };
    Ok(h1::client::exchange(connection, outgoing, limits, &mut Deaf, slot.clone()).await?)
}

/// The head for HTTP/1.1.
fn wire(question: &Question<'_>) -> Vec<u8> {
    let mut line = String::with_capacity(256);
    let Question { method, authority, target, .. } = question;
    crate::ignore(write!(line, "{method} {target} HTTP/1.1\r\nHost: {authority}\r\n"));
    let mut wire = line.into_bytes();
    for (name, value) in question.fields {
        encode::field(&mut wire, name.as_bytes(), value.as_bytes());
    }
    if let Some(body) = question.body {
        encode::framing_field(&mut wire, BodyFraming::Length(body.len() as u64));
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

/// The head for HTTP/2.
fn http2_request(question: &Question<'_>) -> Option<http::Request<()>> {
    let mut list = HeaderList::default();
    question.fields.iter().for_each(|(name, value)| list.push(*name, *value));
    let mut request = http::Request::new(());
    *request.method_mut() = question.method.clone();
    let uri = http::Uri::builder().scheme("https").authority(question.authority);
    *request.uri_mut() = uri.path_and_query(question.target).build().ok()?;
    *request.headers_mut() = h2::convert::header_map(&list);
    if let Some(body) = question.body {
        request.headers_mut().insert(http::header::CONTENT_LENGTH, body.len().into());
    }
    *request.version_mut() = http::Version::HTTP_2;
    Some(request)
}

async fn read(mut body: Body) -> Result<Vec<u8>, VisitError> {
    let mut bytes = Vec::new();
    loop {
        match poll_fn(|cx| body.poll_fill(cx)).await {
            Ok(Fill::Data) => bytes.extend_from_slice(&body.take(MAX_ANSWER)),
            Ok(Fill::End) => return Ok(bytes),
            Err(_) => return Err(VisitError::Broken("an answer that was cut off")),
        }
        if bytes.len() > MAX_ANSWER {
            return Err(VisitError::Broken("an answer without end"));
        }
    }
}

/// Interim responses are of no interest here.
struct Deaf;

impl Inform for Deaf {
    fn inform(&mut self, cx: &mut Context<'_>, head: &ResponseHead) {
        let _nobody_is_told = (cx, head);
    }
}

/// Runs a visit on a thread and a runtime of its own, so that it can be made from anywhere, and waits for it.
pub(crate) fn apart<T: Send>(name: &str, visit: impl AsyncFnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default())?;
            Ok(runtime.block_on(visit()))
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the visitor's thread panicked")))
    })
}
