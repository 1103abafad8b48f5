//! What both protocols have in common: heads, and bodies that are read by whoever writes them on.

use std::task::{Context, Poll};

use base::event::Protocol;
pub use base::headers::HeaderList;
use bytes::Bytes;

use crate::splice::Pipe;

/// A request head as the edge understood it. What is forwarded is written from this, never from the raw bytes.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Any token (RFC 9110 section 9.1).
    pub method: http::Method,
    /// `host[:port]` the request is for, from the target or `Host`; empty when HTTP/1.0 named none.
    pub authority: String,
    /// Path and query in origin form, or `*` (RFC 9112 section 3.2); visible ASCII.
    pub target: String,
    /// Protocol it came in on.
    pub protocol: Protocol,
    /// Fields without `Host` and without framing fields.
    pub headers: HeaderList,
    /// Protocol asked for by `Upgrade` or by extended CONNECT (RFC 8441), such as `websocket`.
    pub upgrade: Option<Box<str>>,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether the client said it accepts trailers (`TE: trailers`).
    pub accepts_trailers: bool,
}

impl RequestHead {
    /// Whether this is a gRPC call, whose two bodies may be silent for long while the call goes on.
    pub fn is_grpc(&self) -> bool {
        self.headers.get(b"content-type").is_some_and(|kind| kind.starts_with(GRPC))
    }
}

/// How the media types of gRPC begin: `application/grpc`, `application/grpc+proto`.
const GRPC: &[u8] = b"application/grpc";
/// Server-sent events (HTML Living Standard section 9.2).
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// A response head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// 200..=599, or 101 for an upgraded connection.
    pub status: u16,
    /// Reason phrase as the origin sent it; `None` means the usual one.
    pub reason: Option<Box<[u8]>>,
    /// Fields without framing fields.
    pub headers: HeaderList,
}

impl ResponseHead {
    /// A head without fields.
    pub fn new(status: u16) -> Self {
        Self { status, reason: None, headers: HeaderList::default() }
    }

    /// Whether the body goes on for as long as client and origin like, by what it is: events, or a gRPC call.
    pub fn is_lasting(&self) -> bool {
        self.headers.get(b"content-type").is_some_and(|kind| {
            let begins =
                |name: &[u8]| kind.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
            begins(GRPC) || begins(EVENT_STREAM)
        })
    }
}

/// How long a body is, as far as the head tells (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none: no length was announced and nothing follows.
    Absent,
    /// Exactly so many bytes.
    Exact(u64),
    /// Known at its end only.
    Unknown,
}

/// Why a body could not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The sender went away before the end.
    #[error("the sender closed before the body was complete")]
    Cut,
    /// The framing was wrong.
    #[error("the body's framing is malformed")]
    Framing,
    /// No byte came for too long.
    #[error("the body stalled")]
    TimedOut,
    /// More bytes than the limit allows.
    #[error("the body is larger than allowed")]
    TooLarge,
}

/// What `poll_fill` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// `chunk` is not empty.
    Data,
    /// The body has ended; trailers can be taken.
    End,
}

/// A body that is read in place: fill, look at `chunk`, consume. Back-pressure is not calling `poll_fill`.
pub trait BodySource {
    /// Makes `chunk` non-empty, or tells the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>>;
    /// Bytes at hand.
    fn chunk(&self) -> &[u8];
    /// Gives back the first `count` bytes of `chunk`.
    fn consume(&mut self, count: usize);
    /// At most `limit` bytes at hand as an owned piece; the default copies.
    fn take(&mut self, limit: usize) -> Bytes {
        let chunk = self.chunk();
        let piece = Bytes::copy_from_slice(chunk.get(..limit).unwrap_or(chunk));
        self.consume(piece.len());
        piece
    }
    /// Whether much is still to come, from a plain socket, and none of it is at hand: then `poll_splice` is the way.
    fn is_spliceable(&self) -> bool {
        false
    }
    /// Puts content straight into an empty pipe. `None` where `is_spliceable` is not so.
    fn poll_splice(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Option<Poll<Result<(), BodyError>>> {
        let _only_plain_sockets_can = (cx, pipe);
        None
    }
    /// Trailer fields, once, after `Fill::End`.
    fn trailers(&mut self) -> Option<HeaderList> {
        None
    }
    /// How long it is.
    fn length(&self) -> BodyLength;
    /// Moves on whatever this body depends on (the upload behind a response) while its reader cannot take more.
    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        let _nothing_behind_it = cx;
    }
}

