//! Changes: from a request to a generation in force, or to a refusal that changed nothing.

use std::fs::File;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::admin::{GenerationSource, Refusal, ReloadOutcome};
use api::diagnostic::{Diagnostic, Severity as FindingSeverity};
use api::process::{Load, LoadFrom, Loaded, MetricsOrder, Reply, Task, Watched};
use base::happening::{Component, Happening, IN_PART, Severity, What};

use super::child::{AskError, Child};
use super::fleet::{Fleet, Force, SMALL, Standby, Unconfirmed};
use super::sockets::Plan;
use super::taste::Tasted;
use super::{LOAD, Supervisor, finding};
use crate::builder::{now, rfc3339};
use crate::sources;

/// How often certificate files are looked at. A change is taken when it has not moved on between two looks.
const FILES: Duration = Duration::from_secs(1);
/// Time for an edge that died during a change to be replaced.
const REPLACEMENT: Duration = Duration::from_secs(10);
/// How long a forced change waits to be confirmed.
pub const CONFIRM: Duration = Duration::from_secs(600);
/// How often a change is carried on with another edge when the one it was made on has died.
const ATTEMPTS: u32 = 3;
/// Warnings about what should have followed a change and did not; a reload tries again.
/// Who reads files again that have changed.
const CHANGED_FILES: &str = "changed files";
const NOT_KEPT: &str = "not-kept";
const METRICS_NOT_SERVED: &str = "metrics-not-served";

impl Supervisor {
    /// Reads the configuration again and puts it in force if it is good; else everything stays as it is. With `force`, it may
    /// take away more than a change may, and must be confirmed.
    pub fn reload(&self, by: &str, force: bool) -> ReloadOutcome {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.fleet().force.package.try_clone();
        let before = match before {
            Ok(package) => package,
            Err(error) => return self.refuse(vec![finding("no-package", error.to_string())]),
        };
        let way_back = force.then(|| self.way_back());
        let mut outcome =
            self.change(self.origin.load_from(), Some(&before), self.origin.source(), by, force);
        if let Some(way_back) = way_back
            && outcome.changed
        {
            let mut fleet = self.fleet();
            fleet.unconfirmed =
                Some(Unconfirmed { until: Instant::now() + CONFIRM, package: before, source: way_back });
            outcome.confirm_seconds = Some(CONFIRM.as_secs());
        }
        outcome
    }

    fn way_back(&self) -> GenerationSource {
        self.fleet().force.source
    }

    /// Somebody says that a forced configuration is as wanted.
    pub fn confirm(&self) -> Result<(), String> {
        match self.fleet().unconfirmed.take() {
            Some(_) => Ok(()),
            None => Err("no change waits to be confirmed".to_owned()),
        }
    }

    /// Takes a forced configuration back that nobody confirmed in time.
    pub fn take_back_unconfirmed(&self) {
        let due = {
            let mut fleet = self.fleet();
            fleet.unconfirmed.take_if(|waiting| Instant::now() >= waiting.until)
        };
        let Some(Unconfirmed { package, source, .. }) = due else { return };
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.fleet().force.loaded.number;
        let message = format!("generation {number} was forced and nobody confirmed it: it is taken back");
        tracing::error!("{message}");
        let outcome =
            self.change(LoadFrom::Package { served: true }, Some(&package), source, "commit-confirm", false);
        let (what, component) = (What::GenerationReverted, Component::Configuration);
        let happening = Happening::new(now(), what, Severity::Warning, component, "unconfirmed", message);
        self.journal.tell(happening.with_generation(number));
        if !outcome.active {
            tracing::error!("the configuration before it could not be put in force again");
        }
    }

    /// Takes changed certificate files into the configuration in force, whatever the configuration file says meanwhile.
    fn refresh_files(&self) -> ReloadOutcome {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (package, source) = {
            let fleet = self.fleet();
            (fleet.force.package.try_clone(), fleet.force.source)
        };
        match package {
            Ok(package) => self.change(LoadFrom::Reread, Some(&package), source, CHANGED_FILES, false),
            Err(error) => self.refuse(vec![finding("no-package", error.to_string())]),
        }
    }

