//! A connection that keeps a copy of its ClientHello, notices plain HTTP before a TLS alert is sent at it, and lets small
//! records wait for the ones that follow.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::RecordPacing;

use super::client_hello::{ClientHello, HANDSHAKE_RECORD, HelloParser, Progress};

/// Bytes looked at to recognise plain HTTP: the longest method known here, a space, and the start of the target.
const SCREENED: usize = 24;
/// Methods people and tools send to the wrong port. `PRI` opens HTTP/2 without TLS (RFC 9113 section 3.4).
const METHODS: [&[u8]; 10] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"];

/// Bytes held back at most; more are written as they come.
const HELD: usize = 16 * 1024;

/// Passes everything through and keeps the first ClientHello; a plain forwarder once that is complete.
///
/// During the handshake, and while told to, what is written is held back until the peer is listened to: session tickets then
/// leave with the first response, a last response with its close_notify, in one system call instead of two.
#[derive(Debug)]
pub struct HelloTee<IO> {
    io: IO,
    state: State,
    held: Vec<u8>,
    holds: bool,
    pacing: RecordPacing,
}

#[derive(Debug)]
enum State {
    /// Nothing has been read yet.
    Untouched,
    /// A handshake record began; bytes are passed on and copied.
    Copying(HelloParser),
    /// No handshake record: held back until it is plain HTTP or not.
    Screening(Vec<u8>),
    /// Not HTTP either; handed to rustls from this position on, which then says what it dislikes.
    Replaying(Vec<u8>, usize),
    /// Plain HTTP, with what was read of it.
    PlainHttp(Vec<u8>),
    /// Nothing left to do.
    Done(Option<ClientHello>),
}

/// What a read fails with when the client speaks plain HTTP: it stops the handshake before an alert is written.
#[derive(Debug, thiserror::Error)]
#[error("plain HTTP on a TLS port")]
struct PlainHttp;

impl<IO> HelloTee<IO> {
    /// Wraps a connection nothing has been read from.
    pub fn new(io: IO) -> Self {
        Self { io, state: State::Untouched, held: Vec::new(), holds: true, pacing: RecordPacing::default() }
    }

    /// How far records are to be small; kept here for the layer above.
    pub fn pacing(&mut self) -> &mut RecordPacing {
        &mut self.pacing
    }

    /// From now on, what is written waits for a read, a shutdown, or the end of holding.
    pub fn hold(&mut self) {
        self.holds = true;
    }

    /// What is written next goes out, and what is held with it.
    pub fn let_go(&mut self) {
        self.holds = false;
    }

    /// The ClientHello, once it is complete.
    pub fn hello(&self) -> Option<&ClientHello> {
        if let State::Done(hello) = &self.state { hello.as_ref() } else { None }
    }

    /// Takes the ClientHello out, which frees its memory on a connection that may idle for long.
    pub fn take_hello(&mut self) -> Option<ClientHello> {
        if let State::Done(hello) = &mut self.state { hello.take() } else { None }
    }

    /// The first bytes, when the client turned out to speak plain HTTP.
    pub fn plain_http(&self) -> Option<&[u8]> {
        if let State::PlainHttp(bytes) = &self.state { Some(bytes) } else { None }
    }

    /// True when the client never sent a byte: a port scan or a health check.
    pub fn is_untouched(&self) -> bool {
        matches!(self.state, State::Untouched)
    }

    /// The wrapped connection.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }

    /// The wrapped connection.
    pub fn get_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    /// Takes the wrapper off.
    pub fn into_inner(self) -> IO {
        self.io
    }

