//! Rules as they are evaluated: phases, in them rulesets in their order, each rule a compiled expression and an action.

use std::sync::Arc;

use expr::{Context, Evaluated, Filter, Phase, RuleSet, Steps, ValueExpression};

use crate::desired::rules::{CacheSettings, SecurityLevel};
use crate::routes::Route;

/// Steps one rule may take before it counts as Unknown.
pub const STEPS_PER_RULE: usize = Steps::USUAL;

/// How a response may be compressed, in a rule's order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Not at all.
    None,
    /// Whatever suits the visitor best.
    Auto,
    /// As without a rule.
    Default,
    /// `gzip` (RFC 1952).
    Gzip,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
}

/// How paths are spelled, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Normalize {
    /// How.
    pub way: Normalization,
    /// Whether the origin gets them so too, and not only rules.
    pub for_origin: bool,
}

/// Ways to spell a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalization {
    /// RFC 3986 section 6.2.2.
    Rfc3986,
    /// The same, backslashes as slashes and several slashes as one.
    Cloudflare,
}

/// The rules of one site, those for all sites included.
#[derive(Debug, Default)]
pub struct SiteRules {
    phases: Vec<(Phase, PhaseRules)>,
    /// Whether any rule reads the body of requests.
    pub reads_body: bool,
}

/// The rules of one phase.
#[derive(Debug, Default)]
pub struct PhaseRules {
    /// Those for all sites, then those of the site.
    pub rulesets: Vec<Arc<Ruleset>>,
    /// A hash of all that is written in them.
    pub digest: [u8; 32],
}

/// Rules that belong together, in the order in which they are looked at. Disabled ones are not here.
#[derive(Debug)]
pub struct Ruleset {
    /// What `skip` and kill switches call it: `account`, the name of the site, or the id of a `[[rulesets]]`.
    pub id: Arc<str>,
    rules: Vec<Rule>,
    /// The same rules by what they ask, in the same order.
    set: RuleSet,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Unique among the rules of a site.
    pub id: Arc<str>,
    /// Which requests it is about.
    pub filter: Arc<Filter>,
    /// What is done.
    pub action: Action,
    /// Whether it is only noted.
    pub log_only: bool,
    /// Whether it fires too when nobody can say whether it matches.
    pub fires_on_unknown: bool,
    /// Whether matches are noted.
    pub noted: bool,
    /// What overrides may name.
    pub categories: Vec<Arc<str>>,
    /// Pointer to the place it is written.
    pub place: Arc<str>,
}

/// What a rule does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Answers; without an answer of its own, with 403.
    Block(Option<Arc<Answer>>),
    /// Asks the visitor to show that it is human.
    Challenge(Challenge),
    /// Notes the request.
    Log,
    /// Leaves others out.
    Skip(Arc<Skip>),
    /// Goes through a ruleset, overrides applied.
    Execute(Arc<Ruleset>),
    /// Sends the visitor elsewhere.
    Redirect(Arc<Redirect>),
    /// The same, to where a list says.
    RedirectFromList {
        /// The list.
        list: Arc<str>,
        /// What is looked up.
        key: Arc<ValueExpression>,
    },
    /// Another path or query.
    RewriteUri {
        /// The path.
        path: Option<Text>,
        /// The query.
        query: Option<Text>,
    },
    /// Other header fields, of the request or the response.
    RewriteHeaders(Arc<[HeaderChange]>),
    /// Another origin, or another name for it.
    Route(Arc<Route>),
    /// Other settings.
    SetConfig(Settings),
    /// How the response may be kept.
    SetCacheSettings(Arc<CacheSettings>),
    /// How the response is compressed.
    Compress(Arc<[Algorithm]>),
    /// Answers in place of an error.
    ServeError(Arc<Answer>),
    /// Logs fields.
    LogFields(Arc<[LoggedField]>),
}

/// An answer written out in a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 4xx or 5xx; `None` keeps the one there is.
    pub status: Option<u16>,
    /// Media type.
    pub content_type: Box<str>,
    /// Body.
    pub content: Arc<[u8]>,
}

/// Ways to ask a visitor to show that it is human.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Interactive.
    Interactive,
    /// Without interaction.
    Script,
    /// As needed.
    Managed,
}

/// What is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skip {
    /// The rest of this phase.
    pub this_phase: bool,
    /// The rest of this ruleset.
    pub this_ruleset: bool,
    /// Phases that come later.
    pub phases: Vec<Phase>,
    /// Products.
    pub products: Vec<Product>,
    /// Rulesets, by id.
    pub rulesets: Vec<Arc<str>>,
    /// Rules, by id.
    pub rules: Vec<Arc<str>>,
}

/// A product that can be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// `bic`.
    BrowserIntegrity,
    /// `hot`.
    Hotlink,
    /// `rateLimit`.
    RateLimit,
    /// `securityLevel`.
    SecurityLevel,
    /// `uaBlock`.
    UserAgentBlock,
    /// `waf`.
    Waf,
    /// `zoneLockdown`.
    ZoneLockdown,
}

impl Product {
    /// The product of a name, as the API writes it.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(known, product)| (known == name).then_some(product))
    }

    /// All of them with their names.
    pub const ALL: [(&'static str, Self); 7] = [
        ("bic", Self::BrowserIntegrity),
        ("hot", Self::Hotlink),
        ("rateLimit", Self::RateLimit),
        ("securityLevel", Self::SecurityLevel),
        ("uaBlock", Self::UserAgentBlock),
        ("waf", Self::Waf),
        ("zoneLockdown", Self::ZoneLockdown),
    ];
}

/// Text that is written out or made by an expression.
#[derive(Clone, Debug)]
pub enum Text {
    /// Written out.
    Value(Arc<str>),
    /// Made for each request.
    Made(Arc<ValueExpression>),
}

