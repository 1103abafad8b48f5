//! Byte transports and what every connection needs around them: one `Io` type, pooled read buffers, lazy timers.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// Bytes asked for in one read while a body streams.
pub const BODY_READ: usize = 64 * 1024;
/// Bytes asked for in one read while a head is awaited.
pub const HEAD_READ: usize = 8 * 1024;
/// Read buffers of either size kept for reuse per thread.
const POOLED_BUFFERS: usize = 64;

/// A connection's transport. One concrete type keeps the codecs from being compiled once per transport.
pub enum Io {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS, where the edge is the server; boxed, because the session state is large and the task is not.
    Server(Box<tokio_rustls::server::TlsStream<crate::tls::HelloTee<TcpStream>>>),
    /// TLS, where the edge is the client.
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

macro_rules! each {
    ($self:ident, $io:ident => $body:expr) => {
        match $self.get_mut() {
            Io::Tcp($io) => {
                let $io = Pin::new($io);
                $body
            }
            Io::Server($io) => {
                let $io = Pin::new(&mut **$io);
                $body
            }
            Io::Client($io) => {
                let $io = Pin::new(&mut **$io);
                $body
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write(cx, buf))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_shutdown(cx))
    }
}

impl Io {
    /// Whether `poll_flush` has work to do after a write: rustls may hold records back, the kernel never does.
    fn buffers_writes(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }
}

thread_local! {
    static POOL: RefCell<[Vec<Vec<u8>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Which of the two pools a buffer of this capacity belongs to; `None` for grown ones, which are freed.
fn pool_of(size: usize) -> Option<usize> {
    match size {
        HEAD_READ => Some(0),
        BODY_READ => Some(1),
        _ => None,
    }
}

fn pooled(size: usize) -> Vec<u8> {
    let reused = POOL.with_borrow_mut(|pool| pool.get_mut(pool_of(size)?)?.pop());
    reused.unwrap_or_else(|| vec![0; size])
}

/// Bytes read and not yet consumed. Holds memory only while it holds bytes, so an idle connection costs none.
#[derive(Default)]
pub struct ReadBuffer {
    /// Zero-filled storage; `start..end` are the bytes at hand.
    storage: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReadBuffer {
    /// The bytes at hand.
    pub fn bytes(&self) -> &[u8] {
        self.storage.get(self.start..self.end).unwrap_or_default()
    }

    /// Drops the first `count` bytes at hand.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.release();
        }
    }

    /// Whether no bytes are at hand.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn release(&mut self) {
        let storage = std::mem::take(&mut self.storage);
        (self.start, self.end) = (0, 0);
        if let Some(pool) = pool_of(storage.len()) {
            POOL.with_borrow_mut(|pools| {
                if let Some(pool) = pools.get_mut(pool).filter(|pool| pool.len() < POOLED_BUFFERS) {
                    pool.push(storage);
                }
            });
        }
    }

    /// Reads once, at most about `size` bytes; 0 is the end of the stream.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin),
        size: usize,
    ) -> Poll<io::Result<usize>> {
        self.make_room(size);
        let mut target = ReadBuf::new(self.storage.get_mut(self.end..).unwrap_or_default());
        let outcome = Pin::new(io).poll_read(cx, &mut target);
        let count = target.filled().len();
        match outcome {
            Poll::Ready(Ok(())) => {
                self.end += count;
                if self.is_empty() {
                    self.release();
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if self.is_empty() {
                    self.release();
                }
                Poll::Pending
            }
        }
    }

    /// Leaves at least half of `size` free at the end, moving or growing as needed.
    fn make_room(&mut self, size: usize) {
        if self.storage.is_empty() {
            self.storage = pooled(size);
        }
        if self.storage.len() - self.end >= size / 2 {
            return;
        }
        if self.start > 0 {
            self.storage.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let wanted = (self.end + size / 2).max(self.storage.len());
        self.storage.resize(wanted, 0);
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.release();
    }
}

/// Bytes on their way out: heads, framing and small pieces are gathered here so that one write carries them.
#[derive(Default)]
pub struct WriteBuffer {
    bytes: Vec<u8>,
    written: usize,
    unflushed: bool,
}

impl WriteBuffer {
    /// Where to append.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes not yet written.
    pub fn pending(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes everything gathered; ready when it is with the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<io::Result<()>> {
        ready!(self.poll_write_with(cx, io, &[]))?;
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is gathered followed by `extra`; answers how much of `extra` was taken, once all gathered is written.
    pub fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
        extra: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let gathered = self.bytes.get(self.written..).unwrap_or_default();
            if gathered.is_empty() && extra.is_empty() {
                self.clear();
                return Poll::Ready(Ok(0));
            }
            let length = gathered.len();
            let target = Pin::new(&mut *io);
            let count = ready!(match (gathered, extra) {
                (gathered, []) => target.poll_write(cx, gathered),
                ([], extra) => target.poll_write(cx, extra),
                _ => target.poll_write_vectored(cx, &[IoSlice::new(gathered), IoSlice::new(extra)]),
            })?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = io.buffers_writes();
            if count >= length {
                self.clear();
                if !extra.is_empty() {
                    return Poll::Ready(Ok(count - length));
                }
            } else {
                self.written += count;
            }
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }

    /// Gives its memory back when nothing is pending, for connections that go idle.
    pub fn rest(&mut self) {
        if self.pending() == 0 {
            *self = Self { unflushed: self.unflushed, ..Self::default() };
        }
    }
}

/// One timer for one activity. Deadlines mostly move forward, so the runtime's timer is left where it is and only
/// armed again when it fires early: a deadline that is met costs no timer operation.
#[derive(Default)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Ready once `deadline` has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll_elapsed(cx) {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Drops the runtime's timer, for connections that go idle without a deadline.
    pub fn rest(&mut self) {
        self.sleep = None;
    }
}

trait PollElapsed {
    fn poll_elapsed(self, cx: &mut Context<'_>) -> bool;
}

impl PollElapsed for Pin<&mut Sleep> {
    fn poll_elapsed(self, cx: &mut Context<'_>) -> bool {
        std::future::Future::poll(self, cx).is_ready()
    }
}

/// An idle limit: how long nothing may happen. Starts when waiting starts, is cleared by progress.
#[derive(Default)]
pub struct Idle {
    timer: Timer,
    since: Option<Instant>,
}

impl Idle {
    /// Something happened.
    pub fn progress(&mut self) {
        self.since = None;
    }

    /// Ready when nothing has happened for `limit`.
    pub fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.timer.poll(cx, since + limit)
    }
}
