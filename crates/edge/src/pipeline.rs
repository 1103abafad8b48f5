//! One request, top to bottom: reading order is execution order.

use std::cell::Cell;
use std::net::Ipv6Addr;
use std::rc::Rc;
use std::task::Context;

use base::address::canonical;
use base::event::Protocol;
use bytes::Bytes;
use snapshot::generation::Compatibility;

use crate::body_limit::LimitedBody;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::forwarded::cloudflare::DEFAULT_PLACE;
use crate::forwarded::{self, Client, Scheme, Visit};
use crate::gate::{self, Approach, Gate};
use crate::generation::{Generation, SiteRuntime};
use crate::h1::parse::Refusal;
use crate::h1::syntax;
use crate::hop::ConnectionFields;
use crate::inspect;
use crate::message::{Body, BodyError, BodyLength, HeaderList, RequestHead, ResponseHead};
use crate::modules::{self, Block, Turn};
use crate::pace::PaceLimit;
use crate::pages;
use crate::pressure::Level;
use crate::rules::act::{self, Decisions, End};
use crate::rules::facts::{Facts, Link, Surroundings};
use crate::rules::respond;
use crate::telemetry::metrics::ClientCut;
use crate::trace;
use crate::trail::Trail;
use crate::upstream::deliver::{self, Delivery};
use crate::worker::Worker;

/// A request as a protocol side hands it in.
pub struct Request {
    /// What was asked.
    pub head: RequestHead,
    /// Its body; for a tunnel, everything the client sends after the switch.
    pub body: Body,
    /// The client asked to switch protocols.
    pub tunnel: bool,
}

/// A response as a protocol side writes it.
pub struct Response {
    /// Status and fields.
    pub head: ResponseHead,
    /// Its body.
    pub body: Body,
    /// The connection cannot be used for another request.
    pub close: bool,
    /// To be finished when the body has ended.
    pub trail: Trail,
}

/// Sends interim (1xx) responses while the final one is awaited.
pub trait Inform {
    /// Sends one; failures show when the final response is written.
    fn inform(&mut self, cx: &mut Context<'_>, head: &ResponseHead);
}

/// Serves one request.
pub async fn serve(
    request: Request,
    connection: &Rc<Connection>,
    worker: &Rc<Worker>,
    inform: &mut dyn Inform,
) -> Response {
    connection.requests.set(connection.requests.get() + 1);
    let generation = worker.generation();
    let head = &request.head;
    let mut trail = Trail::start(worker, connection, Some(head));
    #[cfg(feature = "faults")]
    if let Some(answer) = crate::fault::on_request(&generation, connection, head) {
        return finish_own(answer, false, trail);
    }

    let client =
        forwarded::client_of(connection.peer.ip(), &generation.snapshot.trusted_proxies, head.headers.iter());
    trail.note(|event| event.client = client.address);

    if let Some(answer) = gate::challenge(head, |token| generation.challenges.http(token)) {
        return finish_own(answer, false, trail);
    }
    if connection.listener.pressure.level() == Level::Critical {
        return fail(Failure::Overloaded, Some(head), Compatibility::Neutral, trail);
    }
    if generation.snapshot.is_defaults {
        return fail(Failure::NoConfiguration, Some(head), Compatibility::Neutral, trail);
    }
    if generation.bans.contains(client.address) {
        return fail(Failure::Banned, Some(head), Compatibility::Neutral, trail);
    }
    let Some(site) = find_site(&generation, &head.authority) else {
        return fail(Failure::UnknownHost, Some(head), Compatibility::Neutral, trail);
    };
    trail.at_site(&site.site.name, &site.metrics);
    let approach = Approach::of(connection, &client, &site.site);
    let call = Call { connection, worker, generation: &generation, site, client: &client, approach };
    let mut response = serve_site(request, &call, inform, trail).await;
    gate::tell_hsts(&mut response.head.headers, &site.site, approach.scheme);
    response
}

/// A request's surroundings, once its site is known.
struct Call<'a> {
    connection: &'a Rc<Connection>,
    worker: &'a Rc<Worker>,
    generation: &'a Generation,
    site: &'a SiteRuntime,
    client: &'a Client,
    approach: Approach,
}

impl<'a> Call<'a> {
    fn facts(&self, head: RequestHead, trail: &Trail) -> Facts<'a> {
        let Call { connection, worker, generation, site, client, approach } = *self;
        Facts::new(
            head,
            Surroundings {
                link: Link::Live(connection, worker),
                client,
                scheme: approach.scheme,
                site,
                generation,
                at: trail.at(),
                id: trail.id(),
                started: trail.started(),
            },
        )
    }
}

