//! Modules: what decides about requests, and may fail without failing any.
//!
//! `before_upstream` walks the phases. `ask` is the only way a module is called: it may be switched off, passed over by its
//! breaker, stopped by its budget or caught in a panic, and the request goes on by `Module::failure_policy` in each case.

mod breaker;
pub mod diagnostics;
mod policy;
mod protections;
mod revert;
mod running;
mod state;
#[cfg(feature = "faults")]
mod trial;
mod view;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use base::event::Noted;
use base::module::{FailurePolicy, Module, Outcome, OverBudget, Phase, Reason, Verdict};
use snapshot::rules::Action;

pub use self::breaker::Standing;
use self::breaker::{Admission, Change};
pub use self::revert::{Earlier, WINDOW as REVERT_WINDOW};
pub use self::running::{Lookout, Running};
use self::state::RulesOff;
pub use self::state::{MODULES, Modules, OpenBreaker, SiteModules};
pub use self::view::{Meter, RequestView};
use crate::rules::act::{self, Decisions, Effects, End};
use crate::rules::facts::{Answered, Facts};
use crate::rules::walk::{Fate, Found};
use crate::trail::Trail;
use crate::worker::Worker;

/// Verdicts counted of each module.
const VERDICTS: usize = 5;
/// Position of verdicts in `OUTCOMES`.
const PASS: usize = 0;
const LOG: usize = 1;
const BLOCK: usize = 2;
const SCORE: usize = 3;
const CHANGE: usize = 4;
/// Outcomes counted of each module: verdicts, then the reasons for which there is none.
pub const OUTCOMES: [(&str, &str); VERDICTS + Reason::ALL.len()] = [
    ("pass", ""),
    ("log", ""),
    ("block", ""),
    ("score", ""),
    ("change", ""),
    ("unknown", Reason::Panicked.name()),
    ("unknown", Reason::OverBudget.name()),
    ("unknown", Reason::BreakerOpen.name()),
    ("unknown", Reason::SwitchedOff.name()),
    ("unknown", Reason::NotLoaded.name()),
    ("unknown", Reason::NoData.name()),
];

/// How a module has a request answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// A 4xx.
    pub status: u16,
    /// As error pages, logs and metrics name it.
    pub reason: &'static str,
    /// `Allow`, with a 405 (RFC 9110 section 15.5.6).
    pub allow: Option<String>,
}

/// How modules end a request's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is turned away.
    Block(Block),
    /// A rule says how.
    Rule(End),
}

/// Phases before anything of the request's body is looked at, and those after.
pub(crate) const BEFORE_BODY: [Phase; 5] =
    [Phase::Redirect, Phase::Transform, Phase::Config, Phase::Origin, Phase::Ddos];
pub(crate) const AFTER_BODY: [Phase; 9] = [
    Phase::CustomFirewall,
    Phase::RateLimit,
    Phase::ManagedWaf,
    Phase::Bots,
    Phase::BulkRedirect,
    Phase::LateTransform,
    Phase::CacheSettings,
    Phase::Compute,
    Phase::Cache,
];

/// Walks phases between the request and its origin; the first module that ends its way ends the walk.
pub(crate) fn before_upstream<'r>(
    phases: &[Phase],
    facts: &mut Facts<'r>,
    decisions: &mut Decisions<'r>,
    worker: &Worker,
    trail: &mut Trail,
) -> Option<Turn> {
    phases.iter().find_map(|phase| speak(*phase, facts, decisions, worker, trail))
}

