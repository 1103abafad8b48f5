//! The HTTP/2 server side of one connection. Streams run inside the connection's own task, so that one wake-up serves
//! them all and what they write leaves in one system call.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::event::Completion;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, Stream};
use h2::server::{Connection as H2Connection, SendResponse};
use h2::{Reason, RecvStream};
use snapshot::generation::ConnectionLimits;
use tokio::time::Instant;

use super::body::{ReceiveBody, SendBody, SendError};
use super::coalesce::Coalesce;
use super::convert;
use super::guard::{Abandoned, Fate, Peer};
use super::outbox::Outbox;
use crate::connection::{Connection, Cutoff, Ending};
use crate::h1::parse::Refusal;
use crate::io::{Io, Linger, Timer};
use crate::message::{Body, BodyError, BodyLength, ResponseHead};
use crate::pace::{self, Pace, WritePace as _};
use crate::pipeline::{self, Inform, Request, Response};
use crate::telemetry::metrics::{ClientCut, Flood};
use crate::worker::Worker;

/// Bytes a client may send on one stream before the edge has read them.
const STREAM_WINDOW: u32 = 512 * 1024;
/// Bytes a client may send on all streams of a connection before the edge has read them.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of a response held per stream on top of what the peer's window allows.
const SEND_BUFFER: usize = 128 * 1024;
/// How long a connection that was idle for too long waits for streams the client had already begun (RFC 9113 section 6.8).
const GOAWAY_GRACE: Duration = Duration::from_secs(1);

/// Requests reset by their client before the edge has come to them, kept at most; the guard counts them too.
const UNSEEN_RESETS: usize = 100;
/// Streams a client may make fail over the life of its connection; the guard's budget, which recovers, is spent before.
const FAILED_STREAMS: usize = 10_000;

/// Bytes of an initial stream window below which it is tiny, and requests at a time that such a client is served.
const TINY_WINDOW: u32 = 1024;
const WINDOWLESS_STREAMS: u32 = 8;

/// A body that is not as long as announced.
const BAD_FRAMING: Refusal = Refusal { status: 400, reason: "bad_framing" };

type Streams = FuturesUnordered<Pin<Box<dyn Future<Output = Fate>>>>;

/// Serves one connection until it closes.
pub async fn run(io: Io, connection: Rc<Connection>, worker: Rc<Worker>) {
    let limits = worker.generation().snapshot.limits;
    let io = Coalesce::new(io, Peer::Client, limits.streams);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(FAILED_STREAMS))
        .enable_connect_protocol();
    let mut handshake = Box::pin(builder.handshake::<_, Bytes>(io.clone()));
    let mut timer = Timer::default();
    let deadline = Instant::now() + limits.header;
    let opened = poll_fn(|cx| {
        let outcome = Pin::new(&mut handshake).poll(cx);
        // The server's SETTINGS gather in the IO layer; the client may be waiting for them.
        if matches!(io.poll_drain(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(None);
        }
        match outcome {
            Poll::Ready(opened) => Poll::Ready(opened.ok()),
            Poll::Pending => timer.poll(cx, connection.idle_until(deadline)).map(|()| None),
        }
    })
    .await;
    drop(handshake);
    if let Some(h2) = opened {
        let mut driver = Driver {
            h2,
            io,
            streams: FuturesUnordered::new(),
            abandoned: Abandoned::default(),
            outbox: Rc::default(),
            connection,
            worker,
            limits,
            timer,
            write_pace: Pace::new(limits.write_pace(false)),
            head_since: None,
            head_timer: Timer::default(),
            quiet_since: None,
            going_away: None,
            ending: None,
            accepting: true,
        };
        poll_fn(|cx| driver.poll(cx)).await;
        let io = driver.io.clone();
        drop(driver);
        // A WINDOW_UPDATE for what is still on its way would meet a closed socket and reset the rest away.
        let mut linger = Linger::default();
        poll_fn(|cx| io.poll_linger(cx, &mut linger)).await;
    }
}

