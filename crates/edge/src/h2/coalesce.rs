//! An IO layer that gathers what `h2` writes and hands it to the kernel once per poll of the connection.
//!
//! `h2` flushes after every batch of frames; many streams on one connection would cost one system call each.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::guard::{Fate, Guard, Peer};
use super::heading::Heading;
use super::preface::PrefaceReader;
use crate::io::{Io, Linger, WriteBuffer};
use crate::telemetry::metrics::Flood;

/// Gathered bytes at which `h2` is told to wait until some are written.
const HIGH_WATER: usize = 64 * 1024;

/// The transport and what waits to be written to it. The connection task holds one handle, `h2` the other.
pub struct Shared {
    io: Io,
    out: WriteBuffer,
    /// Listens in on the client's first frames; `None` towards origins and once it has seen enough.
    preface: Option<Box<PrefaceReader>>,
    guard: Guard,
    /// Watches a client's field blocks; not looked at towards origins.
    heading: Heading,
    full: bool,
    /// Bytes the kernel has taken.
    taken: u64,
}

impl Shared {
    /// Writes out what has gathered, and counts it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.out.pending();
        let outcome = self.out.poll_flush(cx, &mut self.io);
        self.taken += before.saturating_sub(self.out.pending()) as u64;
        outcome
    }
}

/// The handle `h2` reads and writes through.
#[derive(Clone)]
pub struct Coalesce(Rc<RefCell<Shared>>);

impl Coalesce {
    /// Wraps a transport to this peer, on which `streams` may be open at a time; a client introduces itself.
    pub fn new(io: Io, peer: Peer, streams: u32) -> Self {
        Self(Rc::new(RefCell::new(Shared {
            io,
            out: WriteBuffer::default(),
            preface: (peer == Peer::Client).then(Box::default),
            guard: Guard::new(peer, streams, Instant::now()),
            heading: Heading::default(),
            full: false,
            taken: 0,
        })))
    }

    /// What the peer floods this side with. Nothing is read from it any more, and the connection is to be closed.
    pub fn flood(&self) -> Option<Flood> {
        self.0.borrow().guard.flood()
    }

    /// A request has ended like this, or, from an origin, has begun to be answered.
    pub fn ended(&self, fate: Fate) {
        self.0.borrow_mut().guard.ended(fate, Instant::now);
    }

    /// Writes out what has gathered. Answers true when `h2` had been told to wait and can go on.
    pub fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut shared = self.0.borrow_mut();
        ready!(shared.poll_flush(cx))?;
        shared.out.rest();
        Poll::Ready(Ok(std::mem::take(&mut shared.full)))
    }

    /// Bytes waiting for the peer to take them.
    pub fn pending(&self) -> usize {
        self.0.borrow().out.pending()
    }

    /// Whether the client has begun a field block and not ended it.
    pub fn is_in_head(&self) -> bool {
        self.0.borrow().heading.is_open()
    }

    /// Bytes the peer's side has taken from the beginning.
    pub fn taken(&self) -> u64 {
        self.0.borrow().taken
    }

    /// Ends the connection so that the peer gets all that was written; at once when it does not take it.
    pub fn poll_linger(&self, cx: &mut Context<'_>, linger: &mut Linger) -> Poll<()> {
        let Shared { io, out, .. } = &mut *self.0.borrow_mut();
        if out.pending() > 0 { Poll::Ready(()) } else { linger.poll(cx, io) }
    }

    /// What the client's first frames told, once.
    pub fn take_preface(&self) -> Option<super::preface::ClientPreface> {
        let mut shared = self.0.borrow_mut();
        let done = shared.preface.as_mut()?.take_finished()?;
        shared.preface = None;
        Some(done)
    }
}

impl AsyncRead for Coalesce {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Shared { io, preface, guard, heading, .. } = &mut *self.0.borrow_mut();
        if guard.flood().is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(io).poll_read(cx, buf))?;
            let bytes = buf.filled().get(before..).unwrap_or_default();
            if guard.peer() == Peer::Client {
                heading.read(bytes);
            }
            if let Some(reader) = preface {
                reader.push(bytes);
            }
            if guard.read(bytes, Instant::now).is_none() {
                return Poll::Ready(Ok(()));
            }
            buf.set_filled(before);
        }
        match guard.peer() {
            // The connection task looks for a flood after every poll, and says goodbye.
            Peer::Client => Poll::Pending,
            Peer::Origin => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        }
    }
}

impl AsyncWrite for Coalesce {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut shared = self.0.borrow_mut();
        if shared.out.pending() >= HIGH_WATER && shared.poll_flush(cx)?.is_pending() {
            shared.full = true;
            return Poll::Pending;
        }
        shared.out.tail().extend_from_slice(buf);
        shared.guard.wrote(buf.len());
        Poll::Ready(Ok(buf.len()))
    }

    /// Ready at once: the connection task drains when everything of this poll has gathered.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Shared { io, out, .. } = &mut *self.0.borrow_mut();
        ready!(out.poll_flush(cx, io))?;
        Pin::new(io).poll_shutdown(cx)
    }
}
