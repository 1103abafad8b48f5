//! Modules: what decides about requests, and may fail without failing any.
//!
//! `before_upstream` walks the phases. `ask` is the only way a module is called: it may be switched off, passed over by its
//! breaker, stopped by its budget or caught in a panic, and the request goes on by `Module::failure_policy` in each case.

mod breaker;
pub mod diagnostics;
mod policy;
mod revert;
mod running;
mod state;
#[cfg(feature = "faults")]
mod trial;
mod view;

use std::panic::{AssertUnwindSafe, catch_unwind};

use base::event::Noted;
use base::module::{FailurePolicy, Module, Outcome, OverBudget, Phase, Reason, Verdict};

pub use self::breaker::Standing;
use self::breaker::{Admission, Change};
pub use self::revert::{Earlier, WINDOW as REVERT_WINDOW};
pub use self::running::{Lookout, Running};
pub use self::state::{MODULES, Modules, OpenBreaker, SiteModules};
pub use self::view::{Meter, RequestView};
use crate::trail::Trail;
use crate::worker::Worker;

/// Outcomes counted of each module: four verdicts, then the reasons.
pub const OUTCOMES: [(&str, &str); 4 + Reason::ALL.len()] = [
    ("pass", ""),
    ("log", ""),
    ("block", ""),
    ("score", ""),
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

/// Walks the phases between the request and its origin; the first module that has something against it ends the walk.
pub(crate) fn before_upstream(view: &RequestView<'_>, worker: &Worker, trail: &mut Trail) -> Option<Block> {
    Phase::REQUEST.into_iter().find_map(|phase| speak(phase, view, worker, trail))
}

fn speak(phase: Phase, view: &RequestView<'_>, worker: &Worker, trail: &mut Trail) -> Option<Block> {
    match phase {
        Phase::CustomFirewall => custom_firewall(view, worker, trail),
        Phase::Bots => bots(view, worker, trail),
        // Nobody speaks here yet.
        Phase::Redirect
        | Phase::Transform
        | Phase::Config
        | Phase::Origin
        | Phase::Ddos
        | Phase::RateLimit
        | Phase::ManagedWaf
        | Phase::LateTransform
        | Phase::CacheSettings
        | Phase::Compute
        | Phase::Cache
        | Phase::Upstream
        | Phase::CustomErrors
        | Phase::HeaderTransform
        | Phase::Compression
        | Phase::ResponseFirewall => None,
    }
}

fn custom_firewall(view: &RequestView<'_>, worker: &Worker, trail: &mut Trail) -> Option<Block> {
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
fn ask(
    module: Module,
    view: &RequestView<'_>,
    worker: &Worker,
    run: impl FnOnce(&mut Meter) -> Result<Outcome<Verdict>, OverBudget>,
) -> Outcome<Verdict> {
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
    let failure = match outcome {
        Outcome::Unknown(reason) if reason.is_failure() => Some(reason),
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
        Outcome::Verdict(Verdict::Pass) => (0, Verdict::Pass.name(), ""),
        Outcome::Verdict(verdict @ Verdict::Log { reason }) => (1, verdict.name(), reason),
        Outcome::Verdict(verdict @ Verdict::Block { reason, .. }) => (2, verdict.name(), reason),
        Outcome::Verdict(verdict @ Verdict::Score(_)) => (3, verdict.name(), ""),
        Outcome::Unknown(reason) => (4 + reason as usize, "unknown", reason.name()),
    };
    // Nobody's request: neither counted nor turned away.
    if view.golden {
        return None;
    }
    worker.shard.module_said(module.index(), slot);
    if outcome != Outcome::Verdict(Verdict::Pass) {
        trail.note(|event| {
            // What there is no room for is in the metrics.
            crate::ignore(event.verdicts.note(Noted { module: module.name(), outcome: name, reason }));
        });
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
