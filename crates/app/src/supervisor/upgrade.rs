//! Upgrades: another binary is tasted, takes the traffic beside the old one, is watched, and is only kept when it does well.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use api::admin::{GenerationSource, UpgradeOutcome};
use api::diagnostic::Diagnostic;
use api::process::{Beat, Reply, Task};
use base::happening::{Component, Severity, What};

use super::child::{AskError, Child, Condition};
use super::fleet::{SMALL, Standby};
use super::taste::{Dish, Tasted, taste};
use super::{Event, LOOK, Launch, Origin, Supervisor, finding};

/// How long a new binary is watched unless told otherwise.
const BAKE: Duration = Duration::from_secs(5);
/// Longest time it can be told to be watched.
const MAX_BAKE: Duration = Duration::from_secs(3600);
/// Time for the requests of one probe.
const PROBE: Duration = Duration::from_secs(30);
/// Time between two probes.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// Share of answers that are failures of the edge's own making by which the new binary may be worse, in per cent, and how
/// many there must be.
const WORSE_PER_CENT: u64 = 5;
const WORSE_AT_LEAST: u64 = 10;

impl Supervisor {
    /// Replaces the edge by another binary, and posts the event by which this process becomes that binary too.
    pub fn upgrade(&self, binary: Option<PathBuf>, bake: Option<Duration>) -> UpgradeOutcome {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let from = env!("CARGO_PKG_VERSION").to_owned();
        let mut to = None;
        let found = self.program(binary).map_err(|found| vec![*found]);
        let outcome = found.and_then(|program| {
            self.try_upgrade(&program, bake.unwrap_or(BAKE).min(MAX_BAKE), &mut to)?;
            Ok(program)
        });
        let mut fleet = self.fleet();
        let (program, diagnostics) = match outcome {
            Ok(program) => {
                fleet.supervision.upgrades += 1;
                (Some(program), Vec::new())
            }
            Err(diagnostics) => {
                fleet.supervision.upgrades_reverted += 1;
                let first = diagnostics.first().map_or("", |found| &found.message);
                tracing::error!("the upgrade is taken back: {first}");
                (None, diagnostics)
            }
        };
        fleet.tell_supervision();
        drop(fleet);
        self.tell_of_upgrade(to.as_deref(), &diagnostics);
        let upgraded = program.is_some();
        if let Some(program) = program {
            self.launch.lock().unwrap_or_else(PoisonError::into_inner).program = program;
        }
        UpgradeOutcome { upgraded, from, to, diagnostics }
    }

    fn tell_of_upgrade(&self, to: Option<&str>, diagnostics: &[Diagnostic]) {
        let to = to.unwrap_or("a binary that did not start");
        match diagnostics.first() {
            None => {
                let message = format!("the binary was replaced: version {to} serves");
                let (what, severity) = (What::Upgraded, Severity::Info);
                self.journal.note(what, severity, Component::Delivery, "upgraded", message);
            }
            Some(found) => {
                let message = format!("version {to} was taken back: {}", found.message);
                let (what, severity) = (What::UpgradeReverted, Severity::Warning);
                self.journal.note(what, severity, Component::Delivery, &found.code, message);
            }
        }
    }

    /// Has this process become the new binary, after the answer to whoever asked has gone out.
    pub fn become_new(&self) {
        self.post(Event::BecomeNew);
    }

    fn program(&self, binary: Option<PathBuf>) -> Result<PathBuf, Box<Diagnostic>> {
        let problem = |message: String, hint: &str| {
            Box::new(Diagnostic { hint: Some(hint.to_owned()), ..finding("no-binary", message) })
        };
        if matches!(self.origin, Origin::Text { source: GenerationSource::Demo, .. }) {
            return Err(problem("the demo is not upgraded".to_owned(), "stop it and start the new binary"));
        }
        let given = match binary {
            Some(path) => path,
            // The file this process was started from; the kernel marks one that was replaced since.
            None => std::env::current_exe()
                .map(|path| PathBuf::from(path.to_string_lossy().trim_end_matches(" (deleted)")))
                .map_err(|error| problem(error.to_string(), "name the new binary with --binary"))?,
        };
        let path = std::fs::canonicalize(&given).map_err(|error| {
            problem(format!("{}: {error}", given.display()), "name the new binary with --binary")
        })?;
        let is_file = std::fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
        if is_file {
            Ok(path)
        } else {
            Err(problem(format!("{} is not a file", path.display()), "name a binary"))
        }
    }