fn speak<'r>(
    phase: Phase,
    facts: &mut Facts<'r>,
    decisions: &mut Decisions<'r>,
    worker: &Worker,
    trail: &mut Trail,
) -> Option<Turn> {
    let of = match phase {
        Phase::Redirect => expr::Phase::DynamicRedirect,
        Phase::Transform => expr::Phase::Transform,
        Phase::Config => expr::Phase::ConfigSettings,
        Phase::Origin => expr::Phase::Origin,
        Phase::CustomFirewall => {
            let settings = decisions.settings;
            if let Some(block) = request_policy(&facts.view(), worker, trail)
                .or_else(|| protections::judge(settings, &decisions.skipped, facts))
            {
                return Some(Turn::Block(block));
            }
            expr::Phase::FirewallCustom
        }
        Phase::ManagedWaf => expr::Phase::FirewallManaged,
        Phase::Bots => return bots(&facts.view(), worker, trail).map(Turn::Block),
        Phase::BulkRedirect => expr::Phase::Redirect,
        Phase::LateTransform => expr::Phase::LateTransform,
        Phase::CacheSettings => expr::Phase::CacheSettings,
        // Nobody speaks here yet.
        Phase::Ddos
        | Phase::RateLimit
        | Phase::Compute
        | Phase::Cache
        | Phase::Upstream
        | Phase::CustomErrors
        | Phase::HeaderTransform
        | Phase::Compression
        | Phase::ResponseFirewall
        | Phase::LogFields => return None,
    };
    by_rules(of, facts, decisions, worker, trail).map(Turn::Rule)
}

/// The module that the rules of a phase belong to.
pub(crate) fn module_of(phase: expr::Phase) -> Option<Module> {
    Some(match phase {
        expr::Phase::DynamicRedirect | expr::Phase::Redirect => Module::RedirectRules,
        expr::Phase::Transform | expr::Phase::LateTransform => Module::TransformRules,
        expr::Phase::ConfigSettings => Module::ConfigRules,
        expr::Phase::Origin => Module::OriginRules,
        expr::Phase::FirewallCustom => Module::FirewallRules,
        expr::Phase::FirewallManaged => Module::Waf,
        expr::Phase::CacheSettings => Module::CacheRules,
        expr::Phase::CustomErrors
        | expr::Phase::ResponseHeaders
        | expr::Phase::ResponseCompression
        | expr::Phase::LogFields => Module::ResponseRules,
        _ => return None,
    })
}

/// The rules of a phase before the origin.
fn by_rules<'r>(
    phase: expr::Phase,
    facts: &mut Facts<'r>,
    decisions: &mut Decisions<'r>,
    worker: &Worker,
    trail: &mut Trail,
) -> Option<End> {
    let (rules, module) = act::rules_of(facts, decisions, phase).zip(module_of(phase))?;
    // What a rule that fails half way wanted skipped is not.
    let mut skipped = decisions.skipped.clone();
    let outcome = {
        let (facts, switches) = (&*facts, off(facts));
        ask(module, &facts.view(), worker, |meter| {
            act::decide(rules, facts, facts, &mut skipped, &switches, meter).map(Outcome::Verdict)
        })
    };
    let mut effects = conclude_rules(module, outcome, &facts.view(), worker, trail)?;
    decisions.skipped = skipped;
    effects.on_request(facts, decisions);
    effects.end
}

/// The rules of a phase after the origin; what they make of the response is for the caller to carry out.
pub(crate) fn after_upstream<'r>(
    phase: expr::Phase,
    answered: &Answered<'_, 'r>,
    decisions: &Decisions<'r>,
    worker: &Worker,
    trail: &mut Trail,
) -> Option<Effects<'r>> {
    let facts = answered.facts();
    let rules = act::rules_of(facts, decisions, phase)?;
    let mut skipped = decisions.skipped.clone();
    let switches = off(facts);
    // What the origin took is nobody's budget.
    let view = RequestView { started: Instant::now(), ..facts.view() };
    let outcome = ask(Module::ResponseRules, &view, worker, |meter| {
        act::decide(rules, facts, answered, &mut skipped, &switches, meter).map(Outcome::Verdict)
    });
    conclude_rules(Module::ResponseRules, outcome, &facts.view(), worker, trail)
}

/// Rules that are switched off.
fn off<'r>(facts: &Facts<'r>) -> RulesOff<'r> {
    let surroundings = facts.surroundings();
    surroundings.generation.modules.rules_off(&surroundings.site.site.name)
}