/// Serves one request whose site is known.
async fn serve_site(
    request: Request,
    call: &Call<'_>,
    inform: &mut dyn Inform,
    mut trail: Trail,
) -> Response {
    let Request { mut head, body, tunnel } = request;
    let Call { connection, generation, site, client, approach, .. } = *call;
    let snapshot = &generation.snapshot;
    let compatibility = site.site.compatibility;

    if let Some(answer) = trace::answer(&head, connection, client, compatibility, &trail) {
        return finish_own(answer, false, trail);
    }
    let pass = gate::pass(&head, &site.site, approach, &snapshot.listeners);
    for gate in [pass, gate::travel(&mut head)] {
        match gate {
            Gate::Pass => {}
            Gate::Answer(answer) => {
                let mut response = finish_own(answer, false, trail);
                identify(&mut response, compatibility);
                return response;
            }
            Gate::Refuse(failure) => return fail(failure, Some(&head), compatibility, trail),
        }
    }
    if forwarded::check_loop(head.headers.iter(), &snapshot.via).is_err() {
        return fail(Failure::Loop, Some(&head), compatibility, trail);
    }
    let limit = site.site.limits.body_bytes;
    if let (BodyLength::Exact(length), Some(limit)) = (body.length(), limit)
        && length > limit
    {
        return fail(Failure::BodyTooLarge, Some(&head), compatibility, trail);
    }
    let (mut facts, mut decisions) = (call.facts(head, &trail), Decisions::default());
    facts.announces(body.length());
    let answered = answer(body, tunnel, call, &mut facts, &mut decisions, &mut trail, inform).await;
    if !respond::has_rules(&facts) {
        return finish(answered, &facts, generation, compatibility, trail);
    }
    let error = answered.error();
    let raw = match &answered {
        Answered::Origin { head, .. } => head.headers.clone(),
        Answered::Own(_) | Answered::Failed { .. } => HeaderList::default(),
    };
    let mut response = finish(answered, &facts, generation, compatibility, trail);
    respond::by_rules(&mut response, &facts, &decisions, &raw, error, call.worker);
    response
}

/// The response to a request, before rules have a word about it.
enum Answered {
    /// From the origin.
    Origin { head: ResponseHead, body: Body, protocol: Protocol },
    /// Made here.
    Own(Own),
    /// A page says why there is no other.
    Failed { failure: Failure, allow: Option<String> },
}

impl Answered {
    /// The kind of an error made here, as the rules language names it (`cf.response.error_type`).
    fn error(&self) -> &'static str {
        match self {
            Self::Origin { .. } | Self::Own(_) => "",
            Self::Failed { failure: Failure::Blocked(_, CHALLENGE), .. } => "managed_challenge",
            Self::Failed { failure: Failure::Blocked(..) | Failure::Banned, .. } => "waf",
            Self::Failed { .. } => "5xx",
        }
    }
}

/// Why a request was turned away that a challenge is asked of.
const CHALLENGE: &str = "challenge_required";

/// Walks the phases to the origin, and asks it.
async fn answer<'a>(
    body: Body,
    tunnel: bool,
    call: &Call<'a>,
    facts: &mut Facts<'a>,
    decisions: &mut Decisions<'a>,
    trail: &mut Trail,
    inform: &mut dyn Inform,
) -> Answered {
    let Call { connection, worker, generation, site, client, .. } = *call;
    if let Some(turn) = modules::before_upstream(&modules::BEFORE_BODY, facts, decisions, worker, trail) {
        return turned(turn);
    }
    let (mut body, body_failure) = limit_body(body, tunnel, facts.head(), call, trail);
    if site.site.rules.reads_body
        && !tunnel
        && let Some(inspected) = inspect::beginning(&mut body, site.site.limits.inspect_body).await
    {
        facts.inspected(inspected);
    }
    if let Some(turn) = modules::before_upstream(&modules::AFTER_BODY, facts, decisions, worker, trail) {
        return turned(turn);
    }
    let head = facts.head();
    let visit = Visit {
        client,
        peer: canonical(connection.peer.ip()),
        scheme: if connection.tls.is_some() { Scheme::Https } else { Scheme::Http },
        host: head.authority.as_bytes(),
    };
    let rehearsal = connection.listener.rehearsal;
    let via = &generation.snapshot.via;
    let routed = decisions.route.as_ref().and_then(|route| site.routes.get(&**route));
    let site = routed.map_or(site, |routed| &**routed);
    let delivery = Delivery { head, body, tunnel, visit: &visit, site, worker, via, connection, rehearsal };
    let mut relay = RelayInterim { inner: inform, via };
    match deliver::deliver(delivery, trail, &mut relay).await {
        Ok(deliver::Answer { head, body, protocol }) => Answered::Origin { head, body, protocol },
        Err(failure) => {
            let failure = match body_failure.and_then(|failure| failure.get()) {
                Some(BodyError::TooLarge) => Failure::BodyTooLarge,
                Some(BodyError::TimedOut) => {
                    worker.shard.client_cut(ClientCut::SlowBody);
                    Failure::BodyTimeout
                }
                Some(BodyError::Framing) => Failure::BodyFraming,
                Some(BodyError::Cut) => Failure::ClientGone,
                None => failure,
            };
            Answered::Failed { failure, allow: None }
        }
    }
}

