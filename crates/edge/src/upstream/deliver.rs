//! One request to one of its site's origins: choose, send, and try again where that cannot do harm.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use base::address::canonical;
use base::event::Protocol;
use base64::Engine as _;
use http::Method;
use snapshot::generation::{Compatibility, HostHeader, OriginHttp};

use super::balance::{self, Tried};
use super::health::{FailureKind, InFlight, Outcome};
use super::pool;
use super::transport::{self, Transport, Wants};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::forwarded::cloudflare::DEFAULT_PLACE;
use crate::forwarded::{self, Source, Visit};
use crate::generation::{OriginRuntime, SiteRuntime};
use crate::h1::client::{ExchangeError, ExchangeErrorKind, ExchangeLimits, Outgoing};
use crate::h1::encode::{self, BodyFraming, SendBody};
use crate::h1::parse::Refusal;
use crate::h1::syntax;
use crate::hop::ConnectionFields;
use crate::message::{Body, BodyError, BodyLength, HeaderList, RequestHead, ResponseHead};
use crate::pipeline::Inform;
use crate::proxy_protocol::Ends;
use crate::telemetry::metrics::{OriginResult, Retry};
use crate::trail::Trail;
use crate::worker::Worker;
use crate::{h1, h2};

/// A request on its way to its site's origins.
pub struct Delivery<'a> {
    /// What was asked.
    pub head: &'a RequestHead,
    /// Its body.
    pub body: Body,
    /// The client asked to switch protocols.
    pub tunnel: bool,
    /// Who asks, for the forwarding fields.
    pub visit: &'a Visit<'a>,
    /// The site.
    pub site: &'a SiteRuntime,
    /// This edge thread.
    pub worker: &'a Rc<Worker>,
    /// Pseudonym for `Via` and `CDN-Loop`.
    pub via: &'a str,
    /// The connection it came on.
    pub connection: &'a Connection,
    /// A golden request: where it goes instead of to the origin. Health, budget and counters hear nothing of it.
    pub rehearsal: Option<SocketAddr>,
}

/// An origin's answer.
pub struct Answer {
    /// Status and fields as received.
    pub head: ResponseHead,
    /// The body, which carries the exchange.
    pub body: Body,
    /// Protocol it was received with.
    pub protocol: Protocol,
}

/// Why one attempt failed, and what may follow.
struct Attempt {
    failure: Failure,
    /// The request body, when the request may be sent again.
    again: Option<Body>,
    /// A pooled connection had been closed meanwhile: the origin itself did nothing wrong.
    stale: bool,
    /// Whether it speaks against the origin's health.
    kind: Option<FailureKind>,
}

/// Further connections tried when pooled ones turn out stale; they do not count as retries.
const MAX_STALE: u32 = 3;