/// The connection and its streams.
struct Driver {
    h2: H2Connection<Coalesce, Bytes>,
    io: Coalesce,
    streams: Streams,
    abandoned: Abandoned,
    outbox: Rc<Outbox>,
    connection: Rc<Connection>,
    worker: Rc<Worker>,
    limits: ConnectionLimits,
    timer: Timer,
    write_pace: Pace,
    /// Since when a field block is under way.
    head_since: Option<Instant>,
    head_timer: Timer,
    /// Since when there is nothing to do; asked of the clock only then.
    quiet_since: Option<Instant>,
    /// Since when it says goodbye because it was idle for too long.
    going_away: Option<Instant>,
    /// How it is to end, as far as it has heard.
    ending: Option<Ending>,
    accepting: bool,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let ending = self.connection.listener.ending();
            if ending != self.ending {
                self.begin_ending(ending);
            }
            self.poll_accept(cx);
            while let Poll::Ready(Some(fate)) = Pin::new(&mut self.streams).poll_next(cx) {
                self.io.ended(fate);
                if fate == Fate::Abandoned {
                    self.abandoned.note(Instant::now);
                }
            }
            // What the streams have just queued becomes frames here, and leaves in one write below. A request that comes
            // only now has to be polled for the first time: nothing else would wake it.
            let mut again = self.poll_accept(cx);
            if let Some(flood) = self.io.flood() {
                return self.turn_away(cx, flood);
            }
            match self.io.poll_drain(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(true)) => again = true,
                Poll::Ready(Ok(false)) => again |= self.outbox.emptied(),
                Poll::Pending => {}
            }
            if !again {
                break;
            }
        }
        if !self.accepting && self.streams.is_empty() && self.io.pending() == 0 {
            return Poll::Ready(());
        }
        self.poll_timeouts(cx)
    }

    /// Says goodbye in two steps (RFC 9113 section 6.8): no new streams, please; and, once the client has heard that, which
    /// ones are served. Then every stream is polled once, so that it learns how long it has.
    fn begin_ending(&mut self, ending: Option<Ending>) {
        (self.ending, self.quiet_since) = (ending, None);
        self.h2.graceful_shutdown();
        self.streams = std::mem::take(&mut self.streams).into_iter().collect();
    }

    /// Takes new requests, and lets `h2` read, answer and write its frames. True when there was a request.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> bool {
        let mut taken = false;
        while self.accepting {
            let room = self.abandoned.poll_room(cx, self.streams.len(), self.limits.streams);
            let next = if room.is_ready() {
                self.h2.poll_accept(cx)
            } else {
                self.h2.poll_closed(cx).map(|closed| closed.err().map(Err))
            };
            match next {
                Poll::Pending => break,
                Poll::Ready(Some(Ok((request, respond)))) => {
                    if let Some(preface) = self.io.take_preface() {
                        crate::ignore(self.connection.preface.set(preface));
                    }
                    self.connection.seat.busy();
                    let stream = serve_stream(
                        request,
                        respond,
                        self.connection.clone(),
                        self.worker.clone(),
                        self.limits,
                        self.outbox.clone(),
                    );
                    // A panic in one stream resets that stream, not the connection's others.
                    self.streams.push(Box::pin(
                        AssertUnwindSafe(stream).catch_unwind().map(|fate| fate.unwrap_or(Fate::Answered)),
                    ));
                    taken = true;
                }
                Poll::Ready(outcome) => {
                    // One of the bounds that `h2` has itself.
                    if outcome.is_some_and(|outcome| outcome.is_err_and(|error| is_flood(&error))) {
                        self.worker.shard.client_flooded(Flood::Limits);
                    }
                    self.accepting = false;
                }
            }
        }
        taken
    }

    /// Ends the connection of a client that floods it: GOAWAY, and no more is read, done or waited for.
    fn turn_away(&mut self, cx: &mut Context<'_>, flood: Flood) -> Poll<()> {
        self.worker.shard.client_flooded(flood);
        let peer = base::address::truncate(self.connection.peer.ip());
        tracing::debug!(%peer, reason = flood.name(), "HTTP/2 flood from a client");
        self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        self.streams.clear();
        crate::ignore(self.h2.poll_closed(cx));
        crate::ignore(self.io.poll_drain(cx));
        Poll::Ready(())
    }

    /// Ready when a field block has been under way for too long.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.io.is_in_head() {
            self.head_since = None;
            return Poll::Pending;
        }
        let since = *self.head_since.get_or_insert_with(Instant::now);
        ready!(self.head_timer.poll(cx, since + self.limits.header));
        self.worker.shard.client_cut(ClientCut::SlowHead);
        Poll::Ready(())
    }

    fn poll_timeouts(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (pending, taken) = (self.io.pending(), self.io.taken());
        if pending == 0 {
            self.write_pace.rest(taken);
        } else if self.write_pace.poll(cx, taken, 1).is_ready() {
            self.worker.shard.client_cut(ClientCut::SlowReader);
            return Poll::Ready(());
        }
        if self.connection.seat.is_cleared() || self.poll_head(cx).is_ready() {
            return Poll::Ready(());
        }
        // A response may have ended for its stream and still be on its way to a slow client.
        if !self.streams.is_empty() || pending > 0 {
            self.quiet_since = None;
            return Poll::Pending;
        }
        let quiet_since = *self.quiet_since.get_or_insert_with(Instant::now);
        self.connection.seat.idle(quiet_since);
        let deadline = match self.going_away {
            Some(since) => Ending::idle_until(self.ending, since + GOAWAY_GRACE),
            None => self.connection.idle_until(quiet_since + self.limits.keep_alive),
        };
        if self.timer.poll(cx, deadline).is_pending() {
            return Poll::Pending;
        }
        if self.going_away.is_some() || self.ending.is_some() {
            return Poll::Ready(());
        }
        // Idle for too long: say goodbye first, so that a request already under way is not lost.
        self.going_away = Some(Instant::now());
        self.h2.graceful_shutdown();
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Whether the connection was ended on this side because its client does too much.
fn is_flood(error: &h2::Error) -> bool {
    error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
}

/// Counts one more stream among those that share the connection, while it lives.
struct Sharer(Rc<Connection>);

impl Sharer {
    fn new(connection: Rc<Connection>) -> Self {
        connection.sharers.set(connection.sharers.get() + 1);
        Self(connection)
    }
}

impl Drop for Sharer {
    fn drop(&mut self) {
        self.0.sharers.set(self.0.sharers.get().saturating_sub(1));
    }
}

/// The sending half of a stream, shared by whoever may send an interim response.
pub type Respond = Rc<RefCell<SendResponse<Bytes>>>;

/// One stream: request, response, body.
async fn serve_stream(
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
    connection: Rc<Connection>,
    worker: Rc<Worker>,
    limits: ConnectionLimits,
    outbox: Rc<Outbox>,
) -> Fate {
    let respond: Respond = Rc::new(RefCell::new(respond));
    let _sharer = Sharer::new(connection.clone());
    if connection.sharers.get() > WINDOWLESS_STREAMS && has_tiny_windows(&connection) {
        // Nothing has been done for it (RFC 9113 section 8.7), and the client may ask again.
        respond.borrow_mut().send_reset(Reason::REFUSED_STREAM);
        return Fate::Unserved;
    }
    let (parts, receive) = request.into_parts();
    let ends_here = receive.is_end_stream();
    let to_head = parts.method == http::Method::HEAD;
    let response = match convert::request_head(parts, ends_here, &(&limits).into()) {
        Err(refusal) => pipeline::refuse(refusal, &connection, &worker),
        Ok((head, length)) => {
            let tunnel = head.upgrade.is_some();
            let body = match length {
                BodyLength::Absent => Body::Empty,
                BodyLength::Exact(_) if ends_here => Body::Full(Bytes::new()),
                _ => {
                    let owes_continue = head.expects_continue.then(|| respond.clone());
                    let waits = head.expects_continue || !matches!(length, BodyLength::Exact(_));
                    let mut receive = ReceiveBody::new(receive, length, owes_continue, tunnel);
                    if !waits && !tunnel && receive.arrive(limits.header).await.is_err() {
                        // `h2` has reset the stream (RFC 9113 section 8.1.1); this is for the log.
                        drop(pipeline::refuse(BAD_FRAMING, &connection, &worker));
                        return Fate::Unserved;
                    }
                    Body::stream(receive)
                }
            };
            match serve(Request { head, body, tunnel }, &connection, &worker, &respond).await {
                Ok(response) => response,
                Err(fate) => return fate,
            }
        }
    };
    match send_response(response, &respond, to_head, &connection, &worker, &limits, outbox).await {
        Completion::ClientGone => Fate::Abandoned,
        _ => Fate::Answered,
    }
}

/// Whether the client has introduced itself with windows into which next to nothing fits: each of its responses would hold a
/// connection to an origin until the client opens them one by one.
fn has_tiny_windows(connection: &Connection) -> bool {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let settings = connection.preface.get().map(|preface| preface.settings.as_slice()).unwrap_or_default();
    let window = settings.iter().rev().find(|(identifier, _)| *identifier == INITIAL_WINDOW_SIZE);
    window.is_some_and(|(_, bytes)| *bytes < TINY_WINDOW)
}

/// Serves a request unless its client resets the stream first, or its connection is ending and the time is over.
async fn serve(
    request: Request,
    connection: &Rc<Connection>,
    worker: &Rc<Worker>,
    respond: &Respond,
) -> Result<Response, Fate> {
    // Reset while it waited to be read: nobody wants the answer, so no origin hears of it.
    if poll_fn(|cx| Poll::Ready(respond.borrow_mut().poll_reset(cx).is_ready())).await {
        return Err(Fate::Unserved);
    }
    let lasting = request.head.method == http::Method::POST && request.head.is_grpc();
    let (mut inform, mut cutoff) = (Informer(respond), Cutoff::default());
    let mut serving = Box::pin(pipeline::serve(request, connection, worker, &mut inform));
    let served = poll_fn(|cx| {
        if let Poll::Ready(response) = serving.as_mut().poll(cx) {
            return Poll::Ready(Ok(response));
        }
        if respond.borrow_mut().poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Fate::Abandoned));
        }
        // The connection is ending, and the time for requests is over.
        cutoff.poll(cx, &connection.listener, &connection.seat, || lasting).map(|()| Err(Fate::Answered))
    })
    .await;
    if let Err(Fate::Answered) = served {
        respond.borrow_mut().send_reset(Reason::CANCEL);
        worker.cut(serving);
    }
    served
}

