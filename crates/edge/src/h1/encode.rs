//! Writing heads and bodies: heads into the write buffer, bodies from their source to the wire without a copy when large.

use std::task::{Context, Poll, ready};

use crate::io::{Io, WriteBuffer};
use crate::message::{Body, BodyError, BodyLength, Fill, HeaderList, PIECES_IN_ONE_GO, ResponseHead};
use crate::splice::{self, Pipe};

/// Pieces up to this size are gathered with what surrounds them; larger ones go out by a vectored write.
const GATHER: usize = 8 * 1024;
/// The write buffer is flushed before it grows past this.
const GATHER_LIMIT: usize = 32 * 1024;

/// How a body is delimited on the wire this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// Nothing is written.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Chunked, with trailers.
    Chunked,
    /// As it comes, ended by closing.
    Raw,
}

/// Appends `HTTP/1.1 status reason`, fields, and the framing fields.
pub fn response_head(out: &mut Vec<u8>, head: &ResponseHead, framing: BodyFraming, connection: &str) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
    out.push(b' ');
    match &head.reason {
        Some(reason) => out.extend_from_slice(reason),
        None => out.extend_from_slice(reason_phrase(head.status).as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
    fields(out, &head.headers);
    framing_field(out, framing);
    if !connection.is_empty() {
        field(out, b"Connection", connection.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn reason_phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}

/// Appends the field that tells the body's framing.
pub fn framing_field(out: &mut Vec<u8>, framing: BodyFraming) {
    match framing {
        BodyFraming::None | BodyFraming::Raw => {}
        BodyFraming::Length(length) => {
            field(out, b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
        }
        BodyFraming::Chunked => field(out, b"Transfer-Encoding", b"chunked"),
    }
}

/// Appends one field line.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends all fields.
pub fn fields(out: &mut Vec<u8>, headers: &HeaderList) {
    for (name, value) in headers.iter() {
        field(out, name, value);
    }
}

/// Why sending a body stopped.
#[derive(Debug)]
pub enum SendError {
    /// The side that sends the body to us failed.
    Source(BodyError),
    /// The side we write to failed.
    Sink(std::io::Error),
    /// The source gave more or fewer bytes than it announced.
    WrongLength,
}

/// Progress of one body on its way out.
pub struct SendBody {
    framing: BodyFraming,
    /// Bytes still owed under `BodyFraming::Length`.
    owed: u64,
    /// Bytes of the chunk already announced by a chunk header and not yet written.
    open_chunk: usize,
    ended: bool,
    /// Bytes of a large body on their way between two plain sockets.
    pipe: Option<Pipe>,
    /// Nothing follows on this connection but its goodbye.
    last: bool,
    /// Body bytes sent.
    pub sent: u64,
}

impl SendBody {
    /// A body framed like this.
    pub fn new(framing: BodyFraming) -> Self {
        let owed = if let BodyFraming::Length(length) = framing { length } else { 0 };
        Self {
            framing,
            owed,
            open_chunk: 0,
            ended: framing == BodyFraming::None,
            pipe: None,
            last: false,
            sent: 0,
        }
    }

    /// The same, followed by nothing but the connection's goodbye.
    pub fn last(framing: BodyFraming) -> Self {
        Self { last: true, ..Self::new(framing) }
    }

    /// Whether bytes are ready that the sink has not taken; else it waits for its source, or has ended.
    pub fn is_blocked(&self, out: &WriteBuffer) -> bool {
        self.open_chunk > 0 || out.pending() > 0 || self.pipe.as_ref().is_some_and(|pipe| pipe.filled() > 0)
    }

    /// The framing a body of this length gets when the peer understands chunked coding.
    pub fn framing_of(length: BodyLength) -> BodyFraming {
        match length {
            BodyLength::Absent => BodyFraming::None,
            BodyLength::Exact(length) => BodyFraming::Length(length),
            BodyLength::Unknown => BodyFraming::Chunked,
        }
    }

    /// Moves the body on as far as source and sink allow. Ready when all of it is with the kernel.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Body,
        out: &mut WriteBuffer,
        io: &std::cell::RefCell<Io>,
    ) -> Poll<Result<(), SendError>> {
        let mut pieces = 0;
        while !self.ended {
            pieces += 1;
            if pieces > PIECES_IN_ONE_GO {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.open_chunk == 0 && self.takes_pipe(body, io) {
                ready!(self.poll_pipe(cx, body, out, io))?;
                continue;
            }
            if self.open_chunk == 0 {
                match body.poll_fill(cx) {
                    // Nothing to add now: what is gathered must not wait for it.
                    Poll::Pending => {
                        ready!(out.poll_flush(cx, &mut io.borrow_mut())).map_err(SendError::Sink)?;
                        return Poll::Pending;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(SendError::Source(error))),
                    Poll::Ready(Ok(Fill::End)) => {
                        self.end(body, out)?;
                        break;
                    }
                    Poll::Ready(Ok(Fill::Data)) => self.open(body.chunk().len(), out)?,
                }
            }
            ready!(self.poll_chunk(cx, body, out, io))?;
        }
        if self.last {
            io.borrow_mut().hold();
        }
        out.poll_flush(cx, &mut io.borrow_mut()).map_err(SendError::Sink)
    }

    /// Whether the next bytes go, or are already on their way, through a pipe: a body of known length to a plain socket.
    fn takes_pipe(&mut self, body: &Body, io: &std::cell::RefCell<Io>) -> bool {
        if let Some(pipe) = &self.pipe
            && pipe.filled() > 0
        {
            return true;
        }
        let worthwhile = matches!(self.framing, BodyFraming::Length(_))
            && self.owed >= splice::WORTHWHILE
            && body.is_spliceable()
            && matches!(*io.borrow(), Io::Tcp(_));
        if !worthwhile {
            self.pipe = None;
        } else if self.pipe.is_none() {
            self.pipe = Pipe::take();
        }
        self.pipe.is_some()
    }

    /// One step through the pipe: what came for it goes in, or what is in it goes out.
    fn poll_pipe(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Body,
        out: &mut WriteBuffer,
        io: &std::cell::RefCell<Io>,
    ) -> Poll<Result<(), SendError>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(())) };
        if pipe.filled() == 0 {
            return match body.poll_splice(cx, pipe) {
                Some(Poll::Ready(Ok(()))) if pipe.filled() as u64 > self.owed => {
                    Poll::Ready(Err(SendError::WrongLength))
                }
                Some(Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
                Some(Poll::Ready(Err(error))) => Poll::Ready(Err(SendError::Source(error))),
                None => Poll::Ready(Err(SendError::Source(BodyError::Cut))),
                Some(Poll::Pending) => {
                    ready!(out.poll_flush(cx, &mut io.borrow_mut())).map_err(SendError::Sink)?;
                    Poll::Pending
                }
            };
        }
        // Bound before the match: what follows uses the same transport.
        let flushed = out.poll_flush(cx, &mut io.borrow_mut());
        let drained = match flushed {
            Poll::Ready(Ok(())) => match &*io.borrow() {
                Io::Tcp(stream) => pipe.poll_drain(cx, stream),
                _ => Poll::Ready(Err(std::io::ErrorKind::Unsupported.into())),
            },
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        match drained {
            Poll::Ready(Ok(count)) => {
                self.sent += count as u64;
                self.owed = self.owed.saturating_sub(count as u64);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(SendError::Sink(error))),
            Poll::Pending => {
                body.poll_progress(cx);
                Poll::Pending
            }
        }
    }

    /// Announces a chunk, or checks that it was announced by `Content-Length`.
    fn open(&mut self, length: usize, out: &mut WriteBuffer) -> Result<(), SendError> {
        match self.framing {
            BodyFraming::Chunked => {
                let size = format_hex(length);
                out.tail().extend_from_slice(size.as_ref());
                out.tail().extend_from_slice(b"\r\n");
            }
            BodyFraming::Length(_) if length as u64 > self.owed => return Err(SendError::WrongLength),
            _ => {}
        }
        self.open_chunk = length;
        Ok(())
    }

    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Body,
        out: &mut WriteBuffer,
        io: &std::cell::RefCell<Io>,
    ) -> Poll<Result<(), SendError>> {
        let chunk = body.chunk();
        let chunk = chunk.get(..self.open_chunk).unwrap_or(chunk);
        let count = if chunk.len() <= GATHER && out.pending() + chunk.len() <= GATHER_LIMIT {
            out.tail().extend_from_slice(chunk);
            chunk.len()
        } else {
            // Bound before the match: what moves on below may use the same transport.
            let written = out.poll_write_with(cx, &mut io.borrow_mut(), chunk);
            match written {
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(SendError::Sink(error))),
                Poll::Pending => {
                    body.poll_progress(cx);
                    return Poll::Pending;
                }
            }
        };
        body.consume(count);
        self.sent += count as u64;
        self.owed = self.owed.saturating_sub(count as u64);
        self.open_chunk -= count;
        if self.open_chunk == 0 && self.framing == BodyFraming::Chunked {
            out.tail().extend_from_slice(b"\r\n");
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, body: &mut Body, out: &mut WriteBuffer) -> Result<(), SendError> {
        self.ended = true;
        match self.framing {
            BodyFraming::Chunked => {
                out.tail().extend_from_slice(b"0\r\n");
                if let Some(trailers) = body.trailers() {
                    fields(out.tail(), &trailers);
                }
                out.tail().extend_from_slice(b"\r\n");
            }
            BodyFraming::Length(_) if self.owed > 0 => return Err(SendError::WrongLength),
            _ => {}
        }
        Ok(())
    }
}

/// A number in hexadecimal without allocating.
fn format_hex(mut number: usize) -> impl AsRef<[u8]> {
    let mut digits = smallvec::SmallVec::<[u8; 16]>::new();
    loop {
        digits.insert(0, b"0123456789abcdef".get(number & 15).copied().unwrap_or(b'0'));
        number >>= 4;
        if number == 0 {
            return digits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal() {
        for number in [0, 9, 10, 255, 256, 65_536, usize::MAX] {
            assert_eq!(format_hex(number).as_ref(), format!("{number:x}").as_bytes());
        }
    }
}