/// Counts and notes what rules say; what comes back is to be carried out.
fn conclude_rules<'r>(
    module: Module,
    outcome: Outcome<Effects<'r>>,
    view: &RequestView<'_>,
    worker: &Worker,
    trail: &mut Trail,
) -> Option<Effects<'r>> {
    if view.golden {
        return None;
    }
    let effects = match outcome {
        Outcome::Verdict(effects) => effects,
        Outcome::Unknown(reason) => {
            worker.shard.module_said(module.index(), VERDICTS + reason as usize);
            note(trail, module, "unknown", Cow::Borrowed(reason.name()));
            // As if there were no rules: `Module::failure_policy` of all of them is to pass.
            return None;
        }
    };
    let slot = match (&effects.end, effects.found.iter().any(|found| found.fate == Fate::Enforced)) {
        (Some(End::Block(_) | End::Challenge), _) => BLOCK,
        (_, true) => CHANGE,
        (_, false) if effects.found.is_empty() => PASS,
        (_, false) => LOG,
    };
    worker.shard.module_said(module.index(), slot);
    for Found { rule, fate } in effects.found.iter().filter(|found| found.rule.noted) {
        let outcome = match fate {
            Fate::Enforced => rule.action.name(),
            Fate::LogOnly => would(&rule.action),
            Fate::OverBudget => Reason::OverBudget.name(),
        };
        note(trail, module, outcome, Cow::Owned(rule.id.to_string()));
    }
    Some(effects)
}

/// What a rule that is only noted would have done.
fn would(action: &Action) -> &'static str {
    match action.name() {
        "block" => "would_block",
        "challenge" | "js_challenge" | "managed_challenge" => "would_challenge",
        "redirect" => "would_redirect",
        "skip" => "would_skip",
        "log" => "log",
        _ => "would_change",
    }
}

fn note(trail: &mut Trail, module: Module, outcome: &'static str, reason: Cow<'static, str>) {
    trail.note(|event| {
        // What there is no room for is in the metrics.
        crate::ignore(event.verdicts.note(Noted { module: module.name(), outcome, reason }));
    });
}

fn request_policy(view: &RequestView<'_>, worker: &Worker, trail: &mut Trail) -> Option<Block> {
    let policy = view.site.site.policy.as_ref()?;
    let outcome = ask(Module::RequestPolicy, view, worker, |meter| {
        policy::judge(policy, view.head, meter).map(Outcome::Verdict)
    });
    let mut block = conclude(Module::RequestPolicy, outcome, view, worker, trail)?;
    block.allow = (block.reason == policy::METHOD).then(|| policy::allow(policy));
    Some(block)
}

#[cfg(feature = "faults")]
fn bots(view: &RequestView<'_>, worker: &Worker, trail: &mut Trail) -> Option<Block> {
    let told = trial::command(view)?;
    let outcome = ask(Module::Trial, view, worker, |meter| trial::judge(told, view, meter));
    conclude(Module::Trial, trial::rule(outcome), view, worker, trail)
}

#[cfg(not(feature = "faults"))]
fn bots(_: &RequestView<'_>, _: &Worker, _: &mut Trail) -> Option<Block> {
    None
}

/// Asks a module about a request, within its budget. The one place where a panic of a module ends.
fn ask<V>(
    module: Module,
    view: &RequestView<'_>,
    worker: &Worker,
    run: impl FnOnce(&mut Meter) -> Result<Outcome<V>, OverBudget>,
) -> Outcome<V> {
    let (modules, site) = (&view.generation.modules, &view.site.modules);
    let now = modules.moment(view.started);
    let admission = match site.admit(module, || now) {
        Ok(admission) => admission,
        Err(reason) => return Outcome::Unknown(reason),
    };
    let mut meter = Meter::new(view.started);
    worker.shared.running.enter(worker.thread(), module, site.number, now);
    let outer = diagnostics::enter(Some(module));
    let said = catch(|| run(&mut meter));
    diagnostics::enter(outer);
    worker.shared.running.leave(worker.thread());
    let outcome = match said {
        Some(Ok(outcome)) if !meter.is_over() => outcome,
        Some(_) => Outcome::Unknown(Reason::OverBudget),
        None => Outcome::Unknown(Reason::Panicked),
    };
    let failure = match &outcome {
        Outcome::Unknown(reason) if reason.is_failure() => Some(*reason),
        _ => None,
    };
    if failure.is_some() || admission != Admission::Plain {
        settle(module, view, worker, admission, failure, now);
    }
    outcome
}

