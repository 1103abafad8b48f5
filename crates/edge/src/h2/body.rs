//! Bodies over HTTP/2 streams, both directions: flow control is the back-pressure.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};

use super::convert;
use super::outbox::{Outbox, Place};
use super::server::Respond;
use crate::message::{
    Body, BodyError, BodyLength, BodySource, Fill, HeaderList, PIECES_IN_ONE_GO, ResponseHead,
};

/// Bytes asked of the flow-control window for one DATA write.
const WRITE_PIECE: usize = 16 * 1024;
/// Pieces smaller than this are gathered into frames of about this size.
const GATHER: usize = 4 * 1024;
/// How long a finished tunnel waits for the client to end its side too, before the stream is reset.
const TUNNEL_LINGER: Duration = Duration::from_secs(2);

/// A body being received.
pub struct ReceiveBody {
    /// Taken only when the body is dropped.
    stream: Option<RecvStream>,
    /// The upload of a tunnel: the client gets a moment to end it before the stream is reset.
    tunnel: bool,
    length: BodyLength,
    current: Bytes,
    trailers: Option<HeaderList>,
    data_ended: bool,
    /// Where `100 Continue` is still owed before the client sends its body.
    owes_continue: Option<Respond>,
}

impl ReceiveBody {
    /// Wraps a stream whose head has been read.
    pub fn new(stream: RecvStream, length: BodyLength, owes_continue: Option<Respond>, tunnel: bool) -> Self {
        let (current, stream) = (Bytes::new(), Some(stream));
        Self { stream, tunnel, length, current, trailers: None, data_ended: false, owes_continue }
    }

    /// Waits for the first bytes, so that a body that is malformed from its beginning is seen before anybody is asked (`h2`
    /// compares every DATA frame with the announced length), and one that never comes holds no connection to an origin. They
    /// nearly always come with the head; after `limit` it is streamed as it comes. Fails only when they are malformed or cut.
    pub async fn arrive(&mut self, limit: Duration) -> Result<(), BodyError> {
        let fill = match poll_fn(|cx| Poll::Ready(self.poll_fill(cx))).await {
            Poll::Ready(fill) => fill,
            Poll::Pending => match tokio::time::timeout(limit, poll_fn(|cx| self.poll_fill(cx))).await {
                Ok(fill) => fill,
                Err(_it_is_streamed_then) => return Ok(()),
            },
        };
        fill.map(|_| ())
    }

    fn release(&mut self, count: usize) {
        // Fails only when the stream is already gone, and then there is no window left to open.
        crate::ignore(self.stream.as_mut().map(|stream| stream.flow_control().release_capacity(count)));
    }
}

