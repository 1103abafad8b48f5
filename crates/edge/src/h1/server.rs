//! The HTTP/1.1 server side of one connection: head, request, response, and again (RFC 9112 section 9).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use base::event::{Completion, Protocol};
use bytes::Bytes;
use snapshot::generation::ConnectionLimits;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::body::{Decoded, Decoder};
use super::encode::{self, BodyFraming, SendBody, SendError};
use super::parse::{self, Framing, HeadEnd, HeadLimits, ParsedRequest, Refusal};
use crate::connection::{Connection, Cutoff};
use crate::io::{BODY_READ, HEAD_READ, Io, Linger, ReadBuffer, Timer, WriteBuffer};
use crate::message::{Body, BodyError, BodyLength, BodySource, Fill, HeaderList, ResponseHead};
use crate::pace::{self, Pace, WritePace as _};
use crate::pipeline::{self, Inform, Request, Response};
use crate::telemetry::metrics::ClientCut;
use crate::worker::Worker;

/// A lone CR LF before a request line is skipped, as RFC 9112 section 2.2 asks; more is junk.
const LEADING_EMPTY_LINES: u32 = 1;

/// What the connection and the body of its current request share.
pub struct Link {
    io: RefCell<Io>,
    out: RefCell<WriteBuffer>,
    /// The reading side, while no body holds it.
    parked: Cell<Option<Inbound>>,
}

/// The reading side of a connection.
struct Inbound {
    input: ReadBuffer,
    decoder: Decoder,
    /// `100 Continue` is still owed before the client sends its body.
    owes_continue: bool,
}

impl From<&ConnectionLimits> for HeadLimits {
    fn from(limits: &ConnectionLimits) -> Self {
        Self { bytes: limits.header_bytes, fields: limits.header_count, target: limits.target_bytes }
    }
}

/// What waiting for a request ended with.
enum Next {
    Request(Box<ParsedRequest>),
    Refused(Refusal),
    Closed,
}

/// Serves one connection until it closes.
pub async fn run(io: Io, connection: Rc<Connection>, worker: Rc<Worker>) {
    let link = Rc::new(Link { io: RefCell::new(io), out: RefCell::default(), parked: Cell::new(None) });
    let mut input = ReadBuffer::default();
    let mut timer = Timer::default();
    loop {
        let limits = worker.generation().snapshot.limits;
        let mut wait = HeadWait::new(&limits);
        let next = poll_fn(|cx| wait.poll(cx, &link, &mut input, &mut timer, &connection)).await;
        let again = match next {
            Next::Closed => return,
            Next::Refused(refusal) => {
                if refusal.status == 408 {
                    worker.shard.client_cut(ClientCut::SlowHead);
                }
                refuse(&link, refusal, &connection, &worker, &limits).await;
                linger(&link, input).await;
                return;
            }
            Next::Request(parsed)
                if parsed.names_https
                    && let Some(refusal) = pipeline::misdirected(&connection, &worker) =>
            {
                refuse(&link, refusal, &connection, &worker, &limits).await;
                return linger(&link, input).await;
            }
            Next::Request(parsed) => exchange(*parsed, &link, input, &connection, &worker, &limits).await,
        };
        match again {
            Again::Yes(rest) => input = rest,
            Again::Linger(rest) => return linger(&link, rest).await,
            Again::No => return,
        }
        link.out.borrow_mut().rest();
    }
}

/// Answers a connection whose bytes are not HTTP/1.1 at all, and closes it.
pub async fn reject(io: Io, refusal: Refusal, connection: Rc<Connection>, worker: Rc<Worker>) {
    let link = Rc::new(Link { io: RefCell::new(io), out: RefCell::default(), parked: Cell::new(None) });
    let limits = worker.generation().snapshot.limits;
    refuse(&link, refusal, &connection, &worker, &limits).await;
    linger(&link, ReadBuffer::default()).await;
}

/// Waiting for a complete head: idle at first, then against the header deadline from its first byte on.
struct HeadWait<'a> {
    limits: &'a ConnectionLimits,
    /// Since when it waits; asked of the clock only once it has to wait.
    since: Option<Instant>,
    begun: bool,
    scanned: usize,
    empty_lines: u32,
}

