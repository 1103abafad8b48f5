//! Byte transports and what every connection needs around them: one `Io` type, pooled read buffers, lazy timers.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// Bytes asked for in one read while a body streams, or while a response is awaited: 64 KiB and the head before them.
pub const BODY_READ: usize = 72 * 1024;
/// Bytes asked for in one read while a head is awaited.
pub const HEAD_READ: usize = 8 * 1024;
/// Large read buffers with bytes in them per thread. Those beyond are small: clients that do not read hold what was read for
/// them, and a hoard of them must not hold much.
const LARGE_MOST: usize = 256;
/// Read buffers of either size kept for reuse per thread.
const POOLED_BUFFERS: usize = 64;
/// Bytes a write buffer begins with: a head and a small body.
const WRITE_BUFFER: usize = 4 * 1024;
/// Content of a TLS record that fits into three packets, and how much is sent in such records before they become large ones.
const SMALL_RECORD: usize = 4 * 1024;
const SMALL_RECORD_BYTES: usize = 64 * 1024;
/// Rounds of `worker::TICK` after which a connection counts as having been idle: about a second.
const IDLE_ROUNDS: u64 = 8;
/// Write buffers kept for reuse per thread, and the largest that is kept; they are taken for a moment and given back.
const POOLED_WRITES: usize = 16;
const POOLED_WRITE_BYTES: usize = 128 * 1024;

/// Longest time and most bytes spent on reading what comes for a connection that has ended.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 512 * 1024;

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
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(written) = self.write_small_records(cx, &[IoSlice::new(buf)]) {
            return Poll::Ready(written);
        }
        each!(self, io => io.poll_write(cx, buf))
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(written) = self.write_small_records(cx, bufs) {
            return Poll::Ready(written);
        }
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
    /// The connection below it.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Server(stream) => stream.get_ref().0.get_ref(),
            Self::Client(stream) => stream.get_ref().0,
        }
    }

    /// Whether `poll_flush` has work to do after a write: rustls may hold records back, the kernel never does.
    fn buffers_writes(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }

    /// Encrypts into small records while a visitor's connection is young: the first packets can be read, and shown, before the
    /// last ones of a large record have arrived. `None` once the usual way is as good.
    fn write_small_records(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Option<io::Result<usize>> {
        let Self::Server(stream) = self else { return None };
        let (tee, session) = stream.get_mut();
        let (mut room, mut written) = (tee.pacing().small_bytes(ROUND.get()), 0);
        if room == 0 {
            return None;
        }
        for piece in bufs.iter().flat_map(|buf| buf.chunks(SMALL_RECORD)) {
            let piece = piece.get(..room).unwrap_or(piece);
            let count = match session.writer().write(piece) {
                Ok(count) => count,
                Err(error) => return Some(Err(error)),
            };
            (written, room) = (written + count, room - count);
            if count < piece.len() || room == 0 {
                break;
            }
        }
        if written == 0 {
            return None;
        }
        tee.pacing().sent(written, ROUND.get());
        match Pin::new(&mut **stream).poll_flush(cx) {
            Poll::Ready(Err(error)) => Some(Err(error)),
            // Encrypted is taken; what the kernel does not take now goes with the next write or flush.
            _ => Some(Ok(written)),
        }
    }

    /// What is written next are the last words: they may wait for the goodbye.
    pub fn hold(&mut self) {
        if let Self::Server(stream) = self {
            stream.get_mut().0.hold();
        }
    }

    /// Says goodbye to a client that has announced to say nothing more: after this the connection can be dropped. Fails when it
    /// has spoken after all, or does not take it at once; then somebody has to linger.
    pub fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx).is_pending(),
            Self::Server(stream) => {
                if stream.get_ref().0.get_ref().poll_read_ready(cx).is_ready() {
                    return false;
                }
                let (tee, session) = stream.get_mut();
                session.send_close_notify();
                tee.let_go();
                matches!(Pin::new(&mut **stream).poll_flush(cx), Poll::Ready(Ok(())))
            }
            Self::Client(_) => false,
        }
    }
}

thread_local! {
    static POOL: RefCell<[Vec<Vec<u8>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
    static WRITES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static ROUND: Cell<u64> = const { Cell::new(0) };
    static LARGE: Cell<usize> = const { Cell::new(0) };
}

/// Tells the connections of this thread that another `worker::TICK` has passed.
pub fn next_round() {
    ROUND.set(ROUND.get().wrapping_add(1));
}

/// How far a TLS connection's records are still to be small.
#[derive(Debug, Default)]
pub struct RecordPacing {
    sent: usize,
    round: u64,
}

impl RecordPacing {
    /// Bytes to be sent in small records from here on.
    fn small_bytes(&mut self, round: u64) -> usize {
        if round.wrapping_sub(self.round) > IDLE_ROUNDS {
            // A connection that was idle begins with a small congestion window again (RFC 2861).
            self.sent = 0;
        }
        SMALL_RECORD_BYTES.saturating_sub(self.sent)
    }

    fn sent(&mut self, count: usize, round: u64) {
        (self.sent, self.round) = (self.sent + count, round);
    }
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
    /// Whether it is counted as a large one.
    large: bool,
}

impl ReadBuffer {
    /// The bytes at hand.
    pub fn bytes(&self) -> &[u8] {
        self.storage.get(self.start..self.end).unwrap_or_default()
    }

    /// Drops the first `count` bytes at hand.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
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
        if std::mem::take(&mut self.large) {
            LARGE.set(LARGE.get().saturating_sub(1));
        }
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
        let size = if self.large || LARGE.get() < LARGE_MOST { size } else { size.min(HEAD_READ) };
        if size > HEAD_READ && !std::mem::replace(&mut self.large, true) {
            LARGE.set(LARGE.get() + 1);
        }
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
        if self.bytes.capacity() == 0 {
            let reused = WRITES.with_borrow_mut(Vec::pop);
            self.bytes = reused.unwrap_or_else(|| Vec::with_capacity(WRITE_BUFFER));
        }
        &mut self.bytes
    }

    /// Bytes not yet written; what TLS holds back counts as one.
    pub fn pending(&self) -> usize {
        self.bytes.len() - self.written + usize::from(self.unflushed)
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
                self.compact();
            }
        }
    }

    /// Drops what is written once it is the larger part: a peer that never quite catches up must not make this grow.
    fn compact(&mut self) {
        if self.written >= self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }

    /// Gives its memory back when nothing is pending, for connections that go idle.
    pub fn rest(&mut self) {
        if self.pending() == 0 {
            self.release();
        }
    }

    fn release(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        self.written = 0;
        if (WRITE_BUFFER..=POOLED_WRITE_BYTES).contains(&bytes.capacity()) {
            WRITES.with_borrow_mut(|pool| {
                if pool.len() < POOLED_WRITES {
                    bytes.clear();
                    pool.push(bytes);
                }
            });
        }
    }
}

