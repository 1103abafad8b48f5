//! The schema of events: one `RequestEvent` per request, made when its body has ended, versioned by `VERSION`.

pub mod wire;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::id::RequestId;
use crate::time::Timestamp;

/// Version of this schema; written into every log line. A field may be added within a version, never change meaning.
pub const VERSION: u8 = 1;
/// Verdicts kept of one request; a request passes fewer modules than this.
pub const MAX_VERDICTS: usize = 16;

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

/// Version of TLS between client and edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl TlsVersion {
    /// The name used in logs and rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}

/// Fingerprint of a ClientHello: JA4 by FoxIO's specification, `t13d1516h2_8daaf6152771_e5627efa2ab1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ja4([u8; Ja4::BYTES]);

impl Ja4 {
    /// Characters of a fingerprint.
    pub const BYTES: usize = 36;

    /// From its text: 36 printable ASCII characters, else `None`.
    pub fn new(text: &str) -> Option<Self> {
        let bytes = <[u8; Self::BYTES]>::try_from(text.as_bytes()).ok()?;
        bytes.iter().all(u8::is_ascii_graphic).then_some(Self(bytes))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Debug for Ja4 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one module said of a request. Names are stable: they are metric labels too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Noted {
    /// The module.
    pub module: &'static str,
    /// What it said: `pass`, `block`, `log`, `unknown` and the like.
    pub outcome: &'static str,
    /// Why: a name of the module's, or the id of a rule.
    pub reason: Cow<'static, str>,
}

/// What modules said of a request, in order; modules that had nothing to say are not in it. Empty, it holds no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts(Vec<Noted>);

impl Verdicts {
    /// One more. Beyond `MAX_VERDICTS` it is not kept, and false comes back.
    pub fn note(&mut self, noted: Noted) -> bool {
        let room = self.0.len() < MAX_VERDICTS;
        if room {
            self.0.push(noted);
        }
        room
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Noted] {
        &self.0
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
    /// With which version of TLS; `None` on a plain connection.
    pub tls_version: Option<TlsVersion>,
    /// Fingerprint of the connection's ClientHello; `None` on a plain connection, or when the ClientHello could not be read.
    pub ja4: Option<Ja4>,
    /// How an HTTP/2 client introduced itself: SETTINGS, WINDOW_UPDATE, number of PRIORITY frames and order of the
    /// pseudo-header fields, as `1:65536;4:131072|12517377|0|m,p,a,s`.
    pub introduction: Option<Arc<str>>,
    /// Method as sent, at most 32 bytes.
    pub method: Cow<'static, str>,
    /// Host the request named, empty if none.
    pub host: Box<str>,
    /// Path and query as sent.
    pub target: Box<str>,
    /// Name of the site that served it, or `None` when no site has that host.
    pub site: Option<Arc<str>>,
    /// Number of the generation it was served by.
    pub generation: u64,
    /// What modules said of it.
    pub verdicts: Verdicts,
    /// Fields that rules want logged, with their values: `request.x-session`, `cookie.theme`.
    pub fields: Vec<(Box<str>, Box<str>)>,
    /// Status sent to the client; 0 when the client left before there was one.
    pub status: u16,
    /// Set when the edge made the response itself because something failed: whose fault it was.
    pub fault: Option<Fault>,
    /// Stable name of that failure, such as `origin_connect_refused`.
    pub reason: Option<&'static str>,
    /// The origin that answered, as configured (`http://host:port`).
    pub origin: Option<Arc<str>>,
    /// Protocol that origin answered in.
    pub origin_protocol: Option<Protocol>,
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
    /// How many requests this event stands for; the access log and the metrics have every one, with 1.
    pub weight: u32,
}
