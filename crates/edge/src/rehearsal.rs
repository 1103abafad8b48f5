//! Golden requests: a loaded generation is asked, over real connections and through the same code that serves visitors,
//! before any visitor is. What should reach an origin reaches a golden origin in this process instead.

mod golden;
mod judge;
mod plan;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;

use self::golden::Golden;
use self::judge::Expected;
use self::plan::Visit;
use crate::edge::{BoundListener, Edge, ListenerSet};
use crate::generation::Generation;
use crate::tls::LoadError;
use crate::visitor::{self, Question, VisitError, Visitor, Way};

/// Time for one golden request, and for a connection to be made.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Time for all of them.
const WHOLE_TIME: Duration = Duration::from_secs(60);
/// Wrong answers after which the rest is not asked any more.
const MAX_FINDINGS: usize = 20;
/// Requests without an answer in time after which nothing more is expected of this edge.
const MAX_LATE: usize = 3;
/// With fewer connections allowed than this, each must have ended before the next begins.
const SPARE_CONNECTIONS: usize = 8;
/// How often it is looked whether they have ended.
const LOOK: Duration = Duration::from_millis(5);
/// Names of the private listeners towards the edge threads; those of public ones count up from 0.
const PLAIN_ID: u64 = u64::MAX;
const TLS_ID: u64 = u64::MAX - 1;

/// What a rehearsal that went well was like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sites that were asked, of those the generation has.
    pub sites: usize,
    /// Requests that were answered as they should be.
    pub requests: usize,
    /// What is no reason to refuse the generation, such as a certificate that does not cover a host.
    pub warnings: Vec<LoadError>,
}

/// Sends golden requests to every site over private loopback listeners; puts the generation in force if it is not.
///
/// For an edge without public listeners; one that has any is refused. The error holds what was answered wrongly or
/// late, `MAX_FINDINGS` at most. Afterwards the listeners are gone, and no pool, health, budget, counter or log line
/// tells of it. Blocks for `WHOLE_TIME` and the requests to one site at most.
pub fn rehearse(edge: &Edge, generation: &Arc<Generation>) -> Result<Report, Vec<LoadError>> {
    if !edge.listeners().is_empty() {
        let message = "golden requests cannot be told from visitors' on an edge that serves".to_owned();
        return Err(vec![unavailable(message)]);
    }
    if !Arc::ptr_eq(&edge.current(), generation) {
        edge.activate(Some(generation.clone()), Vec::<ListenerSet>::new());
    }
    let stage = Stage::set(edge, generation).map_err(|error| vec![unavailable(error.to_string())])?;
    let outcome = visitor::apart("rehearsal", async || stage.play().await);
    stage.clear();
    outcome.unwrap_or_else(|error| Err(vec![unavailable(error.to_string())]))
}

fn unavailable(message: String) -> LoadError {
    LoadError {
        place: "listen".to_owned(),
        code: "rehearsal-unavailable",
        message: format!("golden requests could not be sent: {message}"),
        hint: "see the program's log; this machine may be short of sockets or threads".to_owned(),
    }
}

/// The private listeners and the golden origin.
struct Stage<'a> {
    edge: &'a Edge,
    generation: &'a Generation,
    listeners: Vec<BoundListener>,
    golden: Golden,
}

impl<'a> Stage<'a> {
    fn set(edge: &'a Edge, generation: &'a Generation) -> io::Result<Self> {
        let golden = Golden::open()?;
        let mut listeners = Vec::new();
        for (id, tls) in [(PLAIN_ID, false), (TLS_ID, true)] {
            if !generation.snapshot.listeners.iter().any(|listener| listener.tls == tls) {
                continue;
            }
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            let listener = BoundListener { id, configured: address, address, tls, proxy_protocol: false };
            edge.open_private(&listener, socket, golden.address);
            listeners.push(listener);
        }
        Ok(Self { edge, generation, listeners, golden })
    }

    fn clear(&self) {
        self.edge.close_private(&self.listeners);
    }

    fn address(&self, tls: bool) -> Option<SocketAddr> {
        self.listeners.iter().find(|listener| listener.tls == tls).map(|listener| listener.address)
    }

    /// The whole of it, top to bottom.
    async fn play(&self) -> Result<Report, Vec<LoadError>> {
        let answering =
            tokio::task::spawn_local(self.golden.answer().map_err(|e| vec![unavailable(e.to_string())])?);
        let mut rehearsal = Rehearsal {
            stage: self,
            started: Instant::now(),
            report: Report::default(),
            errors: Vec::new(),
            late: 0,
        };
        if self.generation.snapshot.is_defaults {
            rehearsal.defaults().await;
        } else {
            rehearsal.strangers().await;
            let chosen = plan::sample(self.generation.snapshot.sites.len());
            for (asked, index) in chosen.iter().enumerate() {
                if rehearsal.is_over(asked, chosen.len(), *index) {
                    break;
                }
                rehearsal.site(*index).await;
            }
        }
        answering.abort();
        if rehearsal.errors.is_empty() { Ok(rehearsal.report) } else { Err(rehearsal.errors) }
    }
}