    fn try_upgrade(
        &self,
        program: &Path,
        bake: Duration,
        to: &mut Option<String>,
    ) -> Result<(), Vec<Diagnostic>> {
        let Tasted { child: new, .. } = self.taste_binary(program)?;
        *to = Some(new.version.clone());
        let old = {
            let mut fleet = self.fleet();
            fleet.trial = Some(new.clone());
            fleet.active.clone()
        };
        let done = match &old {
            None => Err("there is no edge to be replaced at the moment".to_owned()),
            Some(old) => self.swap_and_bake(old, &new, bake),
        };
        let mut fleet = self.fleet();
        fleet.trial = None;
        let Some(old) = old else {
            new.kill();
            return Err(vec![finding("no-edge", "there is no edge to be replaced at the moment".to_owned())]);
        };
        if let Err(reason) = done {
            // Whoever serves now takes the new connections again before the other one is ended.
            if let Some(active) = fleet.active.clone()
                && let Err(error) = fleet.hand_over(&active)
            {
                tracing::error!(%error, "the old edge did not take its sockets back");
            }
            new.kill();
            return Err(vec![finding("upgrade-taken-back", reason)]);
        }
        let replaced = fleet.active.replace(new).unwrap_or(old);
        replaced.tell(Task::Drain(fleet.force.loaded.drain));
        fleet.draining.push(replaced);
        // The standby is still the old binary.
        if let Some(Standby { child, .. }) = fleet.standby.take() {
            child.kill();
        }
        Ok(())
    }

    fn taste_binary(&self, program: &Path) -> Result<Tasted, Vec<Diagnostic>> {
        let launch = Launch { program: program.to_owned(), ..self.launch() };
        let (load, package, artefacts, tickets) = {
            let fleet = self.fleet();
            let package = fleet.force.package.try_clone();
            (fleet.load_in_force(), package, fleet.artefacts.given(), fleet.tickets.clone())
        };
        let missing = |error: std::io::Error| vec![finding("no-package", error.to_string())];
        let (package, artefacts) = (package.map_err(missing)?, artefacts.map_err(missing)?);
        let dish = Dish { load, package: Some(&package), artefacts: &artefacts, tickets: &tickets };
        taste(&launch, self.taste, dish, Some(self))
    }

    /// The new one accepts, then the old one no longer does; then the new one must do well for a while.
    fn swap_and_bake(&self, old: &Arc<Child>, new: &Arc<Child>, bake: Duration) -> Result<(), String> {
        let before = old.beat();
        let fleet = self.fleet();
        fleet.hand_over(new).map_err(|error| format!("the new binary did not take the sockets: {error}"))?;
        drop(fleet);
        old.ask(Task::Pause, &[], SMALL).map_err(|error| format!("the old edge: {error}"))?;
        let end = Instant::now() + bake;
        let mut next_probe = Instant::now();
        loop {
            self.judge(old, new, &before)?;
            if Instant::now() >= next_probe {
                self.probe(old, new, &before)?;
                next_probe = Instant::now() + PROBE_PAUSE;
            }
            if Instant::now() >= end {
                // Not without a last look from outside.
                return self.probe(old, new, &before);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What can be seen from here.
    fn judge(&self, old: &Arc<Child>, new: &Child, before: &Beat) -> Result<(), String> {
        match new.look() {
            Condition::Fine => {}
            Condition::Ended(ending) => return Err(format!("the new binary: {ending}")),
            other => return Err(format!("the new binary hangs ({other:?})")),
        }
        let is_active = self.fleet().active.as_ref().is_some_and(|active| Arc::ptr_eq(active, old));
        if !is_active {
            return Err("the old edge had to be replaced meanwhile".to_owned());
        }
        let now = new.beat();
        if is_worse(before, &now) {
            return Err(format!(
                "{} of {} answers of the new binary are failures",
                now.failures, now.requests
            ));
        }
        Ok(())
    }

    /// What can be seen by visitors: the old binary, which is trusted, asks through every listener. The new one is watched
    /// meanwhile.
    fn probe(&self, old: &Arc<Child>, new: &Child, before: &Beat) -> Result<(), String> {
        let listeners = self.fleet().sockets.all_orders().0;
        let task = Task::Probe { listeners, instance: new.instance.clone() };
        match old.ask_watched(task, &[], PROBE, |_| self.judge(old, new, before)) {
            Ok((Reply::Probed { failures }, _)) => match failures.first() {
                None => Ok(()),
                Some(first) => Err(format!("the new binary does not take traffic well: {first}")),
            },
            Ok(_) => Err("the old edge answered something unexpected".to_owned()),
            Err(AskError::Stopped(reason)) => Err(reason),
            Err(error) => Err(format!("the old edge could not probe the new one: {error}")),
        }
    }
}

/// Whether clearly more of its answers are failures of the edge's own making than it was before.
fn is_worse(before: &Beat, now: &Beat) -> bool {
    let share = |beat: &Beat| beat.failures.saturating_mul(100) / beat.requests.max(1);
    now.failures >= WORSE_AT_LEAST && share(now) > share(before) + WORSE_PER_CENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worse_is_clearly_more_failures_than_before() {
        let beat = |requests, failures| Beat { requests, failures, ..Beat::default() };
        assert!(!is_worse(&beat(100, 0), &beat(5, 5)), "too few to tell");
        assert!(is_worse(&beat(100, 0), &beat(100, 10)));
        assert!(!is_worse(&beat(100, 50), &beat(100, 52)), "the origin was down before");
        assert!(!is_worse(&beat(0, 0), &beat(1000, 0)));
    }
}