impl<'a> HeadWait<'a> {
    fn new(limits: &'a ConnectionLimits) -> Self {
        Self { limits, since: None, begun: false, scanned: 0, empty_lines: 0 }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        link: &Link,
        input: &mut ReadBuffer,
        timer: &mut Timer,
        connection: &Connection,
    ) -> Poll<Next> {
        loop {
            while input.bytes().starts_with(b"\r\n") && self.empty_lines < LEADING_EMPTY_LINES {
                self.empty_lines += 1;
                input.consume(2);
            }
            if !input.is_empty() {
                if !self.begun {
                    (self.begun, self.since) = (true, None);
                }
                if let Some(next) = self.parse(input) {
                    return Poll::Ready(next);
                }
            }
            match input.poll_read(cx, &mut *link.io.borrow_mut(), HEAD_READ) {
                Poll::Ready(Ok(0)) if self.begun => {
                    return Poll::Ready(Next::Refused(Refusal { status: 400, reason: "bad_request" }));
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Closed),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        // Another connection needs the room, and there has not been a request here that the client could be waiting for.
        if connection.requests.get() == 0 && connection.seat.left().is_some() {
            return Poll::Ready(Next::Closed);
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let deadline = if self.begun {
            if connection.requests.get() > 0 {
                connection.seat.busy();
            }
            since + self.limits.header
        } else {
            connection.seat.idle(since);
            connection.idle_until(since + self.limits.keep_alive)
        };
        if timer.poll(cx, deadline).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(if self.begun {
            Next::Refused(Refusal { status: 408, reason: "request_timeout" })
        } else {
            Next::Closed
        })
    }

    /// Parses the head once it is all there.
    fn parse(&mut self, input: &mut ReadBuffer) -> Option<Next> {
        let bytes = input.bytes();
        let too_large = Refusal { status: 431, reason: "headers_too_large" };
        let refusal = match parse::find_head_end(bytes, self.scanned) {
            HeadEnd::BadLineEnd => Refusal { status: 400, reason: "bad_header" },
            HeadEnd::Incomplete if bytes.len() < self.limits.header_bytes => {
                self.scanned = bytes.len();
                // A first byte that no method begins with will not get better by waiting (a TLS record, a NUL). A lone CR
                // may be half of the empty line that is overlooked above.
                let may_begin = bytes == b"\r" && self.empty_lines < LEADING_EMPTY_LINES;
                if !may_begin && !bytes.first().is_some_and(|byte| super::syntax::is_token(&[*byte])) {
                    return Some(Next::Refused(Refusal { status: 400, reason: "bad_request" }));
                }
                return None;
            }
            HeadEnd::Incomplete => match memchr::memchr(b'\n', bytes) {
                None => Refusal { status: 414, reason: "target_too_long" },
                Some(_) => too_large,
            },
            HeadEnd::At(end) if end > self.limits.header_bytes => too_large,
            HeadEnd::At(end) => {
                let parsed = parse::parse_request(bytes.get(..end).unwrap_or_default(), &self.limits.into());
                input.consume(end);
                match parsed {
                    Ok(parsed) => return Some(Next::Request(Box::new(parsed))),
                    Err(refusal) => refusal,
                }
            }
        };
        Some(Next::Refused(refusal))
    }
}

/// What to do after an exchange.
enum Again {
    /// Wait for the next request; these bytes have already come.
    Yes(ReadBuffer),
    /// Close, but let the client read the answer first.
    Linger(ReadBuffer),
    /// Close.
    No,
}

/// One request and its response.
async fn exchange(
    parsed: ParsedRequest,
    link: &Rc<Link>,
    input: ReadBuffer,
    connection: &Rc<Connection>,
    worker: &Rc<Worker>,
    limits: &ConnectionLimits,
) -> Again {
    let ParsedRequest { mut head, framing, keep_alive, .. } = parsed;
    if !matches!(framing, Framing::None | Framing::Length(0)) {
        head.upgrade = None;
    }
    connection.seat.busy();
    let tunnel = head.upgrade.is_some();
    let http10 = head.protocol == Protocol::Http10;
    let to_head = head.method == http::Method::HEAD;
    // A tunnel's upload is everything that follows, but only once the origin has agreed (101).
    let decoder = Decoder::new(if tunnel { Framing::Close } else { framing }, limits.into());
    let inbound = Inbound { input, decoder, owes_continue: head.expects_continue };
    let body = if inbound.decoder.is_done() {
        let length = inbound.decoder.length();
        link.parked.set(Some(inbound));
        if length == BodyLength::Absent { Body::Empty } else { Body::Full(Bytes::new()) }
    } else {
        Body::stream(RequestBody::new(link.clone(), inbound))
    };

    let mut inform = Informer { link, muted: http10 };
    let request = Request { head, body, tunnel };
    // Boxed, so that an idle connection does not carry the memory of a whole request.
    let serving = Box::pin(pipeline::serve(request, connection, worker, &mut inform));
    let Some(response) = until_cutoff(serving, link, connection, worker).await else { return Again::No };

    let upgraded = tunnel && response.head.status == 101;
    let keep = keep_alive && !upgraded && !response.close && !connection.is_draining();
    let body_read = tunnel
        || link.parked.take().is_some_and(|inbound| {
            let done = inbound.decoder.is_done();
            link.parked.set(Some(inbound));
            done
        });
    let parting = !keep_alive && body_read && !upgraded;
    let reply = Reply { to_head, http10, keep: keep && body_read, upgraded, parting };
    let sent = send_response(response, link, reply, connection, worker, limits).await;

    let Some(Inbound { input, decoder, .. }) = link.parked.take() else { return Again::No };
    match sent {
        Sent::Reusable if tunnel || decoder.is_done() => Again::Yes(input),
        // Who asked for the close has nothing more to say, and so there is nothing to linger for.
        Sent::Close
            if parting
                && input.is_empty()
                && poll_fn(|cx| Poll::Ready(link.io.borrow_mut().poll_goodbye(cx))).await =>
        {
            Again::No
        }
        Sent::Reusable | Sent::Close => Again::Linger(input),
        Sent::Broken => Again::No,
    }
}

/// Serves a request unless its client leaves, or its connection is ending and the time for requests is over.
async fn until_cutoff(
    mut serving: Pin<Box<impl Future<Output = Response>>>,
    link: &Link,
    connection: &Connection,
    worker: &Worker,
) -> Option<Response> {
    let mut cutoff = Cutoff::default();
    let (mut late, mut departure) = (false, Departure::default());
    let response = poll_fn(|cx| {
        if let Poll::Ready(response) = serving.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        late = cutoff.poll(cx, &connection.listener, &connection.seat, || false).is_ready();
        if late || departure.poll(cx, link).is_ready() { Poll::Ready(None) } else { Poll::Pending }
    })
    .await;
    if late {
        worker.cut(serving);
    }
    response
}

/// Notices a client that leaves before it has its answer, and ends its side only as one that leaves: nginx takes it the same
/// way. What it sends meanwhile is kept for later, so much of it as a head may be; with more, it is not looked for any longer.
#[derive(Default)]
struct Departure {
    blind: bool,
}

impl Departure {
    /// Ready when it has left. Asks the kernel for nothing unless the runtime has heard of something.
    fn poll(&mut self, cx: &mut Context<'_>, link: &Link) -> Poll<()> {
        // While a body holds the reading side, whoever reads the body finds out.
        let Some(mut inbound) = link.parked.take().filter(|_| !self.blind) else { return Poll::Pending };
        let gone = loop {
            if inbound.input.bytes().len() >= HEAD_READ {
                self.blind = true;
                break Poll::Pending;
            }
            match inbound.input.poll_read(cx, &mut *link.io.borrow_mut(), HEAD_READ) {
                Poll::Ready(Ok(0) | Err(_)) => break Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break Poll::Pending,
            }
        };
        link.parked.set(Some(inbound));
        gone
    }
}

/// What the response must look like on this connection.
struct Reply {
    to_head: bool,
    http10: bool,
    keep: bool,
    upgraded: bool,
    /// The client has asked for the connection to end after this.
    parting: bool,
}

enum Sent {
    Reusable,
    Close,
    Broken,
}

/// Writes head and body, and tells the trail how it ended.
async fn send_response(
    response: Response,
    link: &Rc<Link>,
    reply: Reply,
    connection: &Connection,
    worker: &Worker,
    limits: &ConnectionLimits,
) -> Sent {
    let Response { head, mut body, mut trail, .. } = response;
    let bodiless = reply.to_head || matches!(head.status, 204 | 304);
    let framing = match body.length() {
        _ if reply.upgraded => BodyFraming::Raw,
        _ if bodiless => BodyFraming::None,
        BodyLength::Unknown if reply.http10 => BodyFraming::Raw,
        BodyLength::Absent => BodyFraming::Length(0),
        length => SendBody::framing_of(length),
    };
    let keep = reply.keep && framing != BodyFraming::Raw;
    let offers_upgrade = head.status == 426 && head.headers.contains(b"upgrade");
    let option = match (reply.upgraded, keep) {
        (true, _) => "Upgrade",
        (false, true) if reply.http10 => "keep-alive",
        (false, true) if offers_upgrade => "Upgrade",
        (false, true) => "",
        (false, false) if offers_upgrade => "close, Upgrade",
        (false, false) => "close",
    };
    encode::response_head(link.out.borrow_mut().tail(), &head, framing, option);

    let mut send = if reply.parting { SendBody::last(framing) } else { SendBody::new(framing) };
    let (mut pace, mut cutoff, mut departure) = (None, Cutoff::default(), Departure::default());
    let outcome = poll_fn(|cx| {
        let mut out = link.out.borrow_mut();
        match send.poll(cx, &mut body, &mut out, &link.io) {
            Poll::Ready(Ok(())) => Poll::Ready(Completion::Complete),
            Poll::Ready(Err(SendError::Sink(_))) => Poll::Ready(Completion::ClientGone),
            Poll::Ready(Err(SendError::Source(BodyError::TimedOut))) => Poll::Ready(Completion::TimedOut),
            Poll::Ready(Err(_)) => Poll::Ready(Completion::OriginCut),
            Poll::Pending => {
                let lasting = || reply.upgraded || head.is_lasting();
                if cutoff.poll(cx, &connection.listener, &connection.seat, lasting).is_ready() {
                    worker.count_cut();
                    return Poll::Ready(Completion::TimedOut);
                }
                // Only the client is timed here, and only while it does not take what is ready for it.
                let taken = send.sent.saturating_sub(out.pending() as u64);
                if !send.is_blocked(&out) {
                    pace::rest(&mut pace, taken, &connection.seat);
                    drop(out);
                    return departure.poll(cx, link).map(|()| Completion::ClientGone);
                }
                let pace = pace.get_or_insert_with(|| Pace::new(limits.write_pace(lasting())));
                connection.seat.stall(taken, Instant::now());
                ready!(pace.poll(cx, taken, 1));
                worker.shard.client_cut(ClientCut::SlowReader);
                Poll::Ready(Completion::TimedOut)
            }
        }
    })
    .await;
    pace::rest(&mut pace, send.sent, &connection.seat);
    trail.finish(outcome, send.sent);
    if outcome == Completion::OriginCut {
        // What came before the cut is the client's; how much of it the kernel takes now will do.
        let flush = |cx: &mut Context<'_>| {
            Poll::Ready(link.out.borrow_mut().poll_flush(cx, &mut link.io.borrow_mut()))
        };
        crate::ignore(poll_fn(flush).await);
    }
    if reply.upgraded && outcome == Completion::Complete {
        // The client learns of the origin's end; whether it hears us is its own business.
        crate::ignore(poll_fn(|cx| Pin::new(&mut *link.io.borrow_mut()).poll_shutdown(cx)).await);
    }
    // The body gives the reading side back when it goes.
    drop(body);
    match outcome {
        Completion::Complete if keep => Sent::Reusable,
        Completion::Complete => Sent::Close,
        _ => Sent::Broken,
    }
}

/// Answers a request that could not be read.
async fn refuse(
    link: &Rc<Link>,
    refusal: Refusal,
    connection: &Rc<Connection>,
    worker: &Rc<Worker>,
    limits: &ConnectionLimits,
) {
    let response = pipeline::refuse(refusal, connection, worker);
    let reply = Reply { to_head: false, http10: false, keep: false, upgraded: false, parting: false };
    // Closed either way.
    crate::ignore(send_response(response, link, reply, connection, worker, limits).await);
}

/// Ends our side and reads on for a moment: a close with unread bytes would reset the answer away.
async fn linger(link: &Rc<Link>, input: ReadBuffer) {
    drop(input);
    let mut linger = Linger::default();
    poll_fn(|cx| linger.poll(cx, &mut link.io.borrow_mut())).await;
}

/// Sends interim responses on an HTTP/1.1 connection.
struct Informer<'a> {
    link: &'a Rc<Link>,
    /// RFC 9110 section 15.2: an HTTP/1.0 client must not get them.
    muted: bool,
}

impl Inform for Informer<'_> {
    fn inform(&mut self, cx: &mut Context<'_>, head: &ResponseHead) {
        if self.muted {
            return;
        }
        let mut out = self.link.out.borrow_mut();
        encode::response_head(out.tail(), head, BodyFraming::None, "");
        // An error shows when the final response is written.
        crate::ignore(out.poll_flush(cx, &mut self.link.io.borrow_mut()));
    }
}

