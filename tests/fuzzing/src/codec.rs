//! Drives the HTTP/1.1 codec as a connection does: pieces into a read buffer, heads and bodies out of it.

use std::task::{Context, Poll, Waker};

use edge::h1::body::{Decoded, Decoder};
use edge::h1::parse::{self, Framing, HeadEnd, HeadLimits};
use edge::io::{HEAD_READ, ReadBuffer};
use edge::message::HeaderList;

use crate::second_reading::body::{Body, Ending};

/// Small, so that inputs reach them.
pub const LIMITS: HeadLimits = HeadLimits { bytes: 1024, fields: 12, target: 128 };

/// Input that comes in pieces.
pub struct Input<'a> {
    pieces: std::slice::Iter<'a, &'a [u8]>,
    buffer: ReadBuffer,
}

/// What there is instead of a head.
#[derive(Debug, PartialEq, Eq)]
pub enum NoHead {
    /// Nothing came any more.
    Nothing,
    /// The input ended within a head.
    Incomplete,
    /// Refused, perhaps before the head was complete.
    Refused,
}

impl<'a> Input<'a> {
    /// Nothing has come yet.
    pub fn new(pieces: &'a [&'a [u8]]) -> Self {
        Self { pieces: pieces.iter(), buffer: ReadBuffer::default() }
    }

    /// Reads the next piece; false at the end.
    fn read(&mut self) -> bool {
        let Some(mut piece) = self.pieces.next().copied() else { return false };
        let mut cx = Context::from_waker(Waker::noop());
        while !piece.is_empty() {
            let read = self.buffer.poll_read(&mut cx, &mut piece, HEAD_READ);
            assert!(matches!(read, Poll::Ready(Ok(count)) if count > 0));
        }
        true
    }

    /// Overlooks this many empty lines, as RFC 9112 section 2.2 asks for.
    pub fn skip_empty_lines(&mut self, most: usize) {
        for _ in 0..most {
            while self.buffer.bytes().len() < 2 && self.read() {}
            if self.buffer.bytes().starts_with(b"\r\n") {
                self.buffer.consume(2);
            }
        }
    }

    /// Takes the next head off.
    pub fn head(&mut self) -> Result<Vec<u8>, NoHead> {
        let mut scanned = 0;
        loop {
            let bytes = self.buffer.bytes();
            match parse::find_head_end(bytes, scanned) {
                HeadEnd::At(end) if end > LIMITS.bytes => return Err(NoHead::Refused),
                HeadEnd::At(end) => {
                    let head = bytes[..end].to_vec();
                    self.buffer.consume(end);
                    return Ok(head);
                }
                HeadEnd::BadLineEnd => return Err(NoHead::Refused),
                HeadEnd::Incomplete if bytes.len() >= LIMITS.bytes => return Err(NoHead::Refused),
                HeadEnd::Incomplete => scanned = bytes.len(),
            }
            if !self.read() {
                return Err(if self.buffer.is_empty() { NoHead::Nothing } else { NoHead::Incomplete });
            }
        }
    }

    /// Takes the body off.
    pub fn body(&mut self, framing: Framing) -> Body {
        let mut decoder = Decoder::new(framing, LIMITS);
        let mut content = Vec::new();
        let ending = loop {
            match decoder.poll(&mut self.buffer) {
                Err(_) => break Ending::Refused,
                Ok(Decoded::End) => break Ending::Complete,
                Ok(Decoded::Data(count)) => {
                    assert!(count > 0 && count <= self.buffer.bytes().len(), "data that is not there");
                    content.extend_from_slice(&self.buffer.bytes()[..count]);
                    self.buffer.consume(count);
                    decoder.consumed(count);
                }
                Ok(Decoded::More) if self.read() => {}
                Ok(Decoded::More) => {
                    if decoder.end_of_stream().is_err() {
                        break Ending::Incomplete;
                    }
                }
            }
        };
        assert!(decoder.is_done() == (ending == Ending::Complete));
        let trailers = decoder.take_trailers().map(|trailers| fields(&trailers)).unwrap_or_default();
        Body { content, trailers, ending }
    }

    /// What follows.
    pub fn rest(mut self) -> Vec<u8> {
        while self.read() {}
        self.buffer.bytes().to_vec()
    }
}

/// Fields as the second reading has them: one character for each byte.
pub fn fields(list: &HeaderList) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| (text(name), text(value))).collect()
}

/// One character for each byte.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}