impl Drop for WriteBuffer {
    fn drop(&mut self) {
        self.release();
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

/// The end of a connection: our side is closed, and what the peer still sends is read for a moment, so that it gets to
/// read the answer instead of a reset (RFC 9112 section 9.6).
pub struct Linger {
    deadline: Instant,
    timer: Timer,
    input: ReadBuffer,
    discarded: usize,
    shut: bool,
}

impl Default for Linger {
    fn default() -> Self {
        let (timer, input) = (Timer::default(), ReadBuffer::default());
        Self { deadline: Instant::now() + LINGER, timer, input, discarded: 0, shut: false }
    }
}

impl Linger {
    /// Ready when the peer has closed too, or has had its moment.
    pub fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<()> {
        if !self.shut {
            match Pin::new(&mut *io).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.shut = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        while self.discarded < LINGER_BYTES {
            self.input.consume(usize::MAX);
            match self.input.poll_read(cx, io, BODY_READ) {
                Poll::Ready(Ok(count)) if count > 0 => self.discarded += count,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.timer.poll(cx, self.deadline),
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[test]
    fn a_hoard_of_readers_gets_small_buffers_and_leaves_large_ones_behind() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut read = |buffer: &mut ReadBuffer| {
            assert!(buffer.poll_read(&mut cx, &mut &[0; BODY_READ][..], BODY_READ).is_ready());
            buffer.bytes().len()
        };
        let mut hoard: Vec<ReadBuffer> = (0..LARGE_MOST + 8).map(|_| ReadBuffer::default()).collect();
        let lengths: Vec<usize> = hoard.iter_mut().map(&mut read).collect();
        assert!(lengths[..LARGE_MOST].iter().all(|length| *length == BODY_READ));
        assert!(lengths[LARGE_MOST..].iter().all(|length| *length == HEAD_READ));
        hoard.clear();
        assert_eq!(read(&mut ReadBuffer::default()), BODY_READ);
    }

    #[test]
    fn everything_can_be_consumed_wherever_it_starts() {
        let mut buffer = ReadBuffer::default();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(buffer.poll_read(&mut cx, &mut &b"abcdef"[..], HEAD_READ).is_ready());
        buffer.consume(2);
        buffer.consume(usize::MAX);
        assert!(buffer.is_empty());
    }

    #[test]
    fn records_are_small_at_first_and_again_after_a_pause() {
        let mut pacing = RecordPacing::default();
        assert_eq!(pacing.small_bytes(5), SMALL_RECORD_BYTES);
        pacing.sent(SMALL_RECORD_BYTES - 1, 5);
        assert_eq!(pacing.small_bytes(5), 1);
        pacing.sent(9, 6);
        assert_eq!(pacing.small_bytes(6 + IDLE_ROUNDS), 0);
        assert_eq!(pacing.small_bytes(7 + IDLE_ROUNDS), SMALL_RECORD_BYTES);
    }

    #[tokio::test]
    async fn a_backlog_that_never_empties_does_not_grow() {
        const PIECE: usize = 16 * 1024;
        const BACKLOG: usize = 128 * 1024;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        socket2::SockRef::from(&client).set_send_buffer_size(32 * 1024).unwrap();
        socket2::SockRef::from(&peer).set_recv_buffer_size(32 * 1024).unwrap();
        let (mut io, mut out, mut sink) = (Io::Tcp(client), WriteBuffer::default(), vec![0; PIECE]);
        let mut received = 0;
        while received < 8 * BACKLOG {
            while out.pending() < BACKLOG {
                out.tail().extend_from_slice(&[7; PIECE]);
            }
            let count = poll_fn(|cx| {
                assert!(!matches!(out.poll_flush(cx, &mut io), Poll::Ready(Err(_))));
                let mut target = ReadBuf::new(&mut sink);
                Pin::new(&mut peer).poll_read(cx, &mut target).map_ok(|()| target.filled().len())
            });
            received += count.await.unwrap();
            assert!(out.bytes.len() <= 2 * (BACKLOG + PIECE), "{} bytes after {received}", out.bytes.len());
        }
    }
}