    /// Looks at what one read brought; true when the reader may have it.
    fn observe(&mut self, bytes: &[u8]) -> bool {
        match &mut self.state {
            State::Untouched if bytes.first() == Some(&HANDSHAKE_RECORD) => {
                self.state = State::Copying(HelloParser::default());
                self.observe(bytes)
            }
            State::Untouched if bytes.is_empty() => true,
            State::Untouched => {
                self.state = State::Screening(Vec::new());
                self.observe(bytes)
            }
            State::Copying(parser) => {
                // End of stream: nothing more can come.
                if bytes.is_empty() || parser.push(bytes) != Progress::More {
                    self.state = State::Done(std::mem::take(parser).finish());
                }
                true
            }
            State::Screening(held) => {
                held.extend_from_slice(bytes);
                let verdict = if bytes.is_empty() { Some(false) } else { is_plain_http(held) };
                let held = std::mem::take(held);
                self.state = match verdict {
                    None => State::Screening(held),
                    Some(true) => State::PlainHttp(held),
                    Some(false) => State::Replaying(held, 0),
                };
                false
            }
            State::Replaying(..) | State::PlainHttp(_) | State::Done(_) => true,
        }
    }

    /// Hands held bytes over; false when there is nothing to hand over.
    fn replay(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let State::Replaying(held, position) = &mut self.state else { return false };
        let rest = held.get(*position..).unwrap_or_default();
        let (now, later) = rest.split_at(rest.len().min(buffer.remaining()));
        buffer.put_slice(now);
        *position += now.len();
        let (handed, finished) = (!now.is_empty(), later.is_empty());
        if finished {
            self.state = State::Done(None);
        }
        handed
    }
}

/// Whether bytes begin an HTTP request; `None` while that is open.
fn is_plain_http(bytes: &[u8]) -> Option<bool> {
    let mut open = false;
    for method in METHODS {
        match bytes.strip_prefix(method) {
            Some([]) => open = true,
            Some([b' ']) => open = true,
            // A space alone could be anything's greeting; a request's target begins like this.
            Some([b' ', target, ..]) => {
                return Some(matches!(target, b'/' | b'*' | b'[') || target.is_ascii_alphanumeric());
            }
            Some(_) => {}
            None => open |= method.starts_with(bytes),
        }
    }
    if open && bytes.len() < SCREENED { None } else { Some(false) }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for HelloTee<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Nobody answers what has not been sent.
        ready!(this.poll_held(context))?;
        // An empty buffer must not look like the end of the stream below.
        if matches!(this.state, State::Done(_)) || buffer.remaining() == 0 {
            return Pin::new(&mut this.io).poll_read(context, buffer);
        }
        loop {
            if this.replay(buffer) {
                return Poll::Ready(Ok(()));
            }
            if matches!(this.state, State::PlainHttp(_)) {
                return Poll::Ready(Err(io::Error::other(PlainHttp)));
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
            if this.observe(buffer.filled().get(before..).unwrap_or_default()) {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
    }
}

impl<IO: AsyncWrite + Unpin> HelloTee<IO> {
    /// Writes what is held; ready when nothing is.
    pub fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(context, &self.held))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(count);
        }
        Poll::Ready(Ok(()))
    }

    /// So much of what is held has left; answers how much of what follows it has.
    fn wrote(&mut self, count: usize) -> usize {
        if count >= self.held.len() {
            let held = std::mem::take(&mut self.held).len();
            return count - held;
        }
        self.held.drain(..count);
        0
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for HelloTee<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.held.is_empty() && !this.holds {
            return Pin::new(&mut this.io).poll_write_vectored(context, slices);
        }
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if this.holds && this.held.len() + length <= HELD {
            slices.iter().for_each(|slice| this.held.extend_from_slice(slice));
            return Poll::Ready(Ok(length));
        }
        loop {
            let mut all = SmallVec::<[IoSlice<'_>; 16]>::new();
            all.push(IoSlice::new(&this.held));
            all.extend(slices.iter().map(|slice| IoSlice::new(slice)));
            let count = ready!(Pin::new(&mut this.io).poll_write_vectored(context, &all))?;
            drop(all);
            let taken = this.wrote(count);
            if taken > 0 || count == 0 || length == 0 {
                return Poll::Ready(Ok(taken));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.holds {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_held(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