/// A rehearsal under way.
struct Rehearsal<'a> {
    stage: &'a Stage<'a>,
    started: Instant,
    report: Report,
    errors: Vec<LoadError>,
    late: usize,
}

impl Rehearsal<'_> {
    /// Whether enough is known, or the time is up, which is a finding of its own.
    fn is_over(&mut self, asked: usize, of: usize, next: usize) -> bool {
        if self.errors.len() >= MAX_FINDINGS || self.late >= MAX_LATE {
            return true;
        }
        if self.started.elapsed() < WHOLE_TIME {
            return false;
        }
        self.errors.push(LoadError {
            place: format!("site[{next}]"),
            code: "golden-request",
            message: format!(
                "golden requests took more than {} s: {asked} of {of} sites were asked",
                WHOLE_TIME.as_secs()
            ),
            hint: "see whether this machine is overloaded, and try again".to_owned(),
        });
        true
    }

    /// Compiled-in defaults: every request gets 503.
    async fn defaults(&mut self) {
        for way in [Way::Plain, Way::Tls, Way::TlsHttp2] {
            let Some(visit) = Visit::stranger(way) else { continue };
            // There is no certificate without a site, so a handshake may fail; who gets through gets the page.
            let outcome = self.ask_once(&visit, &visit.get("/golden"), &Expected::Status(503)).await;
            match outcome {
                Err(Finding::Refused) if way != Way::Plain => {}
                outcome => self.note("listen", &visit, outcome),
            }
        }
    }

    /// A host nobody has, and a request nobody can read.
    async fn strangers(&mut self) {
        let snapshot = &self.stage.generation.snapshot;
        let demands = snapshot.sites.iter().any(|site| plan::demands_certificate(site));
        for way in [Way::Plain, Way::Tls, Way::TlsHttp2] {
            let Some(visit) = Visit::stranger(way) else { continue };
            // Over TLS, who sends a name nobody has is met by some site's settings, which may demand a certificate.
            let is_met = way == Way::Plain || !demands;
            if is_met && snapshot.hosts.find(&visit.host).is_none() {
                let outcome = self.ask_once(&visit, &visit.get("/golden"), &Expected::Status(421)).await;
                self.note("site", &visit, outcome);
            }
            if way == Way::Plain {
                let outcome = self.malformed(&visit).await;
                self.note("listen", &visit, outcome);
            }
        }
    }

    /// Two hosts in one request: which one is meant is anybody's guess, so it is nobody's.
    async fn malformed(&mut self, visit: &Visit) -> Result<(), Finding> {
        let Some(visitor) = self.connect(visit).await? else { return Ok(()) };
        let wire = b"GET /golden HTTP/1.1\r\nHost: one.invalid\r\nHost: two.invalid\r\n\r\n";
        let question = visit.get("/golden (with two Host fields)");
        let answer = visitor.ask_raw(wire).await.map_err(|error| Finding::none(&question, &error))?;
        self.judge(&question, &Expected::Status(400), &answer)
    }

    /// One site, in every way it can be reached.
    async fn site(&mut self, index: usize) {
        let place = format!("site[{index}]");
        self.report.sites += 1;
        for way in [Way::TlsHttp2, Way::Tls, Way::Plain] {
            let Some(visit) = Visit::of(self.stage.generation, index, way) else { continue };
            let outcome = self.visit(&visit).await;
            self.note(&place, &visit, outcome);
        }
    }

    /// The trace, a GET with a query, and a POST, on one connection.
    async fn visit(&mut self, visit: &Visit) -> Result<(), Finding> {
        let Some(site) = self.stage.generation.sites.get(visit.site) else { return Ok(()) };
        if visit.way != Way::Plain && plan::demands_certificate(&site.site) {
            return self.unidentified(visit).await;
        }
        let Some(mut visitor) = self.connect(visit).await? else { return Ok(()) };
        if visitor.covered == Some(false) {
            self.report.warnings.extend(plan::uncovered(&site.site, &visit.host));
        }
        let scene =
            plan::Scene { generation: self.stage.generation, site, visit, golden: &self.stage.golden };
        for (question, expected) in scene.questions() {
            let answer = visitor
                .ask(&question.asked())
                .await
                .map_err(|error| Finding::none(&question.asked(), &error))?;
            self.judge(&question.asked(), &expected, &answer)?;
            if answer
                .head
                .headers
                .get(b"connection")
                .is_some_and(|value| value.eq_ignore_ascii_case(b"close"))
            {
                let Some(again) = self.connect(visit).await? else { return Ok(()) };
                visitor = again;
            }
        }
        Ok(())
    }

    /// A site that demands a certificate, without one: an alert, or a status that refuses.
    async fn unidentified(&mut self, visit: &Visit) -> Result<(), Finding> {
        let Some(address) = self.stage.address(true).filter(|_| visit.way == Way::Tls) else { return Ok(()) };
        self.settle().await;
        let question = visit.get("/golden (without a client certificate)");
        let outcome =
            visitor::ask_without_certificate(address, &visit.get("/golden"), &visit.host, REQUEST_TIME, None)
                .await;
        match outcome {
            Err(VisitError::Alert(_)) | Ok(403 | 421) => {
                self.report.requests += 1;
                Ok(())
            }
            Ok(status) => {
                Err(Finding::wrong(&question, "a refusal (a TLS alert, 403 or 421)", &status.to_string()))
            }
            Err(error) => Err(Finding::none(&question, &error)),
        }
    }

    async fn ask_once(
        &mut self,
        visit: &Visit,
        question: &Question<'_>,
        expected: &Expected,
    ) -> Result<(), Finding> {
        let Some(visitor) = self.connect(visit).await? else { return Ok(()) };
        match visitor.ask(question).await {
            Ok(answer) => self.judge(question, expected, &answer),
            Err(error) => Err(Finding::none(question, &error)),
        }
    }

    /// Connects; `None` when the generation has no listener of this kind.
    async fn connect(&self, visit: &Visit) -> Result<Option<Visitor>, Finding> {
        let Some(address) = self.stage.address(visit.way != Way::Plain) else { return Ok(None) };
        self.settle().await;
        match Visitor::connect(address, visit.way, &visit.host, REQUEST_TIME, None).await {
            Ok(visitor) => Ok(Some(visitor)),
            Err(VisitError::Alert(_)) => Err(Finding::Refused),
            Err(error) => Err(Finding::none(&visit.get("/"), &error)),
        }
    }

    /// Where few connections are allowed, waits for those before to be counted out.
    async fn settle(&self) {
        if self.stage.generation.snapshot.limits.connections >= SPARE_CONNECTIONS {
            return;
        }
        let started = Instant::now();
        while self.stage.edge.connections() > 0 && started.elapsed() < REQUEST_TIME {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn judge(
        &mut self,
        question: &Question<'_>,
        expected: &Expected,
        answer: &visitor::Answer,
    ) -> Result<(), Finding> {
        match expected.judge(answer) {
            Ok(()) => {
                self.report.requests += 1;
                Ok(())
            }
            Err(judge::Mismatch { expected, got }) => Err(Finding::wrong(question, &expected, &got)),
        }
    }

    fn note(&mut self, place: &str, visit: &Visit, outcome: Result<(), Finding>) {
        let message = match outcome {
            Ok(()) => return,
            Err(Finding::Refused) => "the TLS handshake was refused".to_owned(),
            Err(Finding::Late(message)) => {
                self.late += 1;
                message
            }
            Err(Finding::Answer(message)) => message,
        };
        self.errors.push(LoadError {
            place: place.to_owned(),
            code: "golden-request",
            message: format!(
                "a golden request to {}://{} over {} was not answered as it must be: {message}",
                visit.way.scheme(),
                visit.authority,
                visit.way.protocol()
            ),
            hint: "visitors would have seen this; look at what changed in this site, or at the version of Rempart"
                .to_owned(),
        });
    }
}

/// What went wrong with one request.
enum Finding {
    /// A TLS alert in the handshake.
    Refused,
    /// Nothing in time; in words.
    Late(String),
    /// In words.
    Answer(String),
}

impl Finding {
    fn wrong(question: &Question<'_>, expected: &str, got: &str) -> Self {
        Self::Answer(Self::words(question, expected, got))
    }

    fn words(question: &Question<'_>, expected: &str, got: &str) -> String {
        let Question { method, target, .. } = question;
        format!("{method} {target}: expected {expected}, got {got}")
    }

    fn none(question: &Question<'_>, error: &VisitError) -> Self {
        match error {
            VisitError::Alert(_) => Self::Refused,
            VisitError::Late(_) => Self::Late(Self::words(question, "an answer", &error.to_string())),
            error => Self::wrong(question, "an answer", &error.to_string()),
        }
    }
}

/// A GET without anything.
fn get<'a>(authority: &'a str, target: &'a str) -> Question<'a> {
    Question { method: Method::GET, authority, target, fields: &[], body: None }
}