    pub fn change(
        &self,
        from: LoadFrom,
        package: Option<&File>,
        source: GenerationSource,
        by: &str,
        force: bool,
    ) -> ReloadOutcome {
        let number = {
            let fleet = self.fleet();
            if fleet.ending {
                return outcome(&fleet, false, false, vec![draining()]);
            }
            fleet.highest + 1
        };
        let tasted = match self.taste(Load { number, from, source, force }, package) {
            Ok(tasted) => tasted,
            Err(diagnostics) => return self.refuse(diagnostics),
        };
        let (given_up, same) = {
            let fleet = self.fleet();
            let same = tasted.loaded.id == fleet.force.loaded.id && fleet.force.source == source;
            (fleet.given_up.get(&tasted.loaded.id).cloned(), same)
        };
        if same {
            return self.nothing_changed(tasted);
        }
        if let Some(reason) = given_up {
            tasted.child.kill();
            let mut found = finding("given-up", format!("this configuration is not tried again: {reason}"));
            found.hint = Some("change it, or restart Rempart to have it tried once more".to_owned());
            return self.refuse(vec![found]);
        }
        self.journal.brings(tasted.loaded.number, by, now());
        match self.put_in_force(tasted, source) {
            Ok(outcome) => {
                self.tell_of_activation(by);
                outcome
            }
            Err(diagnostics) => self.refuse(diagnostics),
        }
    }

    fn tell_of_activation(&self, by: &str) {
        let number = self.fleet().force.loaded.number;
        let left_out = self.edge_status().map(|edge| edge.modules.reverted).unwrap_or_default();
        let but: String = left_out
            .iter()
            .map(|site| {
                format!(", but for {}, which is served as in generation {}", site.site, site.generation)
            })
            .collect();
        let cause = if left_out.is_empty() { "activated" } else { IN_PART };
        let message = format!("generation {number} of the configuration is in force{but}");
        let (what, component) = (What::GenerationActivated, Component::Configuration);
        let happening = Happening::new(now(), what, Severity::Info, component, cause, message);
        self.journal.tell(happening.with_generation(number).done_by(by));
    }

    /// The sources say what is in force already; only their wording may differ.
    fn nothing_changed(&self, tasted: Tasted) -> ReloadOutcome {
        tasted.child.kill();
        let mut fleet = self.fleet();
        let fresh = Loaded { number: fleet.force.loaded.number, ..tasted.loaded };
        let before = std::mem::replace(&mut fleet.force.warnings, fresh.diagnostics.clone());
        // A comment may have changed: this text is the one to compare the file with.
        fleet.force.loaded = fresh;
        fleet.refused = None;
        // What did not work when this generation came into force is tried again.
        if before.iter().any(|found| found.code == NOT_KEPT) {
            self.keep(&mut fleet);
        }
        if before.iter().any(|found| found.code == METRICS_NOT_SERVED) {
            let order = move_metrics(&mut fleet);
            if order == MetricsOrder::Serve
                && let Some(active) = fleet.active.clone()
                && let Err(error) = fleet.hand_over(&active)
            {
                tracing::warn!(%error, "the edge did not take the metrics socket");
            }
        }
        fleet.tell_supervision();
        outcome(&fleet, true, false, fleet.force.warnings.clone())
    }

    fn put_in_force(
        &self,
        tasted: Tasted,
        source: GenerationSource,
    ) -> Result<ReloadOutcome, Vec<Diagnostic>> {
        let planned = self.fleet().sockets.plan(&tasted.loaded.listeners, tasted.loaded.threads);
        let plan = match planned {
            Ok(plan) => plan,
            Err(diagnostics) => {
                tasted.child.kill();
                return Err(diagnostics);
            }
        };
        match self.change_edge(&tasted, &plan, source) {
            Ok((fleet, lost)) => {
                let outcome = self.commit(fleet, tasted, plan, source, lost);
                self.withdraw_with_feeds();
                Ok(outcome)
            }
            Err(error) => {
                tasted.child.kill();
                self.take_back(tasted.loaded.threads);
                let message = format!("the edge could not change over: {error}");
                Err(match error {
                    AskError::Refused(diagnostics) => diagnostics,
                    _ => vec![finding("not-activated", message)],
                })
            }
        }
    }

    /// The edge has changed over: from here on this is what every process is given. `lost` edges died over it.
    fn commit(
        &self,
        mut fleet: MutexGuard<'_, Fleet>,
        tasted: Tasted,
        plan: Plan,
        source: GenerationSource,
        lost: u32,
    ) -> ReloadOutcome {
        let Tasted { child, loaded, package } = tasted;
        fleet.sockets.put_in_force(plan);
        let (number, is_wanted) = (loaded.number, loaded.standby);
        tracing::info!(generation = number, id = loaded.id, "a new generation is in force");
        let undone = std::mem::take(&mut fleet.force.warnings);
        fleet.set_force(Force::now(loaded, source, package));
        // Noted by the change itself.
        fleet.force.warnings.extend(undone.into_iter().filter(|found| found.code == METRICS_NOT_SERVED));
        let at = Instant::now();
        (0..lost).for_each(|_| fleet.crashes.push_back(at));
        fleet.suspect = None;
        fleet.refused = None;
        let old = fleet.standby.take();
        let standby = Standby { child, held: fleet.held() };
        let needless = if is_wanted { fleet.standby.replace(standby) } else { Some(standby) };
        for standby in old.into_iter().chain(needless) {
            standby.child.kill();
        }
        self.keep(&mut fleet);
        fleet.tell_supervision();
        outcome(&fleet, true, true, fleet.force.warnings.clone())
    }

