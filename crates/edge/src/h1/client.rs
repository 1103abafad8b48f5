//! The HTTP/1.1 client side: one exchange on one origin connection, upload and download moving together.
//!
//! No task, no channel: whoever reads the response body also moves the request body on.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::body::{Decoded, Decoder};
use super::encode::{BodyFraming, SendBody, SendError};
use super::parse::{self, Framing, HeadEnd, HeadLimits, ParsedResponse};
use crate::io::{BODY_READ, HEAD_READ, Idle, Io, ReadBuffer, Timer, WriteBuffer};
use crate::message::{Body, BodyError, BodyLength, BodySource, Fill, HeaderList, ResponseHead};
use crate::pipeline::Inform;
use crate::splice::{self, Pipe};

/// Limits on what an origin may send as a head; generous, because the origin is the operator's own.
const RESPONSE_LIMITS: HeadLimits = HeadLimits { bytes: 128 * 1024, fields: 256, target: 0 };
/// Interim responses accepted before the final one.
const MAX_INTERIM: u32 = 16;
/// How long an upload waits for `100 Continue` from an origin that may not know it (RFC 9110 section 10.1.1).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A connection to an origin.
pub struct OriginConnection {
    io: RefCell<Io>,
    input: ReadBuffer,
    out: WriteBuffer,
    /// Stays from exchange to exchange: a timer that is there already need not be set up.
    idle: Idle,
    /// Exchanges completed on it.
    pub used: u64,
    /// Since when it is idle.
    pub idle_since: Instant,
}

impl OriginConnection {
    /// Wraps a connected transport.
    pub fn new(io: Io) -> Self {
        Self {
            io: RefCell::new(io),
            input: ReadBuffer::default(),
            out: WriteBuffer::default(),
            idle: Idle::default(),
            used: 0,
            idle_since: Instant::now(),
        }
    }

    /// Whether an idle connection is still good: an origin that closed, or spoke without being asked, is not.
    pub fn poll_fresh(&mut self, cx: &mut Context<'_>) -> bool {
        self.input.poll_read(cx, self.io.get_mut(), HEAD_READ).is_pending()
    }
}

/// Where a connection goes after its exchange.
pub trait Recycle {
    /// Takes a connection that can be used again.
    fn recycle(&self, connection: OriginConnection);
}

/// Time limits of one exchange.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeLimits {
    /// From the request sent to the response head.
    pub response: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// Between two pieces in a tunnel.
    pub tunnel: Duration,
}

/// What to send.
pub struct Outgoing<'a> {
    /// The head, ready for the wire.
    pub head: &'a [u8],
    /// The body.
    pub body: Body,
    /// How the body is framed.
    pub framing: BodyFraming,
    /// The request is HEAD.
    pub to_head: bool,
    /// The body is the upload of a tunnel and starts with 101.
    pub tunnel: bool,
    /// The body waits for `100 Continue`.
    pub expects_continue: bool,
}