/// Sends the request and answers with the origin's response head, or with why there is none.
pub async fn deliver(
    mut delivery: Delivery<'_>,
    trail: &mut Trail,
    inform: &mut dyn Inform,
) -> Result<Answer, Failure> {
    let site = delivery.site;
    let fields = ConnectionFields::read(delivery.head.headers.iter())
        .map_err(|_| Failure::Refused(Refusal { status: 400, reason: "bad_header" }))?;
    let limits = site.site.retry;
    if delivery.rehearsal.is_none() {
        site.budget.deposit(trail.started());
    }
    let (mut retries, mut stale, mut tried, mut full) = (0, 0, Tried::default(), Tried::default());
    let mut chosen = choose(&delivery, tried, trail.started()).ok_or(Failure::Internal)?;
    loop {
        let origin = site.origins.get(chosen.origin()).ok_or(Failure::Internal)?;
        tried.insert(origin.index);
        trail.note(|event| {
            event.origin = Some(origin.origin.label.clone());
            event.attempts = event.attempts.saturating_add(1);
        });
        let only_fresh = stale == MAX_STALE;
        // Where another origin may have room, it is asked before anybody waits.
        let patience = site.origins.len() == 1 || full.contains(origin.index);
        let thread = delivery.worker.thread();
        let body = std::mem::take(&mut delivery.body);
        let urge = Urge { only_fresh, patience };
        let attempt = match attempt(&delivery, origin, &fields, body, urge, trail, inform).await {
            Ok(answer) if delivery.rehearsal.is_some() => return Ok(answer),
            Ok(answer) => {
                let result = if answer.head.status >= 500 {
                    OriginResult::ServerError
                } else {
                    OriginResult::Answered
                };
                site.metrics.origin_request(thread, origin.index, result);
                let now = Instant::now();
                chosen.report(Outcome::Success, now);
                trail.hold(chosen);
                trail.origin_answered(now);
                trail.note(|event| event.origin_protocol = Some(answer.protocol));
                return Ok(answer);
            }
            Err(attempt) if delivery.rehearsal.is_some() => return Err(attempt.failure),
            Err(attempt) => attempt,
        };
        if let Some(kind) = attempt.kind {
            site.metrics.origin_request(thread, origin.index, result_of(kind));
            chosen.report(Outcome::Failure(kind), Instant::now());
        }
        let Some(body) = attempt.again else { return Err(attempt.failure) };
        delivery.body = body;
        if attempt.failure == Failure::OriginBusy {
            full.insert(origin.index);
            trail.note(|event| event.attempts = event.attempts.saturating_sub(1));
            drop(chosen);
            chosen = choose(&delivery, tried, Instant::now()).ok_or(attempt.failure)?;
            continue;
        }
        if attempt.stale && stale < MAX_STALE {
            stale += 1;
            continue;
        }
        if retries >= limits.attempts {
            return Err(attempt.failure);
        }
        if !site.budget.try_withdraw(Instant::now()) {
            site.metrics.retry(Retry::BudgetExhausted);
            return Err(attempt.failure);
        }
        site.metrics.retry(Retry::Made);
        retries += 1;
        chosen = choose(&delivery, tried, Instant::now()).ok_or(attempt.failure)?;
    }
}

fn result_of(kind: FailureKind) -> OriginResult {
    match kind {
        FailureKind::Resolve | FailureKind::Connect | FailureKind::Tls => OriginResult::ConnectFailed,
        FailureKind::Timeout => OriginResult::TimedOut,
        _ => OriginResult::Broken,
    }
}

fn choose(delivery: &Delivery<'_>, tried: Tried, now: Instant) -> Option<InFlight> {
    let site = delivery.site;
    delivery.worker.with_random(|random| balance::choose(&site.health, &site.weights, tried, random, now))
}

/// What is special about an attempt.
#[derive(Clone, Copy)]
struct Urge {
    /// Pooled connections have been stale too often.
    only_fresh: bool,
    /// It may wait for a connection.
    patience: bool,
}

