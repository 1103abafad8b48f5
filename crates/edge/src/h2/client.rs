//! The HTTP/2 client side: origin connections that many requests of one edge thread share.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use tokio::time::Instant;

use super::body::{ReceiveBody, SendBody, SendError};
use super::coalesce::Coalesce;
use super::convert;
use super::guard::{Fate, Peer};
use crate::h1::client::{ExchangeError, ExchangeErrorKind, ExchangeLimits};
use crate::io::{Idle, Io};
use crate::message::{Body, BodyError, BodyLength, BodySource, Fill, HeaderList, ResponseHead};
use crate::pipeline::Inform;
use crate::telemetry::metrics::Shard;

/// Bytes an origin may send on one stream before they are read.
const STREAM_WINDOW: u32 = 512 * 1024;
/// Bytes an origin may send on all streams of a connection before they are read.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes of an upload held per stream on top of what the origin's window allows.
const SEND_BUFFER: usize = 128 * 1024;
/// Streams opened on one connection at most, whatever the origin allows.
const MAX_STREAMS: usize = 256;
/// Bytes of an origin's response head.
const MAX_HEAD: u32 = 128 * 1024;

/// A connection to an origin that speaks HTTP/2.
pub struct SharedConnection {
    send: SendRequest<Bytes>,
    state: Rc<State>,
}

struct State {
    closed: Cell<bool>,
    /// Streams open now, on this side's count.
    open: Cell<usize>,
    idle_since: Cell<Instant>,
    /// Responses begun since the connection's task ran last.
    answers: Cell<u32>,
}

/// Counts a stream for as long as it lives.
struct StreamGuard(Rc<State>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.idle_since.set(Instant::now());
    }
}

impl SharedConnection {
    /// Opens a connection and leaves its frames to a task of its own. Fails when the origin does not speak HTTP/2.
    /// `shard` counts it when it is closed because of a flood.
    pub async fn open(io: Io, shard: Option<Arc<Shard>>) -> Result<Rc<Self>, ExchangeErrorKind> {
        let io = Coalesce::new(io, Peer::Origin, MAX_STREAMS as u32);
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEAD)
            .enable_push(false);
        let (send, connection) =
            builder.handshake::<_, Bytes>(io.clone()).await.map_err(|_| ExchangeErrorKind::Closed)?;
        let state = Rc::new(State {
            closed: Cell::new(false),
            open: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            answers: Cell::new(0),
        });
        let task_state = state.clone();
        tokio::task::spawn_local(async move {
            let mut connection = connection;
            poll_fn(|cx| {
                for _ in 0..task_state.answers.take() {
                    io.ended(Fate::Answered);
                }
                loop {
                    let outcome = Pin::new(&mut connection).poll(cx);
                    match io.poll_drain(cx) {
                        Poll::Ready(Ok(true)) => continue,
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        _ => return outcome.map(|_| ()),
                    }
                }
            })
            .await;
            task_state.closed.set(true);
            if let Some(flood) = io.flood() {
                tracing::debug!(reason = flood.name(), "HTTP/2 flood from an origin");
                if let Some(shard) = shard {
                    shard.origin_flooded(flood);
                }
            }
        });
        Ok(Rc::new(Self { send, state }))
    }

    /// Whether it can take no more requests.
    pub fn is_closed(&self) -> bool {
        self.state.closed.get()
    }

    /// Whether one more stream fits now.
    pub fn has_room(&self) -> bool {
        self.state.open.get() < self.send.current_max_send_streams().min(MAX_STREAMS)
    }

    /// Whether nothing has happened on it for `limit`.
    pub fn is_idle_for(&self, limit: Duration, now: Instant) -> bool {
        self.state.open.get() == 0 && now.duration_since(self.state.idle_since.get()) >= limit
    }

    /// Sends a request and waits for the response head; the response's body carries the rest of the exchange.
    pub async fn exchange(
        &self,
        request: http::Request<()>,
        body: Body,
        limits: ExchangeLimits,
        inform: &mut dyn Inform,
    ) -> Result<(ResponseHead, Body), ExchangeError> {
        let unsent =
            |kind, body| ExchangeError { kind, answered: false, unprocessed: true, untouched: Some(body) };
        let to_head = request.method() == http::Method::HEAD;
        let mut send = self.send.clone();
        if poll_fn(|cx| send.poll_ready(cx)).await.is_err() {
            self.state.closed.set(true);
            return Err(unsent(ExchangeErrorKind::Closed, body));
        }
        let length = body.length();
        let ends_here = matches!(body, Body::Empty) || length == BodyLength::Exact(0);
        let (response, stream) = match send.send_request(request, ends_here) {
            Ok(opened) => opened,
            Err(_) => return Err(unsent(ExchangeErrorKind::Closed, body)),
        };
        self.state.open.set(self.state.open.get() + 1);
        let guard = StreamGuard(self.state.clone());
        let mut upload =
            Upload { body, send: (!ends_here).then(|| SendBody::new(stream, length, None)), touched: false };
        let mut wait = ResponseWait { response, idle: Idle::default(), last_sent: 0, answered: false };
        match poll_fn(|cx| wait.poll(cx, &mut upload, &limits, inform)).await {
            Ok(response) => {
                self.state.answers.set(self.state.answers.get() + 1);
                let (parts, receive) = response.into_parts();
                let ends = receive.is_end_stream();
                let Some((head, length)) = convert::response_head(parts, to_head, ends) else {
                    return Err(ExchangeError {
                        kind: ExchangeErrorKind::BadResponse,
                        answered: true,
                        unprocessed: false,
                        untouched: None,
                    });
                };
                // gRPC answers with trailers only; its end must still be waited for when it has not come yet.
                if ends {
                    let body =
                        if length == BodyLength::Absent { Body::Empty } else { Body::Full(Bytes::new()) };
                    return Ok((head, body));
                }
                let source = ResponseBody {
                    receive: ReceiveBody::new(receive, length, None, false),
                    upload,
                    idle: Idle::default(),
                    limits,
                    _guard: guard,
                };
                Ok((head, Body::stream(source)))
            }
            Err((kind, never_processed)) => {
                if kind == ExchangeErrorKind::TimedOut {
                    // It may be dead without a word, and every further request would wait as long.
                    self.state.closed.set(true);
                }
                Err(ExchangeError {
                    kind,
                    answered: wait.answered && !never_processed,
                    unprocessed: never_processed,
                    untouched: (!upload.touched).then_some(upload.body),
                })
            }
        }
    }
}

