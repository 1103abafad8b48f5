//! The two origins of a drill: they answer pages, echo uploads and WebSocket messages, sign what they say, and count.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::error::DrillError;
use crate::exchange::{SIGNATURE, find, more, read_chunks, read_length};
use crate::plan;

/// Origins of a drill.
pub const COUNT: usize = 2;
/// A target no origin may ever see: it stands in what attackers hide behind another request.
pub const HIDDEN: &str = "/hidden";
/// Largest head read, in bytes.
const MAX_HEAD: usize = 256 << 10;
/// Largest upload taken, in bytes.
const MAX_UPLOAD: usize = 8 << 20;

/// What the origins have seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Requests by host and origin.
    requests: Mutex<HashMap<(String, usize), u64>>,
    /// Requests that were hidden in others.
    hidden: AtomicU64,
}

impl Seen {
    /// Requests of a host that each origin has had so far.
    pub fn of(&self, host: &str) -> [u64; COUNT] {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        std::array::from_fn(|origin| requests.get(&(host.to_owned(), origin)).copied().unwrap_or(0))
    }

    /// Requests that came although they were hidden in others.
    pub fn hidden(&self) -> u64 {
        self.hidden.load(Ordering::Relaxed)
    }
}

/// Running origins; they end when this is dropped.
#[derive(Debug)]
pub struct Origins {
    /// Where they listen.
    pub addresses: [SocketAddr; COUNT],
    /// What they have seen.
    pub seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Origins {
    /// Starts them on free ports of the loopback interface.
    pub fn start() -> Result<Self, DrillError> {
        let failed = || DrillError::system("the origins of the drill could not be started");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed())?;
        let bind = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).map_err(failed());
        let listeners = [bind()?, bind()?];
        let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); COUNT];
        for (address, listener) in addresses.iter_mut().zip(&listeners) {
            *address = listener.local_addr().map_err(failed())?;
        }
        let seen = Arc::<Seen>::default();
        let (stop, stopped) = oneshot::channel();
        let for_thread = seen.clone();
        let thread = std::thread::Builder::new().name("drill-origins".to_owned()).spawn(move || {
            runtime.block_on(async move {
                for (index, listener) in listeners.into_iter().enumerate() {
                    tokio::spawn(accept(listener, index, for_thread.clone()));
                }
                // Dropped or told: either way it is over.
                drop(stopped.await);
            });
        });
        Ok(Self { addresses, seen, stop: Some(stop), thread: Some(thread.map_err(failed())?) })
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has shown in what visitors got.
            drop(thread.join());
        }
    }
}

async fn accept(listener: TcpListener, index: usize, seen: Arc<Seen>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let seen = seen.clone();
                tokio::spawn(async move { drop(serve(stream, index, &seen).await) });
            }
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// A request as an origin reads it.
struct Read {
    method: String,
    target: String,
    host: String,
    key: Option<String>,
    body: Vec<u8>,
}

async fn serve(mut stream: TcpStream, index: usize, seen: &Seen) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut rest = Vec::new();
    loop {
        let Read { method, target, host, key, body } = read(&mut stream, &mut rest).await?;
        if target.contains(HIDDEN) {
            seen.hidden.fetch_add(1, Ordering::Relaxed);
        }
        {
            let mut requests = seen.requests.lock().unwrap_or_else(PoisonError::into_inner);
            *requests.entry((host.clone(), index)).or_default() += 1;
        }
        if let Some(key) = key {
            return echo(stream, index, &key).await;
        }
        let page = target.strip_prefix("/page/").and_then(|number| number.parse().ok());
        let (status, body) = match page {
            _ if method == "POST" => ("200 OK", body),
            Some(number) => ("200 OK", plan::page(&host, number)),
            None => ("200 OK", format!("{host} has this at {target}\n").into_bytes()),
        };
        let head =
            format!("HTTP/1.1 {status}\r\n{SIGNATURE}: {index}\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        if method != "HEAD" {
            stream.write_all(&body).await?;
        }
    }
}

async fn read(stream: &mut TcpStream, rest: &mut Vec<u8>) -> io::Result<Read> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "not a request");
    let end = loop {
        match find(rest, b"\r\n\r\n") {
            Some(end) => break end + 4,
            None if rest.len() > MAX_HEAD => return Err(broken()),
            None => more(stream, rest).await?,
        }
    };
    let after = rest.split_off(end);
    let head = String::from_utf8(std::mem::replace(rest, after)).map_err(|_| broken())?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().ok_or_else(broken)?);
    let fields: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let field = |name: &str| fields.get(name).cloned();
    let length = field("content-length").and_then(|length| length.parse::<usize>().ok()).unwrap_or(0);
    let body = if field("transfer-encoding").is_some() {
        // Visitors of a drill do not send one request behind another, so nothing follows the last chunk.
        read_chunks(stream, std::mem::take(rest)).await?
    } else {
        let whole = read_length_kept(stream, std::mem::take(rest), length.min(MAX_UPLOAD)).await?;
        let (body, after) = whole;
        *rest = after;
        body
    };
    Ok(Read {
        method: method.to_owned(),
        target: target.to_owned(),
        host: field("host").unwrap_or_default(),
        key: field("sec-websocket-key"),
        body,
    })
}

/// The body, and what came behind it.
async fn read_length_kept(
    stream: &mut TcpStream,
    mut bytes: Vec<u8>,
    length: usize,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    if bytes.len() >= length {
        let after = bytes.split_off(length);
        return Ok((bytes, after));
    }
    Ok((read_length(stream, bytes, length).await?, Vec::new()))
}

async fn echo(mut stream: TcpStream, index: usize, key: &str) -> io::Result<()> {
    let accept = derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\n{SIGNATURE}: {index}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            socket.send(message).await.map_err(io::Error::other)?;
        }
    }
    Ok(())
}