/// One attempt at one origin.
async fn attempt(
    delivery: &Delivery<'_>,
    origin: &OriginRuntime,
    fields: &ConnectionFields<'_>,
    body: Body,
    urge: Urge,
    trail: &Trail,
    inform: &mut dyn Inform,
) -> Result<Answer, Attempt> {
    let grpc = delivery.head.is_grpc();
    // Without TLS nobody says whether the origin speaks HTTP/2, but gRPC exists over nothing else.
    let guessed = grpc && origin.origin.http == OriginHttp::Auto && origin.tls.is_none();
    // Hardly any origin wants it, so it takes no room in the futures of the others.
    let ends = origin.origin.proxy_protocol.map(|_| Box::new(ends(delivery)));
    let wants = Wants {
        http1: delivery.tunnel || origin.origin.http == OriginHttp::Http1,
        http2: origin.origin.http == OriginHttp::Http2 || guessed,
        fresh: urge.only_fresh,
        patience: urge.patience,
        ends: ends.as_deref(),
    };
    let connected = match delivery.rehearsal {
        Some(golden) => Box::pin(transport::rehearse(golden)).await,
        None => transport::connect(origin, wants, delivery.worker, &delivery.site.metrics).await,
    };
    let transport = match connected {
        Ok(transport) => transport,
        Err(failure) => return Err(unconnected(failure, body, urge)),
    };
    let (timeouts, tunnel) = (origin.origin.timeouts, delivery.site.site.limits.tunnel);
    // How soon the golden origin answers tells about this machine at this moment, not about the generation.
    let patience = if delivery.rehearsal.is_some() { transport::REHEARSAL_TIME } else { Duration::ZERO };
    let limits = ExchangeLimits {
        response: timeouts.response.max(patience),
        // The two sides of a gRPC stream may be silent for as long as those of any other tunnel.
        idle: if grpc { timeouts.idle.max(tunnel) } else { timeouts.idle.max(patience) },
        tunnel,
    };
    let (outcome, reused, protocol) = match transport {
        Transport::Http1(connection) => {
            let reused = connection.used > 0;
            let mut wire = delivery.worker.take_scratch();
            let framing =
                if delivery.tunnel { BodyFraming::Raw } else { SendBody::framing_of(body.length()) };
            write_http1(delivery, origin, fields, framing, trail, &mut wire);
            let request = Outgoing {
                head: &wire,
                body,
                framing,
                to_head: delivery.head.method == Method::HEAD,
                tunnel: delivery.tunnel,
                expects_continue: delivery.head.expects_continue,
            };
            let recycle = way_back(delivery, origin);
            let exchange = h1::client::exchange(connection, request, limits, inform, recycle);
            delivery.worker.return_scratch(wire);
            (exchange.await, reused, Protocol::Http11)
        }
        Transport::Http2(connection, stream, reused) => {
            match http2_request(delivery, origin, fields, body.length(), trail) {
                Some(request) => (
                    connection.exchange(stream, request, body, limits, inform).await,
                    reused,
                    Protocol::Http2,
                ),
                None => {
                    let failure = Failure::Refused(Refusal { status: 400, reason: "bad_target" });
                    return Err(Attempt { failure, again: None, stale: false, kind: None });
                }
            }
        }
    };
    let concluded = match outcome {
        Err(error) => Err(judge(delivery, error, reused)),
        Ok((head, body)) => begin(delivery, Answer { head, body, protocol }).await,
    };
    // A visitor must not have an origin set aside by calling its request gRPC.
    concluded.map_err(|attempt| Attempt { kind: attempt.kind.filter(|_| !guessed), ..attempt })
}

/// Looks at what has come of an answer while it can still become a 502: a body that is broken from its first byte on, and
/// a switch to a protocol that was not asked for (RFC 9110 section 7.8).
async fn begin(delivery: &Delivery<'_>, mut answer: Answer) -> Result<Answer, Attempt> {
    let broken = |failure, kind| Err(Attempt { failure, again: None, stale: false, kind: Some(kind) });
    if answer.head.status == 101 {
        let asked = delivery.head.upgrade.as_deref().unwrap_or_default().as_bytes();
        let is_asked = |name: &[u8]| syntax::elements(asked).any(|asked| asked.eq_ignore_ascii_case(name));
        let chosen = answer.head.headers.get(b"upgrade").unwrap_or_default();
        let good = syntax::elements(chosen).next().is_some() && syntax::elements(chosen).all(is_asked);
        return if good { Ok(answer) } else { broken(Failure::OriginBadResponse, FailureKind::Protocol) };
    }
    // `h2` checks framing itself, and a failure there may as well be the client's upload.
    if answer.protocol == Protocol::Http2 {
        return Ok(answer);
    }
    match poll_fn(|cx| Poll::Ready(answer.body.poll_fill(cx))).await {
        Poll::Ready(Err(BodyError::Cut)) => broken(Failure::OriginClosed, FailureKind::Closed),
        Poll::Ready(Err(_)) => broken(Failure::OriginBadResponse, FailureKind::Protocol),
        _ => Ok(answer),
    }
}

/// There was no connection. Nothing was sent: safe to try elsewhere whatever the method.
fn unconnected(failure: Failure, body: Body, urge: Urge) -> Attempt {
    let kind = match failure {
        // It has not been asked, so nothing speaks against it; who has waited has waited enough.
        Failure::OriginBusy => {
            let again = (!urge.patience).then_some(body);
            return Attempt { failure, again, stale: false, kind: None };
        }
        Failure::OriginName => FailureKind::Resolve,
        Failure::OriginTls | Failure::OriginCertificate => FailureKind::Tls,
        Failure::OriginConnectTimeout => FailureKind::Timeout,
        _ => FailureKind::Connect,
    };
    Attempt { failure, again: Some(body), stale: false, kind: Some(kind) }
}