/// What a module or a rule has a request answered with.
fn turned(turn: Turn) -> Answered {
    match turn {
        Turn::Block(Block { status, reason, allow }) => {
            Answered::Failed { failure: Failure::Blocked(status, reason), allow }
        }
        Turn::Rule(end) => match act::answer(&end) {
            Some(own) => Answered::Own(own),
            None if end == End::Challenge => {
                Answered::Failed { failure: Failure::Blocked(403, CHALLENGE), allow: None }
            }
            None => Answered::Failed { failure: Failure::Blocked(403, "rule"), allow: None },
        },
    }
}

/// Makes the response ready to be sent.
fn finish(
    answered: Answered,
    facts: &Facts<'_>,
    generation: &Generation,
    compatibility: Compatibility,
    trail: Trail,
) -> Response {
    match answered {
        Answered::Origin { head, body, protocol } => {
            let mut response = Response { head, body, close: false, trail };
            finish_origin(&mut response, protocol, generation, compatibility);
            response
        }
        Answered::Own(own) => {
            let mut response = finish_own(own, false, trail);
            identify(&mut response, compatibility);
            response
        }
        Answered::Failed { failure, allow } => {
            let mut response = fail(failure, Some(facts.head()), compatibility, trail);
            if let Some(allow) = allow {
                response.head.headers.push("Allow", allow);
            }
            response
        }
    }
}

/// Answers a request that could not be read.
pub fn refuse(refusal: Refusal, connection: &Rc<Connection>, worker: &Rc<Worker>) -> Response {
    let trail = Trail::start(worker, connection, None);
    fail(Failure::Refused(refusal), None, Compatibility::Neutral, trail)
}

/// Refuses an `https` target on a connection that neither is secured nor comes from a trusted proxy (RFC 9110 section 7.4).
pub fn misdirected(connection: &Connection, worker: &Worker) -> Option<Refusal> {
    let trusted = || worker.generation().snapshot.trusted_proxies.contains(connection.peer.ip());
    (connection.tls.is_none() && !trusted()).then_some(Refusal { status: 421, reason: "bad_target" })
}

/// The site of an authority (`host[:port]`).
fn find_site<'a>(generation: &'a Generation, authority: &str) -> Option<&'a SiteRuntime> {
    let (host, _) = syntax::split_port(authority.as_bytes());
    let host = std::str::from_utf8(host).ok()?;
    let hosts = &generation.snapshot.hosts;
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Some(address) = literal.and_then(|literal| literal.parse::<Ipv6Addr>().ok()) {
        // An address has many spellings (RFC 5952 section 2); the table has one of each.
        return generation.serving(hosts.find(&address.to_string())?).map(|(site, _)| &**site);
    }
    let host = literal.unwrap_or(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let index = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        hosts.find(&host.to_ascii_lowercase())
    } else {
        hosts.find(host)
    };
    generation.serving(index?).map(|(site, _)| &**site)
}

type BodyFailure = Option<Rc<Cell<Option<BodyError>>>>;

/// Puts the site's limits around a streamed body. A tunnel has limits of its own.
fn limit_body(
    body: Body,
    tunnel: bool,
    head: &RequestHead,
    call: &Call<'_>,
    trail: &mut Trail,
) -> (Body, BodyFailure) {
    if tunnel || !matches!(body, Body::Stream(_)) {
        return (body, None);
    }
    let (received, failure) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
    trail.count_received(received.clone());
    let limits = &call.site.site.limits;
    let pace = if head.is_grpc() {
        PaceLimit { pause: limits.body.max(limits.tunnel), rate: None }
    } else {
        PaceLimit { pause: limits.body, rate: limits.body_rate }
    };
    let connection = call.connection.clone();
    let limited = LimitedBody::new(body, limits.body_bytes, pace, connection, received, failure.clone());
    (Body::stream(limited), Some(failure))
}

/// Passes interim responses on without what belongs to the origin's connection.
struct RelayInterim<'a> {
    inner: &'a mut dyn Inform,
    via: &'a str,
}

impl Inform for RelayInterim<'_> {
    fn inform(&mut self, cx: &mut Context<'_>, head: &ResponseHead) {
        if let Some(headers) = forwardable(head.headers.clone(), self.via, Protocol::Http11) {
            self.inner.inform(cx, &ResponseHead { status: head.status, reason: None, headers });
        }
    }
}

