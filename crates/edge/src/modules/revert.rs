//! What follows when a module fails too often at a site: the site goes back to its settings of before, or the module is passed over.

use std::sync::Arc;
use std::time::Duration;

use base::happening::{Component, Happening, Severity, What};
use base::module::Module;
use base::time::Timestamp;
use expr::Phase;
use snapshot::generation::Site;
use snapshot::outline;

use super::diagnostics;
use super::state::SiteModules;
use crate::generation::SiteRuntime;

/// For so long after a generation was loaded a failing module is put down to what it changed.
pub const WINDOW: Duration = Duration::from_secs(600);
/// Why a module is passed over that did not come back.
pub(super) const HUNG: &str = "hung";
/// Settings named in a message.
const MAX_NAMED: usize = 8;

/// A site as it was before a generation, kept for as long as the generation is.
pub struct Earlier {
    /// The site.
    pub runtime: Arc<SiteRuntime>,
    /// The generation it is of.
    pub number: u64,
    /// Modules whose settings are others now, as bits.
    pub modules: u32,
    /// Those settings, for people.
    pub settings: String,
}

impl Earlier {
    /// What a site goes back to, if it has to: `None` when nothing changed that a module reads.
    pub fn of(before: &Arc<SiteRuntime>, number: u64, now: &Site) -> Option<Self> {
        let modules = changed_modules(&before.site, now);
        let settings = || {
            let lines = |site: &Site| outline::modules(site);
            let changes = outline::difference(&lines(&before.site), &lines(now));
            let changes: Vec<_> = changes.iter().take(MAX_NAMED).map(ToString::to_string).collect();
            changes.join("; ")
        };
        (modules != 0).then(|| Self { runtime: before.clone(), number, modules, settings: settings() })
    }
}

/// The modules that read a setting in which two versions of a site differ, as bits.
fn changed_modules(before: &Site, now: &Site) -> u32 {
    let policy =
        if before.policy == now.policy { 0 } else { Module::RequestPolicy.bit() | Module::Trial.bit() };
    let digest = |site: &Site, phase| site.rules.phase(phase).map(|rules| rules.digest);
    let changed = Phase::ALL.iter().filter(|phase| digest(before, **phase) != digest(now, **phase));
    changed.filter_map(|phase| super::module_of(*phase)).fold(policy, |bits, module| bits | module.bit())
}

pub(super) fn passed_over(module: Module, site: &SiteModules, reason: &str, at: Timestamp) -> Happening {
    let failed = match reason {
        HUNG => "did not come back from a request".to_owned(),
        other => format!("failed again and again ({other})"),
    };
    let message = format!(
        "{module} {failed} and is passed over at {} for now: {}",
        site.name,
        module.failure_policy().describe()
    );
    report(module, site, Severity::Warning, &message);
    happening(What::BreakerOpened, Severity::Warning, reason, message, module, site, at)
}

pub(super) fn works_again(module: Module, site: &SiteModules, at: Timestamp) -> Happening {
    let message = format!("{module} works again at {}", site.name);
    report(module, site, Severity::Info, &message);
    happening(What::BreakerClosed, Severity::Info, "works-again", message, module, site, at)
}

pub(super) fn reverted(
    module: Module,
    site: &SiteModules,
    reason: &str,
    generation: u64,
    earlier: &Earlier,
    at: Timestamp,
) -> Happening {
    let message = format!(
        "{} is served as in generation {} again, because {module} failed ({reason}) with what generation {generation} changed: {}",
        site.name, earlier.number, earlier.settings
    );
    report(module, site, Severity::Warning, &message);
    happening(What::SiteReverted, Severity::Warning, reason, message, module, site, at)
        .with_generation(generation)
}

/// Into the program's log, within the budget: a module may fail at thousands of sites in the same second.
fn report(module: Module, site: &SiteModules, severity: Severity, message: &str) {
    let Some(left_out) = diagnostics::admit() else { return };
    let (module, site) = (module.name(), &*site.name);
    match severity {
        Severity::Info => tracing::info!(module, site, left_out, "{message}"),
        Severity::Warning | Severity::Critical => tracing::error!(module, site, left_out, "{message}"),
    }
}

fn happening(
    what: What,
    severity: Severity,
    cause: &str,
    message: String,
    module: Module,
    site: &SiteModules,
    at: Timestamp,
) -> Happening {
    Happening::new(at, what, severity, Component::Modules, cause, message)
        .of_site(&*site.name)
        .about(module.name())
}
