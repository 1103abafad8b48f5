//! The loopback listener for metrics and health: read-only, a thread and a small runtime of its own, so that it answers when
//! the edge threads do not.

mod head;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use self::head::{Asked, MAX_HEAD_BYTES, Read, Refusal};
use super::metrics::Metrics;

/// Connections served at once; further ones wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 16;
/// Time for a complete request head.
pub const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the client to take the answer.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// What is still read of a refused request so that the client gets to see the answer, and for how long.
const LINGER_BYTES: usize = 64 * 1_024;
const LINGER: Duration = Duration::from_secs(1);
/// Pause after `accept` has failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the listener could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Metrics and health tell much about a site and ask for no password.
    #[error("metrics and health are only served on a loopback address, not on {0}")]
    NotLoopback(SocketAddr),
    /// The socket, the thread or its runtime could not be set up.
    #[error("cannot serve metrics and health: {0}")]
    Setup(#[from] io::Error),
}

/// Whether this process should get traffic. Starts as "not yet".
#[derive(Debug, Default)]
pub struct Health {
    /// Number of the generation in force, 0 before the first.
    generation: AtomicU64,
    draining: AtomicBool,
}

impl Health {
    /// A generation is in force: ready, unless draining has begun. Generations are numbered from 1.
    pub fn activate(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// The process takes no new work; there is no way back.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether new traffic is welcome.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.generation.load(Ordering::Relaxed) > 0
    }

    fn ready(&self) -> Answer {
        match (self.draining.load(Ordering::Relaxed), self.generation.load(Ordering::Relaxed)) {
            (true, _) => Answer::json("503 Service Unavailable", r#"{"status":"draining"}"#.to_owned()),
            (false, 0) => Answer::json("503 Service Unavailable", r#"{"status":"starting"}"#.to_owned()),
            (false, number) => {
                Answer::json("200 OK", format!(r#"{{"status":"ready","generation":{number}}}"#))
            }
        }
    }
}

/// The listener being served; stops when dropped.
#[derive(Debug)]
pub struct Ops {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ops {
    /// The address really bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Ops {
    /// Closes the listener and waits for its thread; answers in progress are cut.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for metrics and health ended by a panic");
        }
    }
}

/// Serves `/metrics`, `/health/live` and `/health/ready` until the returned handle is dropped.
pub fn serve(listener: TcpListener, metrics: Arc<Metrics>, health: Arc<Health>) -> Result<Ops, ServeError> {
    let address = listener.local_addr()?;
    if !address.ip().to_canonical().is_loopback() {
        return Err(ServeError::NotLoopback(address));
    }
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new().name("ops".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                // Sent or dropped: both mean stop.
                _ = stopped => {}
                () = accept(listener, metrics, health) => {}
            }
        });
    })?;
    Ok(Ops { address, stop: Some(stop), thread: Some(thread) })
}

async fn accept(listener: tokio::net::TcpListener, metrics: Arc<Metrics>, health: Arc<Health>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed, so this cannot fail.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (metrics, health) = (metrics.clone(), health.clone());
                tokio::spawn(async move {
                    // The client hanging up early is its own affair.
                    if let Err(error) = converse(stream, &metrics, &health).await {
                        tracing::debug!(%error, "metrics or health request ended early");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection for metrics and health");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request, one answer, and the end of the connection.
async fn converse(mut stream: TcpStream, metrics: &Metrics, health: &Health) -> io::Result<()> {
    let asked = match timeout(READ_TIMEOUT, read_head(&mut stream)).await {
        Ok(Ok(Some(asked))) => asked,
        // Closed before a request was there.
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => return Err(error),
        Err(_) => Err(Refusal::TooSlow),
    };
    let (answer, with_body) = match asked {
        Ok(asked) => (answer(&asked, metrics, health), asked.method != "HEAD"),
        Err(refusal) => (refuse(refusal), true),
    };
    limited(WRITE_TIMEOUT, stream.write_all(answer.text(with_body).as_bytes())).await?;
    stream.shutdown().await?;
    limited(LINGER, linger(&mut stream)).await
}

async fn limited(limit: Duration, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The request, a reason to refuse it, or `None` when the client closed before it was complete.
async fn read_head(stream: &mut TcpStream) -> io::Result<Option<Result<Asked, Refusal>>> {
    let mut head = Vec::with_capacity(1_024);
    loop {
        let room = (MAX_HEAD_BYTES + 1).saturating_sub(head.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
        match head::read(&head) {
            Read::Complete(asked) => return Ok(Some(Ok(asked))),
            Read::Refused(refusal) => return Ok(Some(Err(refusal))),
            Read::Partial if head.len() > MAX_HEAD_BYTES => return Ok(Some(Err(Refusal::TooLarge))),
            Read::Partial => {}
        }
    }
}

/// Closing with unread bytes makes the kernel reset the connection, and the client may lose the answer (RFC 9112 section 9.6).
async fn linger(stream: &mut TcpStream) -> io::Result<()> {
    let (mut waste, mut seen) = ([0; 1_024], 0);
    while seen < LINGER_BYTES {
        match stream.read(&mut waste).await? {
            0 => break,
            count => seen += count,
        }
    }
    Ok(())
}

fn answer(asked: &Asked, metrics: &Metrics, health: &Health) -> Answer {
    let known = matches!(asked.path.as_str(), "/metrics" | "/health/live" | "/health/ready");
    if known && asked.method != "GET" && asked.method != "HEAD" {
        let extra = "Allow: GET, HEAD\r\n";
        return Answer { extra, ..Answer::text_of("405 Method Not Allowed", "read-only: GET and HEAD\n") };
    }
    match asked.path.as_str() {
        "/metrics" => Answer {
            status: "200 OK",
            media_type: "text/plain; version=0.0.4; charset=utf-8",
            extra: "",
            body: metrics.render(),
        },
        "/health/live" => Answer::json("200 OK", r#"{"status":"live"}"#.to_owned()),
        "/health/ready" => health.ready(),
        _ => Answer::text_of("404 Not Found", "here are /metrics, /health/live and /health/ready\n"),
    }
}

fn refuse(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::Malformed => Answer::text_of("400 Bad Request", "not a request in HTTP/1.1\n"),
        Refusal::TooSlow => Answer::text_of("408 Request Timeout", "the request took too long\n"),
        Refusal::ForeignHost => Answer::text_of("421 Misdirected Request", "only localhost is served here\n"),
        Refusal::TooLarge => {
            Answer::text_of("431 Request Header Fields Too Large", "the request head is too large\n")
        }
    }
}

struct Answer {
    status: &'static str,
    media_type: &'static str,
    /// Further header lines, each with its line end.
    extra: &'static str,
    body: String,
}

impl Answer {
    fn json(status: &'static str, body: String) -> Self {
        Self { status, media_type: "application/json", extra: "", body }
    }

    fn text_of(status: &'static str, body: &str) -> Self {
        Self { status, media_type: "text/plain; charset=utf-8", extra: "", body: body.to_owned() }
    }

    fn text(&self, with_body: bool) -> String {
        let Self { status, media_type, extra, body } = self;
        let length = body.len();
        let body = if with_body { body.as_str() } else { "" };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n{extra}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{body}"
        )
    }
}

#[cfg(test)]
mod tests;
