//! What would become of a request: for operators who ask, with the configuration as it is and nobody's connection.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use base::event::Protocol;
use base::time::Timestamp;
use bytes::Bytes;
use expr::{Array, Context, Explained, Fetched, FieldId, Filter, List, Phase, Steps, Truth, Type, Value};
use snapshot::rules::STEPS_PER_RULE;

use super::act::{self, Decisions, End};
use super::facts::{Announced, Answered, Facts, Inspected, Link, Surroundings, Timings};
use super::walk::{Fate, Switches};
use crate::forwarded::{Client, Scheme, Source};
use crate::generation::{Generation, SiteRuntime};
use crate::message::{BodyLength, HeaderList, RequestHead, ResponseHead};
use crate::modules::Meter;

/// Phases before the response, in order.
const BEFORE: [Phase; 9] = [
    Phase::DynamicRedirect,
    Phase::Transform,
    Phase::ConfigSettings,
    Phase::Origin,
    Phase::FirewallCustom,
    Phase::FirewallManaged,
    Phase::Redirect,
    Phase::LateTransform,
    Phase::CacheSettings,
];
const AFTER: [Phase; 4] =
    [Phase::CustomErrors, Phase::ResponseHeaders, Phase::ResponseCompression, Phase::LogFields];

/// A request nobody has sent.
#[derive(Clone, Debug)]
pub struct Imagined {
    /// Its method.
    pub method: http::Method,
    /// Whether it would come encrypted.
    pub https: bool,
    /// Host and port.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// Its fields, without `Host`.
    pub fields: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
    /// Whose it is.
    pub address: IpAddr,
    /// When it would come.
    pub at: Timestamp,
    /// The status the origin would answer with.
    pub status: u16,
    /// Values of fields, in place of what is made of the rest.
    pub given: Vec<(FieldId, Given)>,
}

/// A value somebody gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text.
    Text(String),
    /// An address.
    Ip(IpAddr),
    /// A list of texts.
    Texts(Vec<String>),
    /// Not known.
    Unknown,
}

impl Given {
    /// A value of a field, as somebody writes it: `unknown`, or what its type wants; `None` when that does not fit.
    pub fn parse(field: FieldId, text: &str) -> Option<Self> {
        if text == "unknown" {
            return Some(Self::Unknown);
        }
        match field.field().kind {
            Type::Bool => text.parse().ok().map(Self::Bool),
            Type::Int => text.parse().ok().map(Self::Int),
            Type::Bytes => Some(Self::Text(text.to_owned())),
            Type::Ip => text.parse().ok().map(Self::Ip),
            Type::Array(Type::Bytes) => {
                Some(Self::Texts(text.split(',').map(|part| part.trim().to_owned()).collect()))
            }
            Type::Array(_) | Type::Map(_) => None,
        }
    }
}

/// A phase of a request's way.
#[derive(Clone, Debug)]
pub struct Station {
    /// The phase.
    pub phase: Phase,
    /// What its rules said; rules that do not match are not here.
    pub rules: Vec<Said>,
    /// A rule of an earlier phase leaves it out.
    pub skipped: bool,
    /// Path and query after it, if it changed them.
    pub target: Option<String>,
    /// What ends the request's way.
    pub end: Option<String>,
}

/// What one rule said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its id.
    pub id: String,
    /// Its action, as the API names it.
    pub action: &'static str,
    /// Where it is written.
    pub place: String,
    /// What becomes of it.
    pub fate: &'static str,
}

struct With<'w> {
    inner: &'w dyn Context,
    given: &'w [(FieldId, Given)],
    /// Texts of lists, as the language wants them.
    texts: Vec<(FieldId, Vec<Vec<u8>>)>,
}

impl<'w> With<'w> {
    fn new(inner: &'w dyn Context, given: &'w [(FieldId, Given)]) -> Self {
        let texts = given.iter().filter_map(|(field, given)| match given {
            Given::Texts(texts) => {
                Some((*field, texts.iter().map(|text| text.clone().into_bytes()).collect()))
            }
            _ => None,
        });
        Self { inner, given, texts: texts.collect() }
    }
}