/// Response fields that go on to the client, `Via` added; `None` when the `Connection` field is malformed.
fn forwardable(mut headers: HeaderList, via: &str, received: Protocol) -> Option<HeaderList> {
    let mut value = Vec::with_capacity(32);
    forwarded::write_via(headers.iter(), received, via, &mut value);
    // Hardly any message names fields of its own: only for those that do, the names have to outlive the change.
    let named = if ConnectionFields::read(headers.iter()).ok()?.removes_nothing() {
        HeaderList::default()
    } else {
        headers.clone()
    };
    let fields = ConnectionFields::read(named.iter()).ok()?;
    headers.retain(|name, _| fields.forwards(name) && !name.eq_ignore_ascii_case(b"via"));
    headers.push("Via", value);
    Some(headers)
}

/// Makes an origin's response the edge's own to send.
fn finish_origin(
    response: &mut Response,
    received: Protocol,
    generation: &Generation,
    compatibility: Compatibility,
) {
    // RFC 9110 section 15.5.22: without it a 426 says nothing. What no tunnel is opened for is not offered.
    let upgrade = matches!(response.head.status, 101 | 426)
        .then(|| response.head.headers.get(b"upgrade").map(<[u8]>::to_vec))
        .flatten()
        .filter(|protocol| syntax::is_tunnel_protocol(protocol));
    let headers = std::mem::take(&mut response.head.headers);
    let Some(mut headers) = forwardable(headers, &generation.snapshot.via, received) else {
        response.head = ResponseHead::new(502);
        response.body = Body::Empty;
        response.trail.failed(&Failure::OriginBadResponse.verdict(compatibility));
        return;
    };
    if let Some(upgrade) = upgrade {
        headers.push("Upgrade", upgrade);
    }
    // RFC 9110 section 6.6.1: who forwards a response without Date adds one.
    if !headers.contains(b"date") {
        headers.push("Date", response.trail.http_date());
    }
    response.head.headers = headers;
    identify(response, compatibility);
    let status = response.head.status;
    response.trail.note(|event| event.status = status);
}

/// Adds the request's id, by which a visitor's report is found in the log.
fn identify(response: &mut Response, compatibility: Compatibility) {
    let Some(id) = response.trail.id() else { return };
    let headers = &mut response.head.headers;
    headers.remove(b"rempart-request-id");
    headers.push("Rempart-Request-Id", id.as_str());
    if compatibility == Compatibility::Cloudflare {
        headers.remove(b"cf-ray");
        headers.push("CF-Ray", forwarded::cloudflare::ray(&id, DEFAULT_PLACE));
    }
}

/// Answers with a page that says who is at fault and carries the receipt.
fn fail(
    failure: Failure,
    head: Option<&RequestHead>,
    compatibility: Compatibility,
    mut trail: Trail,
) -> Response {
    let verdict = failure.verdict(compatibility);
    trail.failed(&verdict);
    let receipt = trail.id();
    let field = |name: &[u8]| {
        let lines: Vec<_> = head.map(|head| head.headers.all(name).collect()).unwrap_or_default();
        (!lines.is_empty()).then(|| lines.join(&b", "[..]))
    };
    let page = pages::render(
        &pages::Failure {
            status: verdict.status,
            fault: verdict.fault,
            reason: verdict.reason,
            retry_after: verdict.retry_after,
            receipt: receipt.as_ref().map(|id| id.as_str()).unwrap_or_default(),
            host: head.map(|head| head.authority.as_str()).unwrap_or_default(),
        },
        field(b"accept").as_deref(),
        field(b"accept-language").as_deref(),
    );
    let mut answer = Own { head: ResponseHead::new(verdict.status), body: page.body.into() };
    let headers = &mut answer.head.headers;
    headers.push("Content-Type", page.content_type);
    headers.push("Content-Language", page.language);
    if page.content_type.starts_with("text/html") {
        headers.push("Content-Security-Policy", pages::CONTENT_SECURITY_POLICY);
    }
    headers.push("X-Content-Type-Options", "nosniff");
    headers.push("Vary", pages::VARY);
    headers.push("Cache-Control", "no-store");
    if let Some(seconds) = verdict.retry_after {
        headers.push("Retry-After", seconds.to_string());
    }
    let mut response = finish_own(answer, failure.closes(), trail);
    identify(&mut response, compatibility);
    response
}

/// An answer made by the edge.
pub struct Own {
    /// Status and fields.
    pub head: ResponseHead,
    /// The whole body.
    pub body: Bytes,
}

fn finish_own(answer: Own, close: bool, mut trail: Trail) -> Response {
    let Own { mut head, body } = answer;
    head.headers.push("Date", trail.http_date());
    head.headers.push("Server", "rempart");
    let status = head.status;
    trail.note(|event| event.status = status);
    Response { head, body: Body::Full(body), close, trail }
}
