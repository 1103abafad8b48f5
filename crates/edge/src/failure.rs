//! Every failure the edge can answer, and the one place where its status is decided.

use base::event::Fault;
use snapshot::generation::Compatibility;

use crate::h1::parse::Refusal;

/// Name of `Failure::Loop`.
const LOOP: &str = "loop_detected";

/// Name of `Failure::Overloaded`.
const OVERLOADED: &str = "edge_overloaded";

/// Whether a failure the edge answered could mean that this process is not working as it should: its own fault, or an origin
/// that could not be asked. Not what any visitor can bring about, such as a bad request or a request in a loop.
pub fn speaks_against_us(fault: Fault, reason: &str) -> bool {
    match fault {
        Fault::Visitor => false,
        Fault::Edge => reason != LOOP && reason != OVERLOADED,
        Fault::Origin => true,
    }
}

/// Why the edge answers a request itself instead of passing an origin's answer on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The request cannot be served as it came.
    Refused(Refusal),
    /// No site has this host.
    UnknownHost,
    /// No generation could be used; compiled-in defaults are in force.
    NoConfiguration,
    /// The site asks for a certificate of the visitor, who cannot show one over plain HTTP.
    ClientCertificate,
    /// The site asks for a certificate of the visitor, and this connection was made without.
    ClientCertificateElsewhere,
    /// The request has been through this Rempart before (RFC 8586).
    Loop,
    /// The body is larger than the site takes.
    BodyTooLarge,
    /// The body came too slowly.
    BodyTimeout,
    /// The body's framing broke half-way.
    BodyFraming,
    /// The client left before its request was complete.
    ClientGone,
    /// The origin's name does not resolve.
    OriginName,
    /// Nobody listens there.
    OriginRefused,
    /// No route, or the like.
    OriginUnreachable,
    /// The connection could not be made in time.
    OriginConnectTimeout,
    /// As many connections as may be are in use, and the request has waited its time, or could not even wait.
    OriginBusy,
    /// The TLS handshake failed.
    OriginTls,
    /// The origin's certificate is not trusted.
    OriginCertificate,
    /// The origin closed before it answered.
    OriginClosed,
    /// The origin's answer cannot be passed on.
    OriginBadResponse,
    /// The origin did not answer in time.
    OriginTimeout,
    /// The client's network is banned for a while.
    Banned,
    /// A module has something against the request: the status, a 4xx, and the name of the reason.
    Blocked(u16, &'static str),
    /// The process is short of memory or file descriptors.
    Overloaded,
    /// Something went wrong inside the edge.
    Internal,
}

/// What a failure looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Status sent.
    pub status: u16,
    /// Who is at fault.
    pub fault: Fault,
    /// Stable name, as in `pages`, logs and metrics.
    pub reason: &'static str,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u32>,
}

impl Failure {
    /// Status, fault and name. With Cloudflare compatibility the origin's failures get their 52x codes.
    pub fn verdict(self, compatibility: Compatibility) -> Verdict {
        use Fault::{Edge, Origin, Visitor};
        let (status, cloudflare, fault, reason, retry_after) = match self {
            Self::Refused(Refusal { status, reason }) => (status, status, Visitor, reason, None),
            Self::UnknownHost => (421, 421, Visitor, "unknown_host", None),
            Self::NoConfiguration => (503, 503, Edge, "no_configuration", Some(30)),
            Self::ClientCertificate => (403, 403, Visitor, "client_certificate_required", None),
            Self::ClientCertificateElsewhere => (421, 421, Visitor, "client_certificate_required", None),
            Self::Banned => (403, 403, Visitor, "banned", None),
            Self::Blocked(status, reason) => (status, status, Visitor, reason, None),
            Self::Loop => (508, 508, Edge, LOOP, None),
            Self::BodyTooLarge => (413, 413, Visitor, "body_too_large", None),
            Self::BodyTimeout => (408, 408, Visitor, "request_timeout", None),
            Self::BodyFraming => (400, 400, Visitor, "bad_framing", None),
            Self::ClientGone => (400, 400, Visitor, "bad_request", None),
            Self::OriginName => (502, 530, Origin, "origin_dns", Some(30)),
            Self::OriginRefused => (502, 521, Origin, "origin_connect_refused", Some(10)),
            Self::OriginUnreachable => (502, 523, Origin, "origin_connect_failed", Some(30)),
            Self::OriginConnectTimeout => (504, 522, Origin, "origin_connect_timeout", Some(30)),
            Self::OriginBusy => (503, 503, Origin, "origin_busy", Some(5)),
            Self::OriginTls => (502, 525, Origin, "origin_tls", Some(60)),
            Self::OriginCertificate => (502, 526, Origin, "origin_certificate", Some(60)),
            Self::OriginClosed => (502, 520, Origin, "origin_closed", Some(5)),
            Self::OriginBadResponse => (502, 520, Origin, "origin_bad_response", None),
            Self::OriginTimeout => (504, 524, Origin, "origin_timeout", Some(30)),
            Self::Overloaded => (503, 503, Edge, OVERLOADED, Some(5)),
            Self::Internal => (500, 500, Edge, "edge_internal", Some(5)),
        };
        let status = if compatibility == Compatibility::Cloudflare { cloudflare } else { status };
        Verdict { status, fault, reason, retry_after }
    }

    /// Whether the client's connection cannot be used any more: what it sends next may be the rest of this request.
    pub fn closes(self) -> bool {
        matches!(
            self,
            Self::Refused(_)
                | Self::BodyTooLarge
                | Self::BodyTimeout
                | Self::BodyFraming
                | Self::ClientGone
                | Self::Overloaded
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_visitors_bring_about_does_not_speak_against_the_process() {
        let refused = Failure::Refused(Refusal { status: 400, reason: "bad_request" });
        for (failure, expected) in [
            (refused, false),
            (Failure::UnknownHost, false),
            (Failure::BodyTooLarge, false),
            (Failure::Loop, false),
            (Failure::Overloaded, false),
            (Failure::Internal, true),
            (Failure::OriginRefused, true),
            (Failure::OriginTimeout, true),
        ] {
            let Verdict { fault, reason, .. } = failure.verdict(Compatibility::Neutral);
            assert_eq!(speaks_against_us(fault, reason), expected, "{failure:?}");
        }
    }
}