    /// A change was not made after all: what was closed for it is opened again, and given to the edge that serves.
    fn take_back(&self, threads: usize) {
        let mut fleet = self.fleet();
        fleet.sockets.restore(threads);
        let metrics = fleet.force.loaded.metrics;
        if let Err(error) = fleet.sockets.serve_metrics(metrics) {
            tracing::error!(%error, "metrics are not served");
        }
        if let Some(active) = fleet.active.clone()
            && let Err(error) = fleet.hand_over(&active)
        {
            tracing::warn!(%error, "the edge did not take its sockets back");
        }
    }

    /// Has the edge that serves load and activate what was tasted; another one, when it dies over it. Answers with the lock
    /// under which that was done, so that nothing can come between it and the commit, and with how many died.
    fn change_edge(
        &self,
        tasted: &Tasted,
        plan: &Plan,
        source: GenerationSource,
    ) -> Result<(MutexGuard<'_, Fleet>, u32), AskError> {
        let mut lost = 0;
        loop {
            let Some(active) = self.wait_for_edge() else { return Err(AskError::Gone) };
            match self.change_one(&active, tasted, plan, source) {
                Ok(fleet) => return Ok((fleet, lost)),
                Err(error @ AskError::Refused(_)) => {
                    self.fleet().suspect = None;
                    return Err(error);
                }
                Err(error) if lost + 1 >= ATTEMPTS => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the edge was lost in the middle of a change; it is made again");
                }
            }
            lost += 1;
        }
    }

    fn change_one(
        &self,
        active: &Arc<Child>,
        tasted: &Tasted,
        plan: &Plan,
        source: GenerationSource,
    ) -> Result<MutexGuard<'_, Fleet>, AskError> {
        use std::os::fd::AsFd as _;
        // If it dies now, that is not for the generation it has served so far.
        self.fleet().suspect = Some(active.clone());
        // Exactly what was tasted: not `served`, so nothing is overlooked that the taster would have refused.
        let (number, from) = (tasted.loaded.number, LoadFrom::Package { served: false });
        let load = Load { number, from, source, force: false };
        active.ask(Task::Load(load), &[tasted.package.as_fd()], LOAD)?;
        let mut fleet = self.fleet();
        if !fleet.active.as_ref().is_some_and(|now| Arc::ptr_eq(now, active)) {
            return Err(AskError::Gone);
        }
        fleet.sockets.release(plan);
        let before = fleet.force.loaded.metrics;
        fleet.force.loaded.metrics = tasted.loaded.metrics;
        let metrics = move_metrics(&mut fleet);
        fleet.force.loaded.metrics = before;
        fleet.change_over(active, plan, metrics)?;
        if active.ended().is_some() { Err(AskError::Gone) } else { Ok(fleet) }
    }

    fn wait_for_edge(&self) -> Option<Arc<Child>> {
        let deadline = Instant::now() + REPLACEMENT;
        loop {
            let active = self.fleet().active.clone().filter(|active| active.ended().is_none());
            if active.is_some() || Instant::now() >= deadline {
                return active;
            }
            std::thread::sleep(super::LOOK);
        }
    }

    /// Keeps what is in force on disk. What fails here costs a warning, not the change.
    fn keep(&self, fleet: &mut Fleet) {
        if let Err(error) = self.state.keep(fleet.force.loaded.number, &fleet.force.package) {
            tracing::error!(%error, "the generation is in force but could not be kept on disk");
            fleet.force.warnings.push(not_kept(&error));
        } else if let Err(error) = self.state.keep_listeners(&fleet.force.loaded.listeners) {
            tracing::warn!(%error, "the addresses listened on could not be kept");
        }
    }

    fn refuse(&self, diagnostics: Vec<Diagnostic>) -> ReloadOutcome {
        for diagnostic in
            diagnostics.iter().filter(|diagnostic| diagnostic.severity == FindingSeverity::Error)
        {
            let place = diagnostic.location.as_ref().map(|place| format!("{}:{}", place.file, place.line));
            tracing::error!(code = diagnostic.code, place, "configuration refused: {}", diagnostic.message);
        }
        #[cfg(feature = "faults")]
        if edge::fault::without("previous-stays") {
            super::guard::fall_back_to_defaults(self);
        }
        let mut fleet = self.fleet();
        fleet.refused = Some(Refusal { at: rfc3339(now()), diagnostics: diagnostics.clone() });
        fleet.tell_supervision();
        self.journal.tell(refusal(&diagnostics));
        outcome(&fleet, false, false, diagnostics)
    }

    /// The generation in force as sorted lines, for `rempart check`.
    pub fn outline(&self) -> Option<(String, Vec<String>)> {
        let active = self.fleet().active.clone()?;
        match active.ask(Task::Outline, &[], SMALL) {
            Ok((Reply::Outline { generation, lines }, _)) => Some((generation, lines)),
            _ => None,
        }
    }
}

