//! What a module may say of a request, what it may use for that, and what becomes of the request when it fails.
//!
//! A module never fails a request: whatever goes wrong inside one becomes `Outcome::Unknown`, and `Module::failure_policy`
//! says what Unknown means. Names are stable: they are metric labels, log fields and what operators type.

use std::fmt;
use std::time::Duration;

/// Steps between two looks at the clock.
const STEPS_PER_LOOK: u32 = 256;

/// A part that decides about requests, or helps to answer them, and may be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Module {
    /// Keeps answers of origins.
    Cache,
    /// Answers questions about names.
    Dns,
    /// Scores how likely a request is automated.
    BotManagement,
    /// Managed rules against attacks.
    Waf,
    /// Counts requests against limits.
    RateLimit,
    /// Has visitors prove that they are people.
    Challenge,
    /// Sees floods and drops them.
    Ddos,
    /// Chooses among origins.
    LoadBalancer,
    /// Access log and events.
    Logs,
    /// A site's own rules about methods and header fields.
    RequestPolicy,
    /// Rules that send visitors elsewhere.
    RedirectRules,
    /// Rules that change URLs and header fields of requests.
    TransformRules,
    /// Rules that change settings.
    ConfigRules,
    /// Rules that choose origins.
    OriginRules,
    /// Rules of the operator's own firewall.
    FirewallRules,
    /// Rules about what is kept of responses.
    CacheRules,
    /// Rules about responses: errors, header fields, compression, what is logged.
    ResponseRules,
    /// Fails in every way there is, for tests; in no release.
    Trial,
}

/// What becomes of a request when a module has nothing to say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// What was kept is served, even past its time.
    ServeStale,
    /// No score: rules on the score do not fire, and limits per path stand in for them.
    Unscored,
    /// The last good rules, then those that are compiled in.
    LastGoodRules,
    /// Counters of this process only; never a limit for everybody.
    LocalCounters,
    /// Proof of work that this process asks for and checks by itself, else the visitor passes at a limited rate.
    LocalProofOfWork,
    /// Fixed thresholds.
    StaticProfile,
    /// Every origin counts as healthy.
    UseAll,
    /// What cannot be written is left out and counted.
    DropAndCount,
    /// As if the module were not there.
    Pass,
}

impl FailurePolicy {
    /// In words, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::ServeStale => "what was kept is served, even past its time",
            Self::Unscored => "requests have no score; rules on the score do not fire",
            Self::LastGoodRules => "the last good rules hold, then those that are compiled in",
            Self::LocalCounters => "counters of this process hold",
            Self::LocalProofOfWork => "visitors solve a puzzle of this process, or pass at a limited rate",
            Self::StaticProfile => "fixed thresholds hold",
            Self::UseAll => "every origin is used",
            Self::DropAndCount => "lines are left out and counted",
            Self::Pass => "requests pass",
        }
    }
}

