//! The connections of the load: a new one per request, a few that are kept, and a few of HTTP/2.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Attempt, HTTP2_CONNECTIONS, KEPT_CONNECTIONS, Kind, Target, Trouble};

/// Largest response head, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// A kept HTTP/1.1 connection.
struct Kept<S> {
    stream: S,
    opened: Instant,
}

/// Kept HTTP/1.1 connections of one kind.
struct Pool<S> {
    idle: RefCell<VecDeque<Kept<S>>>,
    open: Cell<usize>,
}

impl<S> Default for Pool<S> {
    fn default() -> Self {
        Self { idle: RefCell::default(), open: Cell::new(0) }
    }
}

/// An HTTP/2 connection.
#[derive(Clone)]
struct Shared2 {
    send: SendRequest<Bytes>,
    opened: Instant,
    used: Rc<Cell<bool>>,
}

/// All connections.
pub(super) struct Lines {
    target: Target,
    full_handshake: Arc<ClientConfig>,
    message: Vec<u8>,
    kept: Pool<TcpStream>,
    kept_tls: Pool<TlsStream<TcpStream>>,
    http2: Vec<Mutex<Option<Shared2>>>,
    turn: Cell<usize>,
}

impl Lines {
    pub(super) fn new(target: Target) -> Self {
        let message = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", target.path, target.host);
        let mut full_handshake = (*target.http1).clone();
        full_handshake.resumption = Resumption::disabled();
        Self {
            full_handshake: Arc::new(full_handshake),
            message: message.into_bytes(),
            kept: Pool::default(),
            kept_tls: Pool::default(),
            http2: (0..HTTP2_CONNECTIONS).map(|_| Mutex::new(None)).collect(),
            turn: Cell::new(0),
            target,
        }
    }

    /// Which HTTP/2 connection a request uses, for both of its attempts.
    pub(super) fn next_slot(&self) -> usize {
        self.turn.set(self.turn.get().wrapping_add(1));
        self.turn.get() % HTTP2_CONNECTIONS
    }

    /// One attempt; `again` asks for a connection on which nothing has failed yet.
    pub(super) async fn attempt(&self, kind: Kind, slot: usize, again: bool, patience: Duration) -> Attempt {
        match kind {
            Kind::Fresh => self.attempt_fresh(Duration::ZERO, patience).await,
            Kind::FreshTls => self.attempt_fresh_tls(patience).await,
            Kind::Kept => {
                let open = self.connect(self.target.plain);
                self.attempt_kept(&self.kept, open, again, patience).await
            }
            Kind::KeptTls => {
                let open = self.handshake(self.full_handshake.clone());
                self.attempt_kept(&self.kept_tls, open, again, patience).await
            }
            Kind::Http2 => self.attempt_http2(&self.http2[slot], patience).await,
        }
    }

    /// A request on a connection of its own, which is held for a while before.
    pub(super) async fn attempt_fresh(&self, hold: Duration, patience: Duration) -> Attempt {
        let began = Instant::now();
        let outcome = within(patience + hold, async {
            let mut stream = self.connect(self.target.plain).await?;
            tokio::time::sleep(hold).await;
            exchange(&mut stream, &self.message, &self.target.expect).await
        });
        let trouble = outcome.await.err();
        Attempt { opened: began, began, ended: Instant::now(), reused: false, trouble }
    }

    async fn attempt_fresh_tls(&self, patience: Duration) -> Attempt {
        let began = Instant::now();
        let outcome = within(patience, async {
            let mut stream = self.handshake(self.full_handshake.clone()).await?;
            exchange(&mut stream, &self.message, &self.target.expect).await
        });
        let trouble = outcome.await.err();
        Attempt { opened: began, began, ended: Instant::now(), reused: false, trouble }
    }