pub(super) fn refusal(diagnostics: &[Diagnostic]) -> Happening {
    let first = diagnostics.iter().find(|found| found.severity == FindingSeverity::Error);
    let (cause, reason) =
        first.map_or(("refused", "no reason given"), |found| (found.code.as_str(), &found.message));
    let message = format!("a configuration was refused, the one in force stays: {reason}");
    let (what, component) = (What::GenerationRefused, Component::Configuration);
    Happening::new(now(), what, Severity::Warning, component, cause, message)
}

/// Opens, moves or closes the metrics socket as the generation wants it; a failure is a warning.
fn move_metrics(fleet: &mut Fleet) -> MetricsOrder {
    let wanted = fleet.force.loaded.metrics;
    fleet.force.warnings.retain(|found| found.code != METRICS_NOT_SERVED);
    match fleet.sockets.serve_metrics(wanted) {
        Ok(false) => MetricsOrder::Keep,
        Ok(true) if wanted.is_some() => MetricsOrder::Serve,
        Ok(true) => MetricsOrder::End,
        Err(error) => {
            tracing::error!(%error, "metrics are not served");
            fleet.force.warnings.push(metrics_not_served(&error));
            MetricsOrder::End
        }
    }
}

/// Takes up files that a configuration refers to when they have changed and come to rest: they are often replaced one
/// after the other.
pub fn watch_files(supervisor: &Supervisor) {
    let mut seen = Vec::new();
    // What led to a refusal is not offered again and again.
    let mut refused = Vec::new();
    loop {
        std::thread::sleep(FILES);
        let taken = {
            let fleet = supervisor.fleet();
            if fleet.ending {
                return;
            }
            fleet.force.loaded.watched.clone()
        };
        let now = look(&taken);
        if now != taken && now == seen && now != refused {
            let outcome = supervisor.refresh_files();
            if !outcome.active {
                refused.clone_from(&now);
            } else if outcome.changed {
                tracing::info!(number = outcome.number, "changed certificate files are in force");
            }
        }
        seen = now;
    }
}

/// The same files as they look now.
fn look(watched: &[Watched]) -> Vec<Watched> {
    let again = |file: &Watched| Watched { seen: sources::fingerprint(&file.path), path: file.path.clone() };
    watched.iter().map(again).collect()
}

/// The warning that a generation is in force and not on disk.
pub fn not_kept(error: &io::Error) -> Diagnostic {
    warning(
        NOT_KEPT,
        format!("the generation in force could not be kept on disk: {error}"),
        "make room in the state folder, then run `rempart reload`",
    )
}

/// The warning that metrics are not served.
pub fn metrics_not_served(error: &io::Error) -> Diagnostic {
    warning(
        METRICS_NOT_SERVED,
        format!("metrics are not served: {error}"),
        "choose another port for [metrics] listen, or \"off\"",
    )
}

fn warning(code: &str, message: String, hint: &str) -> Diagnostic {
    Diagnostic {
        severity: FindingSeverity::Warning,
        code: code.to_owned(),
        message,
        location: None,
        hint: Some(hint.to_owned()),
    }
}

fn draining() -> Diagnostic {
    let mut found = finding("draining", "Rempart is ending and takes no new configuration".to_owned());
    found.hint = Some("start it again".to_owned());
    found
}

fn outcome(fleet: &Fleet, active: bool, changed: bool, diagnostics: Vec<Diagnostic>) -> ReloadOutcome {
    let Loaded { number, id, .. } = &fleet.force.loaded;
    ReloadOutcome {
        active,
        changed,
        number: *number,
        generation: id.clone(),
        diagnostics,
        confirm_seconds: None,
    }
}