/// Why an exchange failed before there was a response.
#[derive(Debug)]
pub struct ExchangeError {
    /// What happened.
    pub kind: ExchangeErrorKind,
    /// Whether a byte of a response was read.
    pub answered: bool,
    /// Whether the origin certainly has not acted on the request: it never left, or HTTP/2 said so (RFC 9113 section 8.7).
    pub unprocessed: bool,
    /// The request body, if nothing of it was consumed.
    pub untouched: Option<Body>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeErrorKind {
    /// The client's body failed.
    Client(BodyError),
    /// The origin closed or reset the connection.
    Closed,
    /// The origin did not answer or accept in time.
    TimedOut,
    /// The origin's answer cannot be passed on.
    BadResponse,
}

struct Upload {
    body: Body,
    send: SendBody,
    state: UploadState,
    touched: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum UploadState {
    /// Not before `100 Continue`, 101, or this moment.
    Held(Option<Instant>),
    Going,
    Done,
    Failed,
}

/// An exchange: everything that moves until the response has ended.
struct Exchange {
    connection: OriginConnection,
    upload: Upload,
    decoder: Decoder,
    available: usize,
    limits: ExchangeLimits,
    keep_alive: bool,
    tunnel: bool,
    shut: bool,
}

/// Sends a request and waits for the response head. The body of the response carries the rest of the exchange.
///
/// Everything is put into place before the first wait, so that the future is small: it is moved into that of its request.
pub fn exchange<'a>(
    mut connection: OriginConnection,
    request: Outgoing<'_>,
    limits: ExchangeLimits,
    inform: &'a mut dyn Inform,
    recycle: Rc<dyn Recycle>,
) -> impl Future<Output = Result<(ResponseHead, Body), ExchangeError>> + use<'a> {
    connection.idle.progress();
    connection.out.tail().extend_from_slice(request.head);
    let (framing, state) = match (request.tunnel, request.expects_continue) {
        (true, _) => (BodyFraming::Raw, UploadState::Held(None)),
        (_, true) => (request.framing, UploadState::Held(Some(Instant::now() + CONTINUE_WAIT))),
        _ => (request.framing, UploadState::Going),
    };
    let exchange = Box::new(Exchange {
        connection,
        upload: Upload { body: request.body, send: SendBody::new(framing), state, touched: false },
        decoder: Decoder::new(Framing::None, RESPONSE_LIMITS),
        available: 0,
        limits,
        keep_alive: false,
        tunnel: false,
        shut: false,
    });
    let wait = ResponseWait {
        to_head: request.to_head,
        tunnel: request.tunnel,
        interim: 0,
        last_sent: 0,
        continue_timer: Timer::default(),
    };
    until_answered(exchange, wait, inform, recycle)
}

async fn until_answered(
    mut exchange: Box<Exchange>,
    mut wait: ResponseWait,
    inform: &mut dyn Inform,
    recycle: Rc<dyn Recycle>,
) -> Result<(ResponseHead, Body), ExchangeError> {
    match poll_fn(|cx| wait.poll(cx, &mut exchange, inform)).await {
        Ok(parsed) => {
            exchange.keep_alive = parsed.keep_alive;
            exchange.tunnel = parsed.head.status == 101;
            let framing = if exchange.tunnel { Framing::Close } else { parsed.framing };
            exchange.decoder = Decoder::new(framing, RESPONSE_LIMITS);
            exchange.connection.idle.progress();
            Ok((parsed.head, exchange.into_body(recycle)))
        }
        Err(kind) => Err(ExchangeError {
            kind,
            answered: !exchange.connection.input.is_empty() || wait.interim > 0,
            unprocessed: false,
            untouched: (!exchange.upload.touched).then_some(exchange.upload.body),
        }),
    }
}

/// Waiting for the response head while the upload goes on.
struct ResponseWait {
    to_head: bool,
    tunnel: bool,
    interim: u32,
    last_sent: u64,
    continue_timer: Timer,
}