/// The visitor's connection, for a PROXY header. Behind a proxy that speaks HTTP nobody knows the visitor's port: it is 0.
fn ends(delivery: &Delivery<'_>) -> Ends {
    let Delivery { connection, visit, .. } = delivery;
    let port = if visit.client.source == Source::Peer { connection.peer.port() } else { 0 };
    let local = SocketAddr::new(canonical(connection.local.ip()), connection.local.port());
    Ends { source: SocketAddr::new(visit.client.address, port), destination: local }
}

/// Where the connection goes once it is idle.
fn way_back(delivery: &Delivery<'_>, origin: &OriginRuntime) -> Rc<pool::Return> {
    Rc::new(pool::Return {
        pools: Rc::downgrade(&delivery.worker.pools),
        key: if delivery.rehearsal.is_some() { pool::NO_POOL } else { origin.pool },
        max_idle: origin.origin.max_idle,
    })
}

/// What a failed exchange means, and whether the request may be sent again (RFC 9110 section 9.2.2).
fn judge(delivery: &Delivery<'_>, error: ExchangeError, reused: bool) -> Attempt {
    let ExchangeError { kind, answered, unprocessed, untouched } = error;
    let (failure, health) = match kind {
        ExchangeErrorKind::Client(BodyError::TooLarge) => (Failure::BodyTooLarge, None),
        ExchangeErrorKind::Client(BodyError::TimedOut) => (Failure::BodyTimeout, None),
        ExchangeErrorKind::Client(BodyError::Framing) => (Failure::BodyFraming, None),
        ExchangeErrorKind::Client(BodyError::Cut) => (Failure::ClientGone, None),
        ExchangeErrorKind::Closed => (Failure::OriginClosed, Some(FailureKind::Closed)),
        ExchangeErrorKind::TimedOut => (Failure::OriginTimeout, Some(FailureKind::Timeout)),
        ExchangeErrorKind::BadResponse => (Failure::OriginBadResponse, Some(FailureKind::Protocol)),
    };
    let closed = kind == ExchangeErrorKind::Closed && !answered;
    let harmless = unprocessed || (is_idempotent(&delivery.head.method) && !delivery.tunnel);
    let again = untouched.filter(|_| closed && harmless);
    let stale = closed && reused;
    Attempt { failure, stale: stale && again.is_some(), again, kind: health.filter(|_| !stale) }
}

/// Methods whose repetition has the effect of one (RFC 9110 section 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// The authority the origin is asked for.
fn authority<'a>(delivery: &'a Delivery<'_>, origin: &'a OriginRuntime) -> &'a str {
    match &origin.origin.host_header {
        HostHeader::Fixed(host) => host,
        HostHeader::Preserve if delivery.head.authority.is_empty() => {
            origin.origin.label.split_once("://").map_or("", |(_, authority)| authority)
        }
        HostHeader::Preserve => &delivery.head.authority,
    }
}