/// Pieces of a body moved on in one go. A body of tiny chunks would otherwise keep a thread from its other connections for as
/// long as there is something to read.
pub const PIECES_IN_ONE_GO: u32 = 256;

/// A message body.
#[derive(Default)]
pub enum Body {
    /// No body.
    #[default]
    Empty,
    /// All of it at hand.
    Full(Bytes),
    /// Streamed.
    Stream(Box<dyn BodySource>),
}

impl Body {
    /// Wraps a source.
    pub fn stream(source: impl BodySource + 'static) -> Self {
        Self::Stream(Box::new(source))
    }

    /// See `BodySource::poll_fill`.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        match self {
            Self::Empty => Poll::Ready(Ok(Fill::End)),
            Self::Full(bytes) => Poll::Ready(Ok(if bytes.is_empty() { Fill::End } else { Fill::Data })),
            Self::Stream(source) => source.poll_fill(cx),
        }
    }

    /// See `BodySource::chunk`.
    pub fn chunk(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Full(bytes) => bytes,
            Self::Stream(source) => source.chunk(),
        }
    }

    /// See `BodySource::consume`.
    pub fn consume(&mut self, count: usize) {
        match self {
            Self::Empty => {}
            Self::Full(bytes) => drop(bytes.split_to(count.min(bytes.len()))),
            Self::Stream(source) => source.consume(count),
        }
    }

    /// See `BodySource::take`.
    pub fn take(&mut self, limit: usize) -> Bytes {
        match self {
            Self::Empty => Bytes::new(),
            Self::Full(bytes) => bytes.split_to(limit.min(bytes.len())),
            Self::Stream(source) => source.take(limit),
        }
    }

    /// See `BodySource::poll_splice`.
    pub fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Option<Poll<Result<(), BodyError>>> {
        if let Self::Stream(source) = self { source.poll_splice(cx, pipe) } else { None }
    }

    /// Whether `poll_splice` is worth a try: so much is still to come that is not at hand.
    pub fn is_spliceable(&self) -> bool {
        if let Self::Stream(source) = self { source.is_spliceable() } else { false }
    }

    /// See `BodySource::trailers`.
    pub fn trailers(&mut self) -> Option<HeaderList> {
        match self {
            Self::Stream(source) => source.trailers(),
            _ => None,
        }
    }

    /// See `BodySource::length`.
    pub fn length(&self) -> BodyLength {
        match self {
            Self::Empty => BodyLength::Absent,
            Self::Full(bytes) => BodyLength::Exact(bytes.len() as u64),
            Self::Stream(source) => source.length(),
        }
    }

    /// See `BodySource::poll_progress`.
    pub fn poll_progress(&mut self, cx: &mut Context<'_>) {
        if let Self::Stream(source) = self {
            source.poll_progress(cx);
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({:?})", self.length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_grpc_calls_last() {
        for (kind, expected) in [
            (&b"text/event-stream"[..], true),
            (b"Text/Event-Stream; charset=utf-8", true),
            (b"application/grpc+proto", true),
            (b"text/html", false),
            (b"text/event", false),
            (b"", false),
        ] {
            let mut head = ResponseHead::new(200);
            head.headers.push("Content-Type", kind);
            assert_eq!(head.is_lasting(), expected, "{}", String::from_utf8_lossy(kind));
        }
        assert!(!ResponseHead::new(200).is_lasting());
    }

    #[test]
    fn a_full_body_is_taken_in_pieces() {
        let mut body = Body::Full(Bytes::from_static(b"abcdef"));
        assert_eq!(body.take(4), "abcd");
        body.consume(1);
        assert_eq!(body.chunk(), b"f");
        assert_eq!(body.length(), BodyLength::Exact(1));
    }
}