impl ResponseWait {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
        inform: &mut dyn Inform,
    ) -> Poll<Result<ParsedResponse, ExchangeErrorKind>> {
        loop {
            if let UploadState::Held(Some(until)) = exchange.upload.state
                && self.continue_timer.poll(cx, until).is_ready()
            {
                exchange.upload.state = UploadState::Going;
            }
            if let Err(error) = exchange.poll_upload(cx) {
                return Poll::Ready(Err(ExchangeErrorKind::Client(error)));
            }
            if let Some(outcome) = self.parse(cx, exchange, inform) {
                return Poll::Ready(outcome);
            }
            let connection = &mut exchange.connection;
            match connection.input.poll_read(cx, connection.io.get_mut(), BODY_READ) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(ExchangeErrorKind::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        if exchange.upload.send.sent != self.last_sent {
            self.last_sent = exchange.upload.send.sent;
            exchange.connection.idle.progress();
        }
        // While the upload is stopped by the client, the client's own limit runs; the origin is owed nothing yet.
        let uploading = exchange.upload.state == UploadState::Going;
        if uploading && !exchange.upload.send.is_blocked(&exchange.connection.out) {
            exchange.connection.idle.progress();
            return Poll::Pending;
        }
        let limit = if uploading { exchange.limits.idle } else { exchange.limits.response };
        exchange.connection.idle.poll(cx, limit).map(|()| Err(ExchangeErrorKind::TimedOut))
    }

    /// Takes heads out of the buffer: interim ones are passed on, the final one is the outcome.
    fn parse(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
        inform: &mut dyn Inform,
    ) -> Option<Result<ParsedResponse, ExchangeErrorKind>> {
        const BAD: Option<Result<ParsedResponse, ExchangeErrorKind>> =
            Some(Err(ExchangeErrorKind::BadResponse));
        loop {
            let input = &mut exchange.connection.input;
            let end = match parse::find_head_end(input.bytes(), 0) {
                HeadEnd::At(end) if end <= RESPONSE_LIMITS.bytes => end,
                HeadEnd::Incomplete if input.bytes().len() < RESPONSE_LIMITS.bytes => return None,
                _ => return BAD,
            };
            let head = input.bytes().get(..end).unwrap_or_default();
            let Ok(parsed) = parse::parse_response(head, &RESPONSE_LIMITS, self.to_head) else { return BAD };
            input.consume(end);
            match parsed.head.status {
                101 if self.tunnel => {
                    exchange.upload.state = UploadState::Going;
                    return Some(Ok(parsed));
                }
                101 => return BAD,
                100..200 => {
                    self.interim += 1;
                    if self.interim > MAX_INTERIM {
                        return BAD;
                    }
                    // 100 is hop by hop: the edge sends its own when it starts to read the body.
                    if parsed.head.status != 100 {
                        inform.inform(cx, &parsed.head);
                    } else if matches!(exchange.upload.state, UploadState::Held(Some(_))) {
                        exchange.upload.state = UploadState::Going;
                        if let Err(error) = exchange.poll_upload(cx) {
                            return Some(Err(ExchangeErrorKind::Client(error)));
                        }
                    }
                }
                _ => return Some(Ok(parsed)),
            }
        }
    }
}

impl Exchange {
    /// Moves the upload on. Fails only when the client's side fails; an origin that stops reading may still answer.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let connection = &mut self.connection;
        if self.upload.state != UploadState::Going {
            if connection.out.pending() > 0 && self.upload.state != UploadState::Failed {
                match connection.out.poll_flush(cx, connection.io.get_mut()) {
                    Poll::Ready(Err(_)) => self.upload.state = UploadState::Failed,
                    _ => return Ok(()),
                }
            }
            return Ok(());
        }
        let upload = &mut self.upload;
        // An empty body is never "touched": a retry may send it again.
        upload.touched |= !matches!(upload.body, Body::Empty | Body::Full(_));
        match upload.send.poll(cx, &mut upload.body, &mut connection.out, &connection.io) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => {
                upload.state = UploadState::Done;
                // Lets go of the client's reading side, which then knows that the request is complete.
                if matches!(upload.body, Body::Stream(_)) {
                    upload.body = Body::Empty;
                }
                self.connection.idle.progress();
                Ok(())
            }
            Poll::Ready(Err(SendError::Sink(_))) => {
                upload.state = UploadState::Failed;
                Ok(())
            }
            Poll::Ready(Err(SendError::WrongLength)) => {
                upload.state = UploadState::Failed;
                Err(BodyError::Framing)
            }
            Poll::Ready(Err(SendError::Source(error))) => {
                upload.state = UploadState::Failed;
                Err(error)
            }
        }
    }

    fn into_body(self: Box<Self>, recycle: Rc<dyn Recycle>) -> Body {
        // Nothing will follow: the connection is free before the client has read a byte.
        if self.decoder.is_done() && self.upload.state == UploadState::Done {
            let length = self.decoder.length();
            self.give_back(&*recycle);
            return if length == BodyLength::Absent { Body::Empty } else { Body::Full(bytes::Bytes::new()) };
        }
        Body::stream(ResponseBody { exchange: Some(self), length: None, recycle, trailers: None })
    }

    fn give_back(mut self: Box<Self>, recycle: &dyn Recycle) {
        if self.keep_alive && self.connection.input.is_empty() && self.upload.state == UploadState::Done {
            self.connection.used += 1;
            self.connection.idle_since = Instant::now();
            self.connection.out.rest();
            recycle.recycle(self.connection);
        }
    }

    /// Half-closes towards the origin once the client's side of a tunnel has ended.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) {
        if self.tunnel && !self.shut && self.upload.state == UploadState::Done {
            let io = std::pin::Pin::new(self.connection.io.get_mut());
            self.shut = io.poll_shutdown(cx).is_ready();
        }
    }

    /// Moves on what moves beside the response.
    fn poll_beside(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let sent = self.upload.send.sent;
        if self.poll_upload(cx).is_err() && self.tunnel {
            return Err(BodyError::Cut);
        }
        self.poll_shutdown(cx);
        if self.upload.send.sent != sent {
            self.connection.idle.progress();
        }
        Ok(())
    }

    fn is_spliceable(&self) -> bool {
        self.connection.input.is_empty()
            && matches!(*self.connection.io.borrow(), Io::Tcp(_))
            && self.decoder.unframed().is_some_and(|left| left >= splice::WORTHWHILE)
    }

    fn poll_splice(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Option<Poll<Result<(), BodyError>>> {
        let left = self.decoder.unframed()?;
        if let Err(error) = self.poll_beside(cx) {
            return Some(Poll::Ready(Err(error)));
        }
        let Io::Tcp(stream) = self.connection.io.get_mut() else { return None };
        let limit = usize::try_from(left).unwrap_or(usize::MAX);
        Some(match pipe.poll_fill(cx, stream, limit) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(BodyError::Cut)),
            Poll::Ready(Ok(count)) => {
                self.decoder.consumed(count);
                self.connection.idle.progress();
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                self.connection.idle.poll(cx, self.limits.idle).map(|()| Err(BodyError::TimedOut))
            }
        })
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        self.poll_beside(cx)?;
        loop {
            let connection = &mut self.connection;
            match self.decoder.poll(&mut connection.input)? {
                Decoded::Data(count) => {
                    self.available = count;
                    self.connection.idle.progress();
                    return Poll::Ready(Ok(Fill::Data));
                }
                Decoded::End => return Poll::Ready(Ok(Fill::End)),
                Decoded::More => {}
            }
            match connection.input.poll_read(cx, connection.io.get_mut(), BODY_READ) {
                Poll::Ready(Ok(0)) => self.decoder.end_of_stream()?,
                // A reset is not an end: what a body without length lost cannot be known.
                Poll::Ready(Err(_)) if self.decoder.is_done() => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(BodyError::Cut)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    let limit = if self.tunnel { self.limits.tunnel } else { self.limits.idle };
                    return self.connection.idle.poll(cx, limit).map(|()| Err(BodyError::TimedOut));
                }
            }
        }
    }
}

