//! The schema of events: one `RequestEvent` per request, made when its body has ended, versioned by `VERSION`.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::id::RequestId;
use crate::time::Timestamp;

/// Version of this schema; written into every log line. A field may be added within a version, never change meaning.
pub const VERSION: u8 = 1;

/// Protocol a request came in on, or went to the origin on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 (RFC 1945), answered as HTTP/1.1 with `Connection: close` semantics.
    Http10,
    /// HTTP/1.1 (RFC 9112).
    Http11,
    /// HTTP/2 (RFC 9113).
    Http2,
}

impl Protocol {
    /// The name used in logs, metrics and `/.rempart/trace`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http10 => "http/1.0",
            Self::Http11 => "http/1.1",
            Self::Http2 => "h2",
        }
    }
}

/// Who caused a response that the edge itself made. Error pages and metrics name the same three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request was malformed, too large, too slow or for nobody here.
    Visitor,
    /// Rempart could not do its part.
    Edge,
    /// The origin did not answer, or answered something that cannot be passed on.
    Origin,
}

impl Fault {
    /// The name used in logs, metrics and pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Visitor => "visitor",
            Self::Edge => "edge",
            Self::Origin => "origin",
        }
    }
}

/// How the exchange ended, seen from the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Completion {
    /// The whole response was handed to the client's connection.
    Complete,
    /// The client went away or reset the stream first.
    ClientGone,
    /// The origin failed after the response had begun, so the client saw a cut body.
    OriginCut,
    /// A time limit of the edge ended it.
    TimedOut,
}

impl Completion {
    /// The name used in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::OriginCut => "origin_cut",
            Self::TimedOut => "timed_out",
        }
    }
}

/// One request, told when its response body has ended (or could not go on).
///
/// Byte counts are of bodies, without framing. Durations are measured monotonically, in microseconds.
#[derive(Clone, Debug)]
pub struct RequestEvent {
    /// The request's id, which is also the receipt shown on error pages.
    pub id: RequestId,
    /// When the request head was complete.
    pub at: Timestamp,
    /// The address the request is attributed to (after trusted proxies), in full; the log truncates it.
    pub client: IpAddr,
    /// Protocol between client and edge.
    pub protocol: Protocol,
    /// Whether that connection is encrypted.
    pub tls: bool,
    /// Method as sent, at most 32 bytes.
    pub method: Cow<'static, str>,
    /// Host the request named, empty if none.
    pub host: Box<str>,
    /// Path and query as sent.
    pub target: Box<str>,
    /// Name of the site that served it, or `None` when no site has that host.
    pub site: Option<Arc<str>>,
    /// Status sent to the client; 0 when the client left before there was one.
    pub status: u16,
    /// Set when the edge made the response itself because something failed: whose fault it was.
    pub fault: Option<Fault>,
    /// Stable name of that failure, such as `origin_connect_refused`.
    pub reason: Option<&'static str>,
    /// The origin that answered, as configured (`http://host:port`).
    pub origin: Option<Arc<str>>,
    /// Attempts made at origins: 0 when none was asked, 2 when the first was retried.
    pub attempts: u8,
    /// Request body bytes received.
    pub bytes_in: u64,
    /// Response body bytes sent.
    pub bytes_out: u64,
    /// From the complete request head to the first byte of the response head from the origin.
    pub origin_wait_us: Option<u64>,
    /// From the complete request head to the end of the response body.
    pub duration_us: u64,
    /// How it ended.
    pub completion: Completion,
    /// User-Agent as sent, cut at 256 bytes.
    pub user_agent: Option<Box<str>>,
    /// Referer as sent, cut at 256 bytes, without its query.
    pub referer: Option<Box<str>>,
    /// How many requests this event stands for; 1 until sampling exists.
    pub weight: u32,
}
