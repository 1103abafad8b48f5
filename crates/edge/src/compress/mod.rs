//! Compression of responses: which coding a visitor gets (`choose`), what the head says then, and the body, piece by piece.
//!
//! Which responses: those of `choice.rs`. What one costs in memory: `Coding::memory`; what all of a thread may: `Room`.

mod accept;
mod body;
mod choice;
mod coder;
mod head;
mod media;

#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::rc::Rc;

use snapshot::rules::Algorithm;

use crate::message::{Body, ResponseHead};
pub use choice::{choose, is_eligible};

/// A content coding that is made here (RFC 9110 section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip` (RFC 1952).
    Gzip,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878), with a window far below the 8 MiB of RFC 9659.
    Zstd,
}

impl Coding {
    /// As it stands in `Content-Encoding` and `Accept-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// Bytes of memory one response holds while it is compressed, at most: tables, window, and the buffer for its output.
    pub const fn memory(self) -> usize {
        match self {
            Self::Gzip => 384 << 10,
            Self::Brotli => 2560 << 10,
            Self::Zstd => 1536 << 10,
        }
    }
}

/// Memory compression may hold on one thread. Visitors who read slowly hold theirs for long; who finds no room left gets
/// the response as it is.
#[derive(Debug)]
pub struct Room {
    limit: usize,
    used: Cell<usize>,
}

/// What a thread may hold by default: 38 bodies with Brotli at the same moment, 64 with Zstandard, or 256 with gzip.
pub const ROOM_PER_THREAD: usize = 96 << 20;

impl Room {
    /// Room for `limit` bytes.
    pub fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self { limit, used: Cell::new(0) })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    fn take(self: &Rc<Self>, bytes: usize) -> Option<Place> {
        let used = self.used.get().checked_add(bytes).filter(|used| *used <= self.limit)?;
        self.used.set(used);
        Some(Place { room: self.clone(), bytes })
    }
}

/// Memory taken from a `Room`; given back with it.
#[derive(Debug)]
struct Place {
    room: Rc<Room>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.used.set(self.room.used.get().saturating_sub(self.bytes));
    }
}

/// Compresses a response as far as `wanted` says, the visitor accepts and `room` allows; otherwise it stays as it is.
///
/// `accept_encoding` are the lines of the request's field. A response that another visitor would get compressed says so in
/// `Vary`, so that no cache behind this one hands it to the wrong visitor (RFC 9110 section 12.5.5).
pub fn apply<'a>(
    wanted: &[Algorithm],
    accept_encoding: impl Iterator<Item = &'a [u8]>,
    method: &http::Method,
    response: &mut ResponseHead,
    body: Body,
    room: &Rc<Room>,
) -> Body {
    let length = body.length();
    if !is_eligible(wanted, response, length, method) {
        return body;
    }
    match choose(wanted, accept_encoding, response, length, method) {
        Some(coding) => compress(response, body, coding, room),
        None => {
            head::vary(&mut response.headers);
            body
        }
    }
}

/// Wraps `body` so that it comes out in `coding`, and changes the head to say so. Without room both stay, but for `Vary`.
pub fn compress(response: &mut ResponseHead, body: Body, coding: Coding, room: &Rc<Room>) -> Body {
    head::vary(&mut response.headers);
    let Some(place) = room.take(coding.memory()) else { return body };
    let Ok(coder) = coder::Coder::new(coding, body.length()) else { return body };
    head::rewrite(&mut response.headers, coding);
    Body::stream(body::Compressed::new(body, coder, place))
}