/// Emits the fields the origin gets, all but `Host`, framing and connection fields.
fn outgoing_fields(
    delivery: &Delivery<'_>,
    fields: &ConnectionFields<'_>,
    trail: &Trail,
    mut emit: impl FnMut(&[u8], &[u8]),
) {
    let head = delivery.head;
    let compatibility = delivery.site.site.compatibility;
    let mut has_id = false;
    for (name, value) in head.headers.iter() {
        if fields.forwards(name) && forwarded::passes(name, delivery.visit.client.via_trusted, compatibility)
        {
            has_id |= name.eq_ignore_ascii_case(b"x-request-id");
            emit(name, value);
        }
    }
    let mut value = Vec::with_capacity(128);
    delivery.visit.write_forwarded(head.headers.iter(), &mut value);
    emit(b"Forwarded", &value);
    value.clear();
    delivery.visit.write_x_forwarded_for(head.headers.iter(), &mut value);
    emit(b"X-Forwarded-For", &value);
    emit(b"X-Forwarded-Proto", delivery.visit.client_scheme().name().as_bytes());
    if let Some(host) = delivery.visit.client_host() {
        emit(b"X-Forwarded-Host", host.as_bytes());
    }
    value.clear();
    forwarded::write_via(head.headers.iter(), head.protocol, delivery.via, &mut value);
    emit(b"Via", &value);
    value.clear();
    forwarded::write_cdn_loop(head.headers.iter(), delivery.via, &mut value);
    emit(b"CDN-Loop", &value);
    let Some(id) = trail.id() else { return };
    if !has_id {
        emit(b"X-Request-Id", id.as_str().as_bytes());
    }
    if compatibility == Compatibility::Cloudflare {
        let client = delivery.visit.client;
        emit(b"CF-Connecting-IP", forwarded::cloudflare::connecting_ip(client.address).as_bytes());
        emit(b"CF-Visitor", forwarded::cloudflare::visitor(delivery.visit.client_scheme()).as_bytes());
        emit(b"CF-Ray", forwarded::cloudflare::ray(&id, DEFAULT_PLACE).as_bytes());
    }
}

/// Composes the head for an HTTP/1.1 origin.
fn write_http1(
    delivery: &Delivery<'_>,
    origin: &OriginRuntime,
    fields: &ConnectionFields<'_>,
    framing: BodyFraming,
    trail: &Trail,
    wire: &mut Vec<u8>,
) {
    let head = delivery.head;
    wire.extend_from_slice(head.method.as_str().as_bytes());
    wire.push(b' ');
    wire.extend_from_slice(head.target.as_bytes());
    wire.extend_from_slice(b" HTTP/1.1\r\n");
    encode::field(wire, b"Host", authority(delivery, origin).as_bytes());
    outgoing_fields(delivery, fields, trail, |name, value| encode::field(wire, name, value));
    match &head.upgrade {
        Some(upgrade) if delivery.tunnel => {
            encode::field(wire, b"Connection", b"Upgrade");
            encode::field(wire, b"Upgrade", upgrade.as_bytes());
            // RFC 8441 section 5: HTTP/2 has no key, HTTP/1.1 needs one.
            if head.protocol == Protocol::Http2 && !head.headers.contains(b"sec-websocket-key") {
                let key = delivery.worker.with_random(|random| [random.next_u64(), random.next_u64()]);
                let key = key.map(u64::to_be_bytes).concat();
                let key = base64::engine::general_purpose::STANDARD.encode(key);
                encode::field(wire, b"Sec-WebSocket-Key", key.as_bytes());
            }
        }
        _ if head.accepts_trailers => {
            encode::field(wire, b"Connection", b"TE");
            encode::field(wire, b"TE", b"trailers");
        }
        _ => {}
    }
    if head.expects_continue {
        encode::field(wire, b"Expect", b"100-continue");
    }
    encode::framing_field(wire, framing);
    wire.extend_from_slice(b"\r\n");
}

/// Composes the head for an HTTP/2 origin; `None` when the target has no form there.
fn http2_request(
    delivery: &Delivery<'_>,
    origin: &OriginRuntime,
    fields: &ConnectionFields<'_>,
    length: BodyLength,
    trail: &Trail,
) -> Option<http::Request<()>> {
    let head = delivery.head;
    let mut list = HeaderList::with_capacity(head.headers.len() + 8, 1024);
    outgoing_fields(delivery, fields, trail, |name, value| list.push(name, value));
    if head.accepts_trailers {
        list.push("te", "trailers");
    }
    let mut request = http::Request::new(());
    *request.method_mut() = head.method.clone();
    let scheme = if origin.tls.is_some() { "https" } else { "http" };
    *request.uri_mut() = http::Uri::builder()
        .scheme(scheme)
        .authority(authority(delivery, origin))
        .path_and_query(head.target.as_str())
        .build()
        .ok()?;
    *request.headers_mut() = h2::convert::header_map(&list);
    if let BodyLength::Exact(length) = length {
        request.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
    }
    *request.version_mut() = http::Version::HTTP_2;
    Some(request)
}