impl Module {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::Cache,
        Self::Dns,
        Self::BotManagement,
        Self::Waf,
        Self::RateLimit,
        Self::Challenge,
        Self::Ddos,
        Self::LoadBalancer,
        Self::Logs,
        Self::RequestPolicy,
        Self::RedirectRules,
        Self::TransformRules,
        Self::ConfigRules,
        Self::OriginRules,
        Self::FirewallRules,
        Self::CacheRules,
        Self::ResponseRules,
        Self::Trial,
    ];

    /// Those that this version has and that can be switched off; `Trial` counts where faults are compiled in.
    pub const BUILT_IN: [Self; 8] = [
        Self::RequestPolicy,
        Self::RedirectRules,
        Self::TransformRules,
        Self::ConfigRules,
        Self::OriginRules,
        Self::FirewallRules,
        Self::CacheRules,
        Self::ResponseRules,
    ];

    /// Those whose settings are rules.
    pub const RULES: [Self; 7] = [
        Self::RedirectRules,
        Self::TransformRules,
        Self::ConfigRules,
        Self::OriginRules,
        Self::FirewallRules,
        Self::CacheRules,
        Self::ResponseRules,
    ];

    /// Its position in `ALL`; below 32, so that a set of modules is the bits of a `u32`.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The bit of this module in a set of them.
    pub const fn bit(self) -> u32 {
        1 << self.index()
    }

    /// The name operators type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Dns => "dns",
            Self::BotManagement => "bot-management",
            Self::Waf => "waf",
            Self::RateLimit => "rate-limit",
            Self::Challenge => "challenge",
            Self::Ddos => "ddos",
            Self::LoadBalancer => "load-balancer",
            Self::Logs => "logs",
            Self::RequestPolicy => "request-policy",
            Self::RedirectRules => "redirect-rules",
            Self::TransformRules => "transform-rules",
            Self::ConfigRules => "config-rules",
            Self::OriginRules => "origin-rules",
            Self::FirewallRules => "firewall-rules",
            Self::CacheRules => "cache-rules",
            Self::ResponseRules => "response-rules",
            Self::Trial => "trial",
        }
    }

    /// The id of a rule or ruleset in the name a switch gives it: `rule/no-xmlrpc`.
    pub fn rule_of(name: &str) -> Option<&str> {
        let id = name.strip_prefix("rule/")?;
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (!id.is_empty() && id.len() <= 64 && id.bytes().all(good)).then_some(id)
    }

    /// The module of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|module| module.name() == name)
    }

    /// What becomes of requests it has nothing to say of. No policy answers with an error, and none turns anybody away.
    pub const fn failure_policy(self) -> FailurePolicy {
        match self {
            Self::Cache | Self::Dns => FailurePolicy::ServeStale,
            Self::BotManagement => FailurePolicy::Unscored,
            Self::Waf => FailurePolicy::LastGoodRules,
            Self::RateLimit => FailurePolicy::LocalCounters,
            Self::Challenge => FailurePolicy::LocalProofOfWork,
            Self::Ddos => FailurePolicy::StaticProfile,
            Self::LoadBalancer => FailurePolicy::UseAll,
            Self::Logs => FailurePolicy::DropAndCount,
            Self::RequestPolicy
            | Self::RedirectRules
            | Self::TransformRules
            | Self::ConfigRules
            | Self::OriginRules
            | Self::FirewallRules
            | Self::CacheRules
            | Self::ResponseRules
            | Self::Trial => FailurePolicy::Pass,
        }
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A place in a request's life where modules may speak, in the order of Cloudflare's documentation ("Traffic sequence").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Redirects to elsewhere.
    Redirect,
    /// URL and header fields are rewritten.
    Transform,
    /// Settings that depend on the request.
    Config,
    /// Which origin, by rules.
    Origin,
    /// Floods.
    Ddos,
    /// The site's own rules.
    CustomFirewall,
    /// Limits on rates.
    RateLimit,
    /// Managed rules.
    ManagedWaf,
    /// Bots.
    Bots,
    /// Redirects from lists.
    BulkRedirect,
    /// Header fields that tell the origin what was found.
    LateTransform,
    /// How the answer may be kept.
    CacheSettings,
    /// Code of the operator.
    Compute,
    /// An answer that was kept.
    Cache,
    /// The origin is asked.
    Upstream,
    /// Error pages of the operator.
    CustomErrors,
    /// Header fields of the response.
    HeaderTransform,
    /// The body is compressed.
    Compression,
    /// Rules about responses.
    ResponseFirewall,
    /// What is logged beside the usual.
    LogFields,
}

impl Phase {
    /// Those between the request and the origin, in order.
    pub const REQUEST: [Self; 14] = [
        Self::Redirect,
        Self::Transform,
        Self::Config,
        Self::Origin,
        Self::Ddos,
        Self::CustomFirewall,
        Self::RateLimit,
        Self::ManagedWaf,
        Self::Bots,
        Self::BulkRedirect,
        Self::LateTransform,
        Self::CacheSettings,
        Self::Compute,
        Self::Cache,
    ];

    /// Those between the origin's answer and the visitor, in order.
    pub const RESPONSE: [Self; 5] = [
        Self::CustomErrors,
        Self::HeaderTransform,
        Self::Compression,
        Self::ResponseFirewall,
        Self::LogFields,
    ];

    /// The name in logs and documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Transform => "transform",
            Self::Config => "config",
            Self::Origin => "origin",
            Self::Ddos => "ddos",
            Self::CustomFirewall => "custom-firewall",
            Self::RateLimit => "rate-limit",
            Self::ManagedWaf => "managed-waf",
            Self::Bots => "bots",
            Self::BulkRedirect => "bulk-redirect",
            Self::LateTransform => "late-transform",
            Self::CacheSettings => "cache-settings",
            Self::Compute => "compute",
            Self::Cache => "cache",
            Self::Upstream => "upstream",
            Self::CustomErrors => "custom-errors",
            Self::HeaderTransform => "header-transform",
            Self::Compression => "compression",
            Self::ResponseFirewall => "response-firewall",
            Self::LogFields => "log-fields",
        }
    }
}

/// What came of asking a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<V> {
    /// It says this.
    Verdict(V),
    /// It could not say: neither yes nor no, and never a number such as 0.
    Unknown(Reason),
}

