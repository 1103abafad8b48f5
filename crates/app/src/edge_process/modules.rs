//! Modules as this process tells of them: what is switched off, what is passed over, what happened.

use std::sync::{Arc, PoisonError};

use api::admin::{BreakerStatus, MAX_BREAKERS, ModuleStatus, RevertedSite};
use api::diagnostic::{Diagnostic, Severity};
use api::process::{Reply, Suspect, Switch, Word};
use base::module::Module;
use snapshot::ids::Named;

use super::EdgeProcess;
use crate::builder::now;

/// Modules and how often each has failed.
pub(super) type Failures = Vec<(Module, u64)>;

impl EdgeProcess {
    /// Takes the switches that the supervisor orders, beside those of artefacts.
    pub(super) fn order_switches(&self, switches: Vec<Switch>) {
        *self.ordered.lock().unwrap_or_else(PoisonError::into_inner) = switches;
        self.renew_switches();
    }

    /// Puts all switches in force, whoever has thrown them.
    pub(super) fn renew_switches(&self) {
        let mut all = self.ordered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.extend(self.builder.loader.artefacts().switches());
        self.builder.loader.modules().set_switches(all);
    }

    /// Looks up what a switch is about to name.
    pub(super) fn find_rule(&self, id: &str, site: Option<&str>) -> Reply {
        let generation = self.lock().in_force.as_ref().map(|ready| ready.generation.clone());
        match generation.map(|generation| snapshot::ids::find(&generation.snapshot, id, site)) {
            Some(Named::Known) => Reply::Rule { known: true, similar: Vec::new() },
            Some(Named::Unknown(similar)) => Reply::Rule { known: false, similar },
            None => super::refused("nothing-in-force", "this process serves nothing".to_owned()),
        }
    }

    /// What this process before this one hung in is not asked at first.
    pub(super) fn suspect(&self, suspects: &[Suspect]) {
        for Suspect { module, site, times } in suspects {
            tracing::warn!(
                module,
                site,
                times,
                "an edge process hung in this module; it is passed over here"
            );
        }
        self.builder.loader.modules().suspect(suspects, now());
    }

    pub(super) fn module_status(&self) -> ModuleStatus {
        let modules = self.builder.loader.modules();
        let breakers = modules.open_breakers(MAX_BREAKERS).into_iter().map(|open| BreakerStatus {
            module: open.module.name().to_owned(),
            site: open.site.to_string(),
            open_seconds: open.standing.open_ms / 1000,
            probe_in_seconds: open.standing.probe_in_ms.div_ceil(1000),
            hung: open.standing.suspect,
            meanwhile: open.module.failure_policy().describe().to_owned(),
        });
        let generation = self.lock().in_force.as_ref().map(|ready| ready.generation.clone());
        let reverted = generation.iter().flat_map(|generation| generation.reverted());
        let reverted = reverted.map(|(site, earlier)| RevertedSite {
            site: site.site.name.to_string(),
            generation: earlier.number,
            settings: earlier.settings.clone(),
        });
        ModuleStatus {
            switches: modules.switches(),
            breakers: breakers.collect(),
            reverted: reverted.collect(),
        }
    }

    /// Modules that have failed since `before`: golden requests must not make one fail.
    pub(super) fn failed_since(&self, before: &Failures) -> Vec<Diagnostic> {
        let now = self.builder.loader.modules().failures();
        let fresh = now.into_iter().filter(|counted| !before.contains(counted));
        let told = fresh.map(|(module, _)| Diagnostic {
            severity: Severity::Error,
            code: "module-failed".to_owned(),
            message: format!("{module} fails with it, for requests that it has nothing to do with"),
            location: None,
            hint: Some(format!(
                "the program's log says how; `rempart disable {module}` lets a change through without it"
            )),
        });
        told.collect()
    }
}

/// Tells the supervisor what happened to modules, once this process serves. What a rehearsal does is nobody's business.
pub(super) fn tell(process: Arc<EdgeProcess>) -> std::io::Result<()> {
    let Some(news) = process.builder.loader.modules().news() else { return Ok(()) };
    let work = move || {
        for happening in news {
            let serves = process.lock().in_force.is_some();
            let channel = process.lock_living().1.clone();
            // Without a supervisor the program's log has it.
            let Some(channel) = channel.filter(|_| serves) else { continue };
            if let Err(error) = channel.send(&Word::Happened { happening }, &[]) {
                tracing::debug!(%error, "what happened to a module could not be told");
            }
        }
    };
    std::thread::Builder::new().name("modules".to_owned()).spawn(work).map(drop)
}
