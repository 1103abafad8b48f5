//! Bodies over HTTP/2 streams, both directions: flow control is the back-pressure.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::convert;
use super::server::Respond;
use crate::message::{Body, BodyError, BodyLength, BodySource, Fill, HeaderList, ResponseHead};

/// Bytes asked of the flow-control window for one DATA write.
const WRITE_PIECE: usize = 64 * 1024;

/// A body being received.
pub struct ReceiveBody {
    stream: RecvStream,
    length: BodyLength,
    current: Bytes,
    trailers: Option<HeaderList>,
    data_ended: bool,
    /// Where `100 Continue` is still owed before the client sends its body.
    owes_continue: Option<Respond>,
}

impl ReceiveBody {
    /// Wraps a stream whose head has been read.
    pub fn new(stream: RecvStream, length: BodyLength, owes_continue: Option<Respond>) -> Self {
        Self { stream, length, current: Bytes::new(), trailers: None, data_ended: false, owes_continue }
    }

    fn release(&mut self, count: usize) {
        // Fails only when the stream is already gone, and then there is no window left to open.
        crate::ignore(self.stream.flow_control().release_capacity(count));
    }
}

impl BodySource for ReceiveBody {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        if let Some(respond) = self.owes_continue.take() {
            let interim = convert::response(&ResponseHead::new(100), BodyLength::Unknown);
            // Fails when the final response is already out, and then the client needs no permission.
            crate::ignore(respond.borrow_mut().send_informational(interim));
        }
        while self.current.is_empty() && !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => self.current = data,
                Some(Err(error)) => {
                    let framing = error.reason() == Some(h2::Reason::PROTOCOL_ERROR);
                    return Poll::Ready(Err(if framing { BodyError::Framing } else { BodyError::Cut }));
                }
                None => self.data_ended = true,
            }
        }
        if !self.current.is_empty() {
            return Poll::Ready(Ok(Fill::Data));
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(map)) => self.trailers = Some(convert::trailers(&map)),
            Ok(None) => {}
            Err(_) => return Poll::Ready(Err(BodyError::Cut)),
        }
        Poll::Ready(Ok(Fill::End))
    }

    fn chunk(&self) -> &[u8] {
        &self.current
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.current.len());
        drop(self.current.split_to(count));
        self.release(count);
    }

    fn take(&mut self, limit: usize) -> Bytes {
        let piece = self.current.split_to(limit.min(self.current.len()));
        self.release(piece.len());
        piece
    }

    fn trailers(&mut self) -> Option<HeaderList> {
        self.trailers.take()
    }

    fn length(&self) -> BodyLength {
        self.length
    }
}

/// Why sending stopped.
#[derive(Debug)]
pub enum SendError {
    /// The side that sends the body to us failed.
    Source(BodyError),
    /// The stream or its connection ended.
    Sink,
}

/// A body being sent.
pub struct SendBody {
    stream: SendStream<Bytes>,
    /// Bytes still owed when the length was announced.
    owed: Option<u64>,
    reserved: usize,
    ended: bool,
    /// Bytes handed to the stream.
    pub sent: u64,
}

impl SendBody {
    /// Sends into a stream whose head has been sent.
    pub fn new(stream: SendStream<Bytes>, length: BodyLength) -> Self {
        let owed = if let BodyLength::Exact(length) = length { Some(length) } else { None };
        Self { stream, owed, reserved: 0, ended: false, sent: 0 }
    }

    /// Whether bytes are ready for the peer that its window has no room for.
    pub fn is_blocked(&self) -> bool {
        self.reserved > 0
    }

    /// Moves the body on. Ready when all of it is with `h2`.
    pub fn poll(&mut self, cx: &mut Context<'_>, body: &mut Body) -> Poll<Result<(), SendError>> {
        while !self.ended {
            let chunk = match body.poll_fill(cx) {
                Poll::Pending => {
                    self.poll_gone(cx)?;
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => {
                    // A body that cannot end well must not look complete.
                    self.stream.send_reset(h2::Reason::INTERNAL_ERROR);
                    return Poll::Ready(Err(SendError::Source(error)));
                }
                Poll::Ready(Ok(Fill::End)) => return Poll::Ready(self.end(body)),
                Poll::Ready(Ok(Fill::Data)) => body.chunk().len().min(WRITE_PIECE),
            };
            if self.owed.is_some_and(|owed| (chunk as u64) > owed) {
                self.stream.send_reset(h2::Reason::INTERNAL_ERROR);
                return Poll::Ready(Err(SendError::Source(BodyError::Framing)));
            }
            if self.reserved != chunk {
                self.stream.reserve_capacity(chunk);
                self.reserved = chunk;
            }
            let capacity = self.stream.capacity();
            let capacity = if capacity > 0 {
                capacity
            } else {
                match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(capacity))) => capacity,
                    Poll::Ready(_) => return Poll::Ready(Err(SendError::Sink)),
                    Poll::Pending => {
                        body.poll_progress(cx);
                        self.poll_gone(cx)?;
                        return Poll::Pending;
                    }
                }
            };
            let piece = body.take(capacity.min(chunk));
            self.reserved = 0;
            self.owed = self.owed.map(|owed| owed.saturating_sub(piece.len() as u64));
            self.sent += piece.len() as u64;
            // Asking on to the very end lets the source finish its exchange, and saves an empty frame.
            let ends = matches!(body.poll_fill(cx), Poll::Ready(Ok(Fill::End))) && self.is_whole();
            let trailers = if ends { body.trailers() } else { None };
            let last = ends && trailers.is_none();
            self.stream.send_data(piece, last).map_err(|_| SendError::Sink)?;
            if let Some(trailers) = trailers {
                self.send_trailers(&trailers)?;
            }
            self.ended = ends;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether as much was sent as announced.
    fn is_whole(&self) -> bool {
        self.owed.is_none_or(|owed| owed == 0)
    }

    fn end(&mut self, body: &mut Body) -> Result<(), SendError> {
        self.ended = true;
        if !self.is_whole() {
            self.stream.send_reset(h2::Reason::INTERNAL_ERROR);
            return Err(SendError::Source(BodyError::Cut));
        }
        match body.trailers() {
            Some(trailers) => self.send_trailers(&trailers),
            None => self.stream.send_data(Bytes::new(), true).map_err(|_| SendError::Sink),
        }
    }

    fn send_trailers(&mut self, trailers: &HeaderList) -> Result<(), SendError> {
        self.stream.send_trailers(convert::header_map(trailers)).map_err(|_| SendError::Sink)
    }

    /// Whether the peer has reset the stream meanwhile.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Result<(), SendError> {
        if self.stream.poll_reset(cx).is_ready() { Err(SendError::Sink) } else { Ok(()) }
    }
}