    async fn attempt_kept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        pool: &Pool<S>,
        open: impl Future<Output = Result<S, Trouble>>,
        again: bool,
        patience: Duration,
    ) -> Attempt {
        let began = Instant::now();
        let may_open = again || pool.open.get() < KEPT_CONNECTIONS;
        let idle = if may_open { None } else { pool.idle.borrow_mut().pop_front() };
        let (reused, opened) = (idle.is_some(), idle.as_ref().map_or(began, |kept| kept.opened));
        let outcome = within(patience, async {
            let mut stream = match idle {
                Some(kept) => kept.stream,
                None => open.await?,
            };
            let stays = exchange(&mut stream, &self.message, &self.target.expect).await?;
            Ok((stream, stays))
        });
        let (stays, trouble) = match outcome.await {
            Ok((stream, stays)) => {
                if stays {
                    pool.idle.borrow_mut().push_back(Kept { stream, opened });
                }
                (stays, None)
            }
            Err(trouble) => (false, Some(trouble)),
        };
        match (reused, stays) {
            (false, true) => pool.open.set(pool.open.get() + 1),
            (true, false) => pool.open.set(pool.open.get().saturating_sub(1)),
            _ => {}
        }
        Attempt { opened, began, ended: Instant::now(), reused, trouble }
    }

    /// A connection on which a request failed leaves its slot, so that the second attempt finds another one there.
    async fn attempt_http2(&self, slot: &Mutex<Option<Shared2>>, patience: Duration) -> Attempt {
        let began = Instant::now();
        // While one request opens the connection the others of this slot wait for it.
        let line = within(patience, async {
            let mut slot = slot.lock().await;
            let open = match slot.take() {
                Some(open) => open,
                None => self.open_http2().await?,
            };
            Ok(slot.insert(open).clone())
        });
        let line = match line.await {
            Ok(line) => line,
            Err(trouble) => {
                let ended = Instant::now();
                return Attempt { opened: began, began, ended, reused: false, trouble: Some(trouble) };
            }
        };
        let reused = line.used.get();
        let outcome = within(patience, self.stream(line.send.clone())).await;
        match &outcome {
            Ok(()) => line.used.set(true),
            Err(_) => {
                let mut slot = slot.lock().await;
                if slot.as_ref().is_some_and(|open| Rc::ptr_eq(&open.used, &line.used)) {
                    *slot = None;
                }
            }
        }
        Attempt { opened: line.opened, began, ended: Instant::now(), reused, trouble: outcome.err() }
    }

    async fn open_http2(&self) -> Result<Shared2, Trouble> {
        let opened = Instant::now();
        let stream = self.handshake(self.target.http2.clone()).await?;
        let (send, connection) = h2::client::handshake(stream).await.map_err(|error| trouble2(&error))?;
        tokio::task::spawn_local(connection);
        Ok(Shared2 { send, opened, used: Rc::default() })
    }

    async fn stream(&self, send: SendRequest<Bytes>) -> Result<(), Trouble> {
        let url = format!("https://{}{}", self.target.host, self.target.path);
        let request = Request::get(url).body(()).map_err(generator)?;
        let mut send = send.ready().await.map_err(|error| trouble2(&error))?;
        let (answer, _) = send.send_request(request, true).map_err(|error| trouble2(&error))?;
        let (head, mut stream) = answer.await.map_err(|error| trouble2(&error))?.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece.map_err(|error| Trouble::Cut(error.to_string()))?;
            body.extend_from_slice(&piece);
            stream.flow_control().release_capacity(piece.len()).map_err(generator)?;
        }
        judge(head.status.as_u16(), &body, &self.target.expect)
    }

    async fn connect(&self, address: std::net::SocketAddr) -> Result<TcpStream, Trouble> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(generator)?;
        if let Some(source) = self.target.source {
            socket.bind((source, 0).into()).map_err(generator)?;
        }
        let stream = socket.connect(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Trouble::Refused,
            io::ErrorKind::ConnectionReset => Trouble::Closed(format!("connecting: {error}")),
            _ => Trouble::Generator(format!("connecting: {error}")),
        })?;
        stream.set_nodelay(true).map_err(generator)?;
        Ok(stream)
    }

    async fn handshake(&self, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, Trouble> {
        let stream = self.connect(self.target.tls).await?;
        let name = ServerName::try_from(self.target.host.clone()).map_err(generator)?;
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Trouble::Wrong(format!("handshake: {error}")),
            _ => Trouble::Closed(format!("handshake: {error}")),
        })
    }
}

async fn within<T>(patience: Duration, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    tokio::time::timeout(patience, work).await.unwrap_or(Err(Trouble::Timeout))
}

/// One HTTP/1.1 exchange; answers whether the connection stays.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    message: &[u8],
    expect: &str,
) -> Result<bool, Trouble> {
    stream.write_all(message).await.map_err(|error| Trouble::Closed(format!("sending: {error}")))?;
    let mut got = Vec::with_capacity(1024);
    let end = loop {
        if let Some(at) = got.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if got.len() > MAX_HEAD {
            return Err(Trouble::Wrong("an endless head".into()));
        }
        more(stream, &mut got).await?;
    };
    let head = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status: u16 = status.ok_or_else(|| Trouble::Wrong(format!("no status: {head}")))?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length: Option<usize> = field("content-length:").and_then(|length| length.parse().ok());
    let length = length.ok_or_else(|| Trouble::Wrong(format!("no length: {head}")))?;
    while got.len() < end + length {
        more(stream, &mut got).await?;
    }
    judge(status, &got[end..], expect)?;
    Ok(field("connection:").is_none_or(|value| !value.contains("close")))
}

async fn more<S: AsyncRead + Unpin>(stream: &mut S, got: &mut Vec<u8>) -> Result<(), Trouble> {
    let words = match stream.read_buf(got).await {
        Ok(1..) => return Ok(()),
        Ok(0) => "the connection ended".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(if got.is_empty() { Trouble::Closed(words) } else { Trouble::Cut(words) })
}

fn judge(status: u16, body: &[u8], expect: &str) -> Result<(), Trouble> {
    if status == 200 && body == expect.as_bytes() {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&body[..body.len().min(200)]);
    Err(Trouble::Wrong(format!("status {status}: {shown}")))
}

fn trouble2(error: &h2::Error) -> Trouble {
    let words = error.to_string();
    if error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM) {
        Trouble::Unprocessed(words)
    } else if error.is_reset() {
        Trouble::Wrong(format!("reset: {words}"))
    } else {
        Trouble::Closed(words)
    }
}

fn generator(error: impl std::fmt::Display) -> Trouble {
    Trouble::Generator(error.to_string())
}