/// Where a visitor is sent.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// URL.
    pub target: Text,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Whether the query goes along.
    pub keep_query: bool,
}

/// What becomes of a header field.
#[derive(Clone, Debug)]
pub struct HeaderChange {
    /// Its name, as it is written out.
    pub name: Box<str>,
    /// What is done.
    pub operation: HeaderOperation,
}

/// What is done with a header field.
#[derive(Clone, Debug)]
pub enum HeaderOperation {
    /// One more line.
    Add(Text),
    /// One line in place of those there are.
    Set(Text),
    /// Taken away.
    Remove,
}

/// Settings of single requests; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether images are served to pages of other sites only when those are of this one.
    pub hotlink_protection: Option<bool>,
    /// Whether requests without `User-Agent` are turned away.
    pub browser_integrity: Option<bool>,
    /// From which threat score on visitors are challenged.
    pub security_level: Option<SecurityLevel>,
}

impl Settings {
    /// These, where `later` says nothing else.
    pub fn then(self, later: Self) -> Self {
        Self {
            hotlink_protection: later.hotlink_protection.or(self.hotlink_protection),
            browser_integrity: later.browser_integrity.or(self.browser_integrity),
            security_level: later.security_level.or(self.security_level),
        }
    }
}

/// A field that is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedField {
    /// Where it is from.
    pub from: FieldSource,
    /// Name, lower case; of a cookie as it is.
    pub name: Arc<str>,
    /// Whether all lines are logged, and not only the first.
    pub all: bool,
}

/// Where a logged field is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldSource {
    /// The request as it came.
    Request,
    /// The request as it went to the origin.
    TransformedRequest,
    /// The response as the visitor gets it.
    Response,
    /// The response as the origin sent it.
    RawResponse,
    /// A cookie of the request.
    Cookie,
}

impl FieldSource {
    /// The name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::TransformedRequest => "transformed_request",
            Self::Response => "response",
            Self::RawResponse => "raw_response",
            Self::Cookie => "cookie",
        }
    }
}

impl Action {
    /// The name in the API and in logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Block(_) => "block",
            Self::Challenge(Challenge::Interactive) => "challenge",
            Self::Challenge(Challenge::Script) => "js_challenge",
            Self::Challenge(Challenge::Managed) => "managed_challenge",
            Self::Log => "log",
            Self::Skip(_) => "skip",
            Self::Execute(_) => "execute",
            Self::Redirect(_) | Self::RedirectFromList { .. } => "redirect",
            Self::RewriteUri { .. } | Self::RewriteHeaders(_) => "rewrite",
            Self::Route(_) => "route",
            Self::SetConfig(_) => "set_config",
            Self::SetCacheSettings(_) => "set_cache_settings",
            Self::Compress(_) => "compress_response",
            Self::ServeError(_) => "serve_error",
            Self::LogFields(_) => "log_custom_field",
        }
    }

    /// Whether nothing is looked at after it, when it is carried out.
    pub const fn ends(&self) -> bool {
        matches!(
            self,
            Self::Block(_)
                | Self::Challenge(_)
                | Self::Redirect(_)
                | Self::RedirectFromList { .. }
                | Self::ServeError(_)
        )
    }
}

impl Rule {
    /// What the ruleset consists of that it executes, as it is used here: for hashes.
    pub(crate) fn write_executed(&self, write: &mut dyn FnMut(&[u8])) {
        let Action::Execute(ruleset) = &self.action else { return };
        for rule in ruleset.rules() {
            write(
                format!("{} {:?} {:?} {:?}", rule.id, rule.filter.source(), rule.action, rule.log_only)
                    .as_bytes(),
            );
        }
    }

    /// Whether its expression reads the body of requests.
    pub fn reads_body(&self) -> bool {
        self.filter.reads().fields.iter().any(|field| field.field().name.starts_with("http.request.body."))
    }
}

impl SiteRules {
    pub(crate) fn new(phases: Vec<(Phase, PhaseRules)>, reads_body: bool) -> Self {
        Self { phases, reads_body }
    }

    /// The rules of a phase; `None` when there are none.
    pub fn phase(&self, phase: Phase) -> Option<&PhaseRules> {
        self.phases.iter().find_map(|(known, rules)| (*known == phase).then_some(rules))
    }

    /// Phases with rules, in the order of a request's life.
    pub fn phases(&self) -> impl Iterator<Item = (Phase, &PhaseRules)> {
        self.phases.iter().map(|(phase, rules)| (*phase, rules))
    }

    /// Whether there are none at all.
    pub fn is_empty(&self) -> bool {
        self.phases.is_empty()
    }
}

impl Ruleset {
    pub(crate) fn new(id: Arc<str>, rules: Vec<Rule>) -> Self {
        let set = RuleSet::new(rules.iter().map(|rule| rule.filter.clone()).collect());
        Self { id, rules, set }
    }

    /// Its rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Its rules, and those of the rulesets they execute.
    pub fn all_rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().flat_map(|rule| {
            let inner = if let Action::Execute(ruleset) = &rule.action { ruleset.rules() } else { &[] };
            std::iter::once(rule).chain(inner)
        })
    }

    /// Shows, in order, every rule that had to be evaluated, each with `steps` of its own, until `see` returns false. Those not
    /// shown are False.
    pub fn visit<'s>(
        &'s self,
        context: &dyn Context,
        steps: usize,
        see: &mut dyn FnMut(&'s Rule, Evaluated) -> bool,
    ) {
        self.set.evaluate(context, steps, &mut |position, evaluated| {
            self.rules.get(position).is_none_or(|rule| see(rule, evaluated))
        });
    }
}