/// Sends interim responses on a stream.
struct Informer<'a>(&'a Respond);

impl Inform for Informer<'_> {
    fn inform(&mut self, _: &mut Context<'_>, head: &ResponseHead) {
        // An error shows when the final response is sent.
        let interim = convert::response(head, BodyLength::Absent);
        crate::ignore(self.0.borrow_mut().send_informational(interim));
    }
}

/// Sends head and body, and tells the trail how it ended.
async fn send_response(
    response: Response,
    respond: &Respond,
    to_head: bool,
    connection: &Connection,
    worker: &Worker,
    limits: &ConnectionLimits,
    outbox: Rc<Outbox>,
) -> Completion {
    let Response { head, mut body, mut trail, .. } = response;
    let bodiless = to_head || matches!(head.status, 204 | 304);
    let length = body.length();
    let announced = if bodiless || head.status == 101 { BodyLength::Unknown } else { length };
    let announced = if announced == BodyLength::Absent { BodyLength::Exact(0) } else { announced };
    let ends_here = bodiless || matches!(length, BodyLength::Absent | BodyLength::Exact(0));
    let stream = respond.borrow_mut().send_response(convert::response(&head, announced), ends_here);
    let Ok(stream) = stream else {
        trail.finish(Completion::ClientGone, 0);
        return Completion::ClientGone;
    };
    if ends_here {
        // The exchange behind it may still have an upload to end and a connection to give back.
        trail.finish(Completion::Complete, 0);
        return Completion::Complete;
    }
    let mut send = SendBody::new(stream, announced, Some(outbox));
    let (mut pace, mut cutoff) = (None, Cutoff::default());
    let lasting = || head.status == 101 || head.is_lasting();
    let completion = poll_fn(|cx| match send.poll(cx, &mut body) {
        Poll::Ready(Ok(())) => Poll::Ready(Completion::Complete),
        Poll::Ready(Err(SendError::Sink)) => Poll::Ready(Completion::ClientGone),
        Poll::Ready(Err(SendError::Source(BodyError::TimedOut))) => Poll::Ready(Completion::TimedOut),
        Poll::Ready(Err(SendError::Source(_))) => Poll::Ready(Completion::OriginCut),
        Poll::Pending => {
            if cutoff.poll(cx, &connection.listener, &connection.seat, lasting).is_ready() {
                worker.count_cut();
                return Poll::Ready(Completion::TimedOut);
            }
            if !send.is_blocked() {
                pace::rest(&mut pace, send.sent, &connection.seat);
                return Poll::Pending;
            }
            let pace = pace.get_or_insert_with(|| Pace::new(limits.write_pace(lasting())));
            connection.seat.stall(send.sent, Instant::now());
            ready!(pace.poll(cx, send.sent, connection.sharers.get()));
            worker.shard.client_cut(ClientCut::SlowReader);
            Poll::Ready(Completion::TimedOut)
        }
    })
    .await;
    if completion == Completion::TimedOut {
        respond.borrow_mut().send_reset(Reason::CANCEL);
    }
    pace::rest(&mut pace, send.sent, &connection.seat);
    trail.finish(completion, send.sent);
    completion
}