/// The response's body; owns the exchange until it ends.
struct ResponseBody {
    exchange: Option<Box<Exchange>>,
    /// Known once the exchange is gone.
    length: Option<BodyLength>,
    recycle: Rc<dyn Recycle>,
    trailers: Option<HeaderList>,
}

impl BodySource for ResponseBody {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(Ok(Fill::End)) };
        let outcome = exchange.poll_fill(cx);
        if matches!(outcome, Poll::Ready(Ok(Fill::End)))
            && let Some(mut exchange) = self.exchange.take()
        {
            self.length = Some(exchange.decoder.length());
            self.trailers = exchange.decoder.take_trailers();
            exchange.give_back(&*self.recycle);
        }
        outcome
    }

    fn chunk(&self) -> &[u8] {
        let Some(exchange) = &self.exchange else { return &[] };
        exchange.connection.input.bytes().get(..exchange.available).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        if let Some(exchange) = &mut self.exchange {
            let count = count.min(exchange.available);
            exchange.available -= count;
            exchange.connection.input.consume(count);
            exchange.decoder.consumed(count);
        }
    }

    fn is_spliceable(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.is_spliceable())
    }

    fn poll_splice(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Option<Poll<Result<(), BodyError>>> {
        self.exchange.as_mut()?.poll_splice(cx, pipe)
    }

    fn trailers(&mut self) -> Option<HeaderList> {
        self.trailers.take()
    }

    fn length(&self) -> BodyLength {
        let live = self.exchange.as_ref().map(|exchange| exchange.decoder.length());
        live.or(self.length).unwrap_or(BodyLength::Absent)
    }

    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        if let Some(exchange) = &mut self.exchange {
            // The reading side reports what fails.
            crate::ignore(exchange.poll_upload(cx));
        }
    }
}