/// The body of the request being served: reads from the connection when asked, and gives it back when dropped.
struct RequestBody {
    link: Rc<Link>,
    inbound: Option<Inbound>,
    available: usize,
}

impl RequestBody {
    fn new(link: Rc<Link>, inbound: Inbound) -> Self {
        Self { link, inbound: Some(inbound), available: 0 }
    }
}

impl BodySource for RequestBody {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        let Some(inbound) = &mut self.inbound else { return Poll::Ready(Err(BodyError::Cut)) };
        loop {
            match inbound.decoder.poll(&mut inbound.input)? {
                Decoded::Data(count) => {
                    self.available = count;
                    return Poll::Ready(Ok(Fill::Data));
                }
                Decoded::End => return Poll::Ready(Ok(Fill::End)),
                Decoded::More => {}
            }
            // While the final response is being written the buffer is taken, and an interim one would come too late.
            if inbound.owes_continue
                && let Ok(mut out) = self.link.out.try_borrow_mut()
            {
                inbound.owes_continue = false;
                encode::response_head(out.tail(), &ResponseHead::new(100), BodyFraming::None, "");
                crate::ignore(out.poll_flush(cx, &mut self.link.io.borrow_mut()));
            }
            match inbound.input.poll_read(cx, &mut *self.link.io.borrow_mut(), BODY_READ) {
                Poll::Ready(Ok(0) | Err(_)) => inbound.decoder.end_of_stream()?,
                Poll::Ready(Ok(_)) => inbound.owes_continue = false,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn chunk(&self) -> &[u8] {
        let bytes = self.inbound.as_ref().map(|inbound| inbound.input.bytes()).unwrap_or_default();
        bytes.get(..self.available).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.available);
        self.available -= count;
        if let Some(inbound) = &mut self.inbound {
            inbound.input.consume(count);
            inbound.decoder.consumed(count);
        }
    }

    fn trailers(&mut self) -> Option<HeaderList> {
        self.inbound.as_mut()?.decoder.take_trailers()
    }

    fn length(&self) -> BodyLength {
        self.inbound.as_ref().map_or(BodyLength::Absent, |inbound| inbound.decoder.length())
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.link.parked.set(self.inbound.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn half_an_empty_line_in_front_of_a_request_is_waited_with() {
        let limits = snapshot::defaults(&[]).limits;
        for (bytes, waits) in
            [(&b"\r"[..], true), (b"GET", true), (b"\rG", false), (b"\0", false), (b"\x16\x03", false)]
        {
            let (mut input, mut piece) = (ReadBuffer::default(), bytes);
            let read = input.poll_read(&mut Context::from_waker(Waker::noop()), &mut piece, HEAD_READ);
            assert!(read.is_ready());
            let refused = HeadWait::new(&limits).parse(&mut input).is_some();
            assert_eq!(refused, !waits, "{bytes:?}");
        }
    }
}