/// Why a module could not say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// It panicked.
    Panicked,
    /// It used up its steps or its time.
    OverBudget,
    /// It has failed too often and is passed over for a while.
    BreakerOpen,
    /// Somebody switched it off.
    SwitchedOff,
    /// What it works with has not been loaded.
    NotLoaded,
    /// It has no data about this.
    NoData,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Panicked,
        Self::OverBudget,
        Self::BreakerOpen,
        Self::SwitchedOff,
        Self::NotLoaded,
        Self::NoData,
    ];

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Panicked => "panicked",
            Self::OverBudget => "over_budget",
            Self::BreakerOpen => "breaker_open",
            Self::SwitchedOff => "switched_off",
            Self::NotLoaded => "not_loaded",
            Self::NoData => "no_data",
        }
    }

    /// Whether the module itself is at fault, so that a breaker counts it. Missing data is not: asking again costs nothing.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Panicked | Self::OverBudget)
    }
}

/// What a module may say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing against it.
    Pass,
    /// It goes on, and what was found is noted.
    Log {
        /// What was found.
        reason: &'static str,
    },
    /// It is answered with this status, a 4xx.
    Block {
        /// The status.
        status: u16,
        /// Why, as error pages, logs and metrics name it.
        reason: &'static str,
    },
    /// It goes on with this score, which rules may look at; 1 to 99.
    Score(u8),
}

impl Verdict {
    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Log { .. } => "log",
            Self::Block { .. } => "block",
            Self::Score(_) => "score",
        }
    }
}

/// The budget is used up: whoever gets this returns at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the module has used up its budget")]
pub struct OverBudget;

/// What one call of a module may use: steps, which are the same on every machine, and time, which is looked at rarely.
#[derive(Clone, Debug)]
pub struct Budget {
    steps: u64,
    until_look: u32,
    time: Duration,
    over: bool,
}

impl Budget {
    /// So many steps, and this time as `spend` is told of it.
    pub const fn new(steps: u64, time: Duration) -> Self {
        Self { steps, until_look: STEPS_PER_LOOK, time, over: false }
    }

    /// Uses steps. `elapsed` is asked for every few hundred of them, and must not go back.
    pub fn spend(&mut self, steps: u32, elapsed: impl FnOnce() -> Duration) -> Result<(), OverBudget> {
        self.steps = match self.steps.checked_sub(u64::from(steps)) {
            Some(left) if !self.over => left,
            _ => {
                self.over = true;
                return Err(OverBudget);
            }
        };
        match self.until_look.checked_sub(steps) {
            Some(left) if left > 0 => self.until_look = left,
            _ => {
                self.until_look = STEPS_PER_LOOK;
                self.over = elapsed() > self.time;
            }
        }
        if self.over { Err(OverBudget) } else { Ok(()) }
    }

    /// Whether it was used up at any time: what a module says afterwards does not count.
    pub const fn is_over(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_has_its_number_its_name_and_a_policy_that_turns_nobody_away() {
        for (index, module) in Module::ALL.into_iter().enumerate() {
            assert_eq!((module.index(), Module::by_name(module.name())), (index, Some(module)));
            assert!(!module.failure_policy().describe().is_empty());
        }
        assert!(Module::ALL.len() <= 32);
        assert_eq!(Module::by_name(""), None);
        assert_eq!(Module::by_name("Waf"), None);
        assert_eq!(Module::BotManagement.failure_policy(), FailurePolicy::Unscored);
        assert_eq!(Module::Logs.failure_policy(), FailurePolicy::DropAndCount);
    }

    #[test]
    fn phases_are_told_apart_and_stand_in_their_order() {
        let order: Vec<_> =
            Phase::REQUEST.into_iter().chain([Phase::Upstream]).chain(Phase::RESPONSE).collect();
        assert!(order.is_sorted(), "{order:?}");
        let names: std::collections::BTreeSet<_> = order.iter().map(|phase| phase.name()).collect();
        assert_eq!(names.len(), order.len());
    }

    #[test]
    fn steps_end_where_they_end_whatever_the_clock_says() {
        let mut budget = Budget::new(1000, Duration::from_secs(1));
        let spent = (1..).find(|_| budget.spend(1, || Duration::ZERO).is_err()).unwrap();
        assert_eq!((spent, budget.is_over()), (1001, true));
        assert_eq!(budget.spend(0, || Duration::ZERO), Err(OverBudget), "it stays used up");
        let mut budget = Budget::new(1000, Duration::from_secs(1));
        assert_eq!(budget.spend(u32::MAX, || Duration::ZERO), Err(OverBudget));
    }

    #[test]
    fn time_is_looked_at_rarely_and_counts() {
        let (mut budget, mut looks) = (Budget::new(10_000, Duration::from_millis(5)), 0);
        for _ in 0..2560 {
            let looked = budget.spend(1, || {
                looks += 1;
                Duration::from_millis(5)
            });
            assert_eq!(looked, Ok(()));
        }
        assert_eq!(looks, 10);
        let late = |budget: &mut Budget| budget.spend(300, || Duration::from_millis(6));
        assert_eq!(late(&mut budget), Err(OverBudget));
        assert_eq!(budget.spend(1, || Duration::ZERO), Err(OverBudget));
    }
}