impl Context for With<'_> {
    fn field(&self, field: FieldId) -> Fetched<'_> {
        let Some((_, given)) = self.given.iter().find(|(known, _)| *known == field) else {
            return self.inner.field(field);
        };
        Fetched::Value(match given {
            Given::Unknown => return Fetched::Unknown,
            Given::Bool(value) => Value::Bool(*value),
            Given::Int(value) => Value::Int(*value),
            Given::Text(text) => Value::text(text),
            Given::Ip(address) => Value::Ip(*address),
            Given::Texts(_) => match self.texts.iter().find(|(known, _)| *known == field) {
                Some((_, texts)) => Value::Array(Array::Kept(texts)),
                None => return Fetched::Unknown,
            },
        })
    }

    fn list(&self, name: &str) -> Option<&dyn List> {
        self.inner.list(name)
    }

    fn hmac_sha256(&self, key: &[u8], message: &[u8]) -> Option<[u8; 32]> {
        self.inner.hmac_sha256(key, message)
    }
}

struct NothingOff;

impl Switches for NothingOff {
    fn is_off(&self, _: &str) -> bool {
        false
    }
}

impl Imagined {
    fn head(&self) -> RequestHead {
        let mut headers = HeaderList::default();
        self.fields.iter().for_each(|(name, value)| headers.push(name, value));
        RequestHead {
            method: self.method.clone(),
            authority: self.authority.clone(),
            target: self.target.clone(),
            protocol: Protocol::Http11,
            headers,
            upgrade: None,
            expects_continue: false,
            accepts_trailers: false,
        }
    }

    fn client(&self) -> Client {
        let address = base::address::canonical(self.address);
        Client { address, scheme: None, host: None, via_trusted: false, source: Source::Peer }
    }

    fn facts<'f>(&self, client: &'f Client, generation: &'f Generation, site: &'f SiteRuntime) -> Facts<'f> {
        let scheme = if self.https { Scheme::Https } else { Scheme::Http };
        let port = if self.https { 443 } else { 80 };
        let link = Link::Imagined(SocketAddr::new([127, 0, 0, 1].into(), port));
        let (at, started) = (self.at, Instant::now());
        let surroundings = Surroundings { link, client, scheme, site, generation, at, id: None, started };
        let mut facts = Facts::new(self.head(), surroundings);
        let limit = site.site.limits.inspect_body;
        let prefix = Bytes::copy_from_slice(self.body.get(..limit).unwrap_or(&self.body));
        let truncated = prefix.len() < self.body.len();
        if !self.body.is_empty() {
            facts.announces(BodyLength::Exact(self.body.len() as u64));
        }
        facts.inspected(Inspected::new(prefix, truncated, Some(self.body.len() as u64)));
        facts
    }
}

/// Why an expression holds for such a request, does not, or cannot be told.
pub fn explain(
    filter: &Filter,
    generation: &Generation,
    site: &SiteRuntime,
    imagined: &Imagined,
) -> Vec<Explained> {
    let client = imagined.client();
    let facts = imagined.facts(&client, generation, site);
    let (head, none) = (ResponseHead::new(imagined.status), HeaderList::default());
    let answered = Answered::new(&facts, &head, &none, "", Timings::default(), Announced::NOTHING);
    filter.explain(&With::new(&answered, &imagined.given))
}