impl BodySource for ReceiveBody {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        if let Some(respond) = self.owes_continue.take() {
            let interim = convert::response(&ResponseHead::new(100), BodyLength::Unknown);
            // Fails when the final response is already out, and then the client needs no permission.
            crate::ignore(respond.borrow_mut().send_informational(interim));
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(BodyError::Cut)) };
        while self.current.is_empty() && !self.data_ended {
            match ready!(stream.poll_data(cx)) {
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
        match ready!(stream.poll_trailers(cx)) {
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

impl Drop for ReceiveBody {
    fn drop(&mut self) {
        if let Some(mut stream) = self.stream.take()
            && self.tunnel
            && !self.data_ended
        {
            // No window is given back meanwhile, so what is still sent is bounded.
            let ended = async move { while let Some(Ok(_)) = poll_fn(|cx| stream.poll_data(cx)).await {} };
            tokio::task::spawn_local(tokio::time::timeout(TUNNEL_LINGER, ended));
        }
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
    /// Small pieces on their way into one frame.
    gathered: BytesMut,
    ended: bool,
    /// What all streams of a client's connection share; `None` towards an origin.
    outbox: Option<Rc<Outbox>>,
    place: Place,
    /// Bytes handed to the stream.
    pub sent: u64,
}

impl SendBody {
    /// Sends into a stream whose head has been sent.
    pub fn new(stream: SendStream<Bytes>, length: BodyLength, outbox: Option<Rc<Outbox>>) -> Self {
        let owed = if let BodyLength::Exact(length) = length { Some(length) } else { None };
        let (gathered, place) = (BytesMut::new(), Place::default());
        Self { stream, owed, reserved: 0, gathered, ended: false, outbox, place, sent: 0 }
    }

    /// Whether bytes are ready for the peer that its window has no room for.
    pub fn is_blocked(&self) -> bool {
        self.reserved > 0
    }

    /// Moves the body on. Ready when all of it is with `h2`.
    pub fn poll(&mut self, cx: &mut Context<'_>, body: &mut Body) -> Poll<Result<(), SendError>> {
        let mut pieces = 0;
        while !self.ended {
            pieces += 1;
            if pieces > PIECES_IN_ONE_GO {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // Before the source is asked: what it reads would wait here too.
            ready!(self.poll_outbox(cx, body))?;
            // Before anything more is taken in, so that what is gathered stays bounded while the window is closed.
            while self.gathered.len() >= GATHER {
                ready!(self.poll_send(cx, body))?;
            }
            match body.poll_fill(cx) {
                Poll::Pending => {
                    // Nothing to add now: what is gathered must not wait for it.
                    if ready!(self.poll_send(cx, body))? {
                        continue;
                    }
                    self.poll_gone(cx)?;
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => {
                    // A body that cannot end well must not look complete.
                    self.stream.send_reset(h2::Reason::INTERNAL_ERROR);
                    return Poll::Ready(Err(SendError::Source(error)));
                }
                Poll::Ready(Ok(Fill::End)) => {
                    while !self.gathered.is_empty() {
                        ready!(self.poll_send(cx, body))?;
                    }
                    return Poll::Ready(if self.ended { Ok(()) } else { self.end(body) });
                }
                Poll::Ready(Ok(Fill::Data)) => {
                    if ready!(self.poll_data(cx, body))? {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the chunk at hand: small ones are gathered, because a frame for each would look like an attack to the
    /// peer (and cost one). Answers whether that was the whole body.
    fn poll_data(&mut self, cx: &mut Context<'_>, body: &mut Body) -> Poll<Result<bool, SendError>> {
        let chunk = body.chunk().len();
        let announced = self.gathered.len() as u64 + chunk as u64;
        if self.owed.is_some_and(|owed| announced > owed) {
            self.stream.send_reset(h2::Reason::INTERNAL_ERROR);
            return Poll::Ready(Err(SendError::Source(BodyError::Framing)));
        }
        let whole = self.gathered.is_empty() && self.owed == Some(announced);
        if chunk < GATHER && !whole {
            self.gathered.extend_from_slice(body.chunk());
            body.consume(chunk);
            let complete = self.owed == Some(self.gathered.len() as u64);
            if self.gathered.len() < GATHER && !complete {
                return Poll::Ready(Ok(false));
            }
        }
        while !self.gathered.is_empty() {
            ready!(self.poll_send(cx, body))?;
        }
        let left = body.chunk().len().min(WRITE_PIECE);
        if left > 0 {
            let room = ready!(self.poll_room(cx, body, left))?;
            let piece = body.take(room.min(left));
            self.send(cx, body, piece)?;
        }
        Poll::Ready(Ok(self.ended))
    }

    /// Sends of what is gathered as much as the window takes; false when nothing is.
    fn poll_send(&mut self, cx: &mut Context<'_>, body: &mut Body) -> Poll<Result<bool, SendError>> {
        let length = self.gathered.len();
        if length == 0 {
            return Poll::Ready(Ok(false));
        }
        let room = ready!(self.poll_room(cx, body, length))?;
        let piece = self.gathered.split_to(room.min(length)).freeze();
        Poll::Ready(self.send(cx, body, piece).map(|()| true))
    }

    /// Ready when the connection has room. Waiting for that counts as no delay of this stream: the connection has its limit.
    fn poll_outbox(&mut self, cx: &mut Context<'_>, body: &mut Body) -> Poll<Result<(), SendError>> {
        let Some(outbox) = &self.outbox else { return Poll::Ready(Ok(())) };
        if outbox.poll_room(cx, &mut self.place).is_ready() {
            return Poll::Ready(Ok(()));
        }
        body.poll_progress(cx);
        self.poll_gone(cx)?;
        Poll::Pending
    }

    /// Room in the peer's window, at least one byte.
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Body,
        wanted: usize,
    ) -> Poll<Result<usize, SendError>> {
        if self.reserved != wanted {
            self.stream.reserve_capacity(wanted);
            self.reserved = wanted;
        }
        let capacity = self.stream.capacity();
        if capacity > 0 {
            return Poll::Ready(Ok(capacity));
        }
        match self.stream.poll_capacity(cx) {
            Poll::Ready(Some(Ok(capacity))) => Poll::Ready(Ok(capacity)),
            Poll::Ready(_) => Poll::Ready(Err(SendError::Sink)),
            Poll::Pending => {
                body.poll_progress(cx);
                self.poll_gone(cx)?;
                Poll::Pending
            }
        }
    }

    fn send(&mut self, cx: &mut Context<'_>, body: &mut Body, piece: Bytes) -> Result<(), SendError> {
        let count = piece.len() as u64;
        self.reserved = 0;
        self.outbox.iter().for_each(|outbox| outbox.queue(piece.len()));
        self.owed = self.owed.map(|owed| owed.saturating_sub(count));
        self.sent += count;
        // Asked on to its very end, the source finishes its exchange; and the last frame can say that it is the last.
        self.ended = self.gathered.is_empty()
            && self.is_whole()
            && matches!(body.poll_fill(cx), Poll::Ready(Ok(Fill::End)));
        let trailers = if self.ended { body.trailers() } else { None };
        let last = self.ended && trailers.is_none();
        self.stream.send_data(piece, last).map_err(|_| SendError::Sink)?;
        trailers.map_or(Ok(()), |trailers| self.send_trailers(&trailers))
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