/// What a panic leaves behind may panic again when it is dropped; text cannot.
fn catch<T>(run: impl FnOnce() -> T) -> Option<T> {
    #[cfg(feature = "faults")]
    if crate::fault::without("module-catch") {
        return Some(run());
    }
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|payload| {
            if !payload.is::<String>() && !payload.is::<&'static str>() {
                std::mem::forget(payload);
            }
        })
        .ok()
}

/// Gives the result to the breaker, and deals with what it changes there. Rare: something has failed, or had.
#[cold]
fn settle(
    module: Module,
    view: &RequestView<'_>,
    worker: &Worker,
    admission: Admission,
    failure: Option<Reason>,
    now: u64,
) {
    let (modules, site) = (&view.generation.modules, &view.site.modules);
    if failure == Some(Reason::OverBudget)
        && let Some(left_out) = diagnostics::admit()
    {
        let (module, site) = (module.name(), &*site.name);
        tracing::warn!(module, site, left_out, "a module used up its budget for a request");
    }
    let change = modules.settle(module, site, admission, failure.is_some(), now);
    let at = worker.wall_clock_at(view.started);
    let reason = failure.map_or("probe", Reason::name);
    match change {
        None => {}
        Some(Change::Closed) => modules.tell(revert::works_again(module, site, at)),
        Some(Change::Opened) => match view.generation.revert(view.site, module) {
            Some(earlier) => {
                modules.forgive(module, site);
                modules.tell(revert::reverted(module, site, reason, view.generation.number, earlier, at));
            }
            None => modules.tell(revert::passed_over(module, site, reason, at)),
        },
    }
}

/// What comes of an outcome: counted, noted where there is something to note, and carried out.
fn conclude(
    module: Module,
    outcome: Outcome<Verdict>,
    view: &RequestView<'_>,
    worker: &Worker,
    trail: &mut Trail,
) -> Option<Block> {
    let (slot, name, reason) = match outcome {
        Outcome::Verdict(Verdict::Pass) => (PASS, Verdict::Pass.name(), ""),
        Outcome::Verdict(verdict @ Verdict::Log { reason }) => (LOG, verdict.name(), reason),
        Outcome::Verdict(verdict @ Verdict::Block { reason, .. }) => (BLOCK, verdict.name(), reason),
        Outcome::Verdict(verdict @ Verdict::Score(_)) => (SCORE, verdict.name(), ""),
        Outcome::Unknown(reason) => (VERDICTS + reason as usize, "unknown", reason.name()),
    };
    // Nobody's request: neither counted nor turned away.
    if view.golden {
        return None;
    }
    worker.shard.module_said(module.index(), slot);
    if outcome != Outcome::Verdict(Verdict::Pass) {
        note(trail, module, name, Cow::Borrowed(reason));
    }
    match outcome {
        Outcome::Verdict(Verdict::Block { status, reason }) => Some(Block { status, reason, allow: None }),
        Outcome::Verdict(Verdict::Pass | Verdict::Log { .. } | Verdict::Score(_)) => None,
        // No policy ends a request here. What stands in for a module stands in its own phase.
        Outcome::Unknown(_) => match module.failure_policy() {
            FailurePolicy::Pass
            | FailurePolicy::Unscored
            | FailurePolicy::ServeStale
            | FailurePolicy::LastGoodRules
            | FailurePolicy::LocalCounters
            | FailurePolicy::LocalProofOfWork
            | FailurePolicy::StaticProfile
            | FailurePolicy::UseAll
            | FailurePolicy::DropAndCount => None,
        },
    }
}