/// The way such a request would go: phases with rules only.
pub fn trace(generation: &Generation, site: &SiteRuntime, imagined: &Imagined) -> Vec<Station> {
    let client = imagined.client();
    let mut facts = imagined.facts(&client, generation, site);
    let mut decisions = Decisions::default();
    let mut stations: Vec<Station> = Vec::new();
    let ended = |stations: &[Station]| stations.last().is_some_and(|station| station.end.is_some());
    for phase in BEFORE {
        if ended(&stations) {
            break;
        }
        stations.extend(station(phase, &mut facts, None, imagined, &mut decisions));
    }
    // An answer of a rule goes through the phases of responses as one of the origin does.
    let mut head = ResponseHead::new(imagined.status);
    if let Some(end) = stations.last().and_then(|station| station.end.as_deref()) {
        head.status = end.split(' ').next().and_then(|status| status.parse().ok()).unwrap_or(head.status);
    }
    for phase in AFTER {
        if phase != Phase::CustomErrors || head.status >= 400 {
            stations.extend(station(phase, &mut facts, Some(&mut head), imagined, &mut decisions));
        }
    }
    stations
}

fn station<'r>(
    phase: Phase,
    facts: &mut Facts<'r>,
    response: Option<&mut ResponseHead>,
    imagined: &Imagined,
    decisions: &mut Decisions<'r>,
) -> Option<Station> {
    let rules = facts.surroundings().site.site.rules.phase(phase)?;
    let mut station = Station {
        phase,
        rules: Vec::new(),
        skipped: decisions.skipped.phase(phase),
        target: None,
        end: None,
    };
    if station.skipped {
        return Some(station);
    }
    let mut meter = Meter::new(Instant::now());
    let none = HeaderList::default();
    let nothing = ResponseHead::new(imagined.status);
    let mut effects = {
        let facts = &*facts;
        let head = response.as_deref().unwrap_or(&nothing);
        let answered = Answered::new(facts, head, &none, "", Timings::default(), Announced::NOTHING);
        let inner: &dyn Context = if response.is_some() { &answered } else { facts };
        let context = With::new(inner, &imagined.given);
        let mut skipped = decisions.skipped.clone();
        let Ok(effects) = act::decide(rules, facts, &context, &mut skipped, &NothingOff, &mut meter) else {
            station.end =
                Some("the rules of this phase are over their budget: they are passed over".to_owned());
            return Some(station);
        };
        // What nobody can say is worth knowing, for it may have been meant to fire.
        for rule in rules.rulesets.iter().flat_map(|ruleset| ruleset.all_rules()) {
            let found = effects.found.iter().any(|found| std::ptr::eq(found.rule, rule));
            if !found && rule.filter.evaluate(&context, &mut Steps::new(STEPS_PER_RULE)) == Truth::Unknown {
                station.rules.push(said(rule, "unknown: does not fire"));
            }
        }
        decisions.skipped = skipped;
        effects
    };
    let found = effects.found.iter().map(|found| {
        said(
            found.rule,
            match found.fate {
                Fate::Enforced => "matches",
                Fate::LogOnly => "matches, noted only",
                Fate::OverBudget => "over its budget: does not fire",
            },
        )
    });
    station.rules.splice(0..0, found);
    let before = facts.head().target.clone();
    station.end = effects.end.as_ref().map(|end| describe(end, imagined.status));
    match response {
        Some(head) => effects.on_response(head),
        None => effects.on_request(facts, decisions),
    }
    station.target = Some(facts.head().target.clone()).filter(|after| *after != before);
    (!station.rules.is_empty()).then_some(station)
}

fn said(rule: &snapshot::rules::Rule, fate: &'static str) -> Said {
    Said { id: rule.id.to_string(), action: rule.action.name(), place: rule.place.to_string(), fate }
}

fn describe(end: &End, status: u16) -> String {
    match end {
        End::Block(answer) => {
            let status = answer.as_ref().and_then(|answer| answer.status).unwrap_or(403);
            format!("{status} by a rule that blocks")
        }
        End::Challenge => "403 until there is a challenge".to_owned(),
        End::Redirect { location, status } => format!("{status} to {}", String::from_utf8_lossy(location)),
        End::Error(answer) => format!("{} in place of the error", answer.status.unwrap_or(status)),
    }
}