/// The request's body on its way.
struct Upload {
    body: Body,
    /// `None` once there is nothing more to send.
    send: Option<SendBody>,
    touched: bool,
}

impl Upload {
    /// Fails only when the client's side fails.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let Some(send) = &mut self.send else { return Ok(()) };
        self.touched |= !matches!(self.body, Body::Full(_));
        match send.poll(cx, &mut self.body) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(()) | Err(SendError::Sink)) => {
                self.send = None;
                // Lets go of the client's reading side, which then knows whether the request is complete.
                if matches!(self.body, Body::Stream(_)) {
                    self.body = Body::Empty;
                }
                Ok(())
            }
            Poll::Ready(Err(SendError::Source(error))) => {
                self.send = None;
                Err(error)
            }
        }
    }
}

struct ResponseWait {
    response: ResponseFuture,
    idle: Idle,
    last_sent: u64,
    answered: bool,
}

impl ResponseWait {
    /// The error's flag: the origin says that it has not processed the request (RFC 9113 section 8.7).
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Upload,
        limits: &ExchangeLimits,
        inform: &mut dyn Inform,
    ) -> Poll<Result<http::Response<h2::RecvStream>, (ExchangeErrorKind, bool)>> {
        if let Err(error) = upload.poll(cx) {
            return Poll::Ready(Err((ExchangeErrorKind::Client(error), false)));
        }
        while let Poll::Ready(Some(Ok(interim))) = self.response.poll_informational(cx) {
            self.answered = true;
            let (parts, ()) = interim.into_parts();
            if parts.status != 100
                && let Some((head, _)) = convert::response_head(parts, false, true)
            {
                inform.inform(cx, &head);
            }
        }
        match Pin::new(&mut self.response).poll(cx) {
            Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
            Poll::Ready(Err(error)) => {
                let never_processed = error.reason() == Some(h2::Reason::REFUSED_STREAM)
                    || (error.is_go_away() && error.is_remote());
                let malformed = error.is_reset() && !error.is_remote();
                self.answered |= !error.is_io() && !never_processed;
                let kind = if malformed { ExchangeErrorKind::BadResponse } else { ExchangeErrorKind::Closed };
                return Poll::Ready(Err((kind, never_processed)));
            }
            Poll::Pending => {}
        }
        let sending = upload.send.as_ref();
        let sent = sending.map_or(u64::MAX, |send| send.sent);
        // A client that pauses is held to its own limit; the origin only to taking what is there, and to answering.
        if sent != self.last_sent || sending.is_some_and(|send| !send.is_blocked()) {
            self.last_sent = sent;
            self.idle.progress();
        }
        if sending.is_some_and(|send| !send.is_blocked()) {
            return Poll::Pending;
        }
        let limit = if sending.is_some() { limits.idle } else { limits.response };
        self.idle.poll(cx, limit).map(|()| Err((ExchangeErrorKind::TimedOut, false)))
    }
}

/// The response's body; moves the upload on while it is read.
struct ResponseBody {
    receive: ReceiveBody,
    upload: Upload,
    idle: Idle,
    limits: ExchangeLimits,
    _guard: StreamGuard,
}

impl BodySource for ResponseBody {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        let before = self.upload.send.as_ref().map(|send| send.sent);
        if let Err(error) = self.upload.poll(cx) {
            return Poll::Ready(Err(error));
        }
        if self.upload.send.as_ref().map(|send| send.sent) != before {
            self.idle.progress();
        }
        match self.receive.poll_fill(cx) {
            Poll::Ready(outcome) => {
                self.idle.progress();
                Poll::Ready(outcome)
            }
            Poll::Pending => self.idle.poll(cx, self.limits.idle).map(|()| Err(BodyError::TimedOut)),
        }
    }

    fn chunk(&self) -> &[u8] {
        self.receive.chunk()
    }

    fn consume(&mut self, count: usize) {
        self.receive.consume(count);
    }

    fn take(&mut self, limit: usize) -> Bytes {
        self.receive.take(limit)
    }

    fn trailers(&mut self) -> Option<HeaderList> {
        self.receive.trailers()
    }

    fn length(&self) -> BodyLength {
        self.receive.length()
    }

    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        // The reading side reports what fails.
        crate::ignore(self.upload.poll(cx));
    }
}
