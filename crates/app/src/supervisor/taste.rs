//! The taster: a process that may die tries a generation before anybody depends on it.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Instant;

use api::diagnostic::Diagnostic;
use api::process::{Load, Loaded, Reply, Task, TicketKey};

use super::artefacts::Given;
use super::child::{AskError, Child, Ending, Launch};
use super::{Supervisor, TasteLimits, finding, start_edge};
use crate::builder::cannot_start;

/// A generation that was tried and found good, in the process that tried it.
pub struct Tasted {
    /// Has it loaded, and can become standby or edge.
    pub child: Arc<Child>,
    /// What it is.
    pub loaded: Loaded,
    /// Everything it was made from.
    pub package: File,
}

/// The process of a taste that is going on; ended when the taste is given up.
struct Trial<'a> {
    child: Arc<Child>,
    limits: TasteLimits,
    number: u64,
    supervisor: Option<&'a Supervisor>,
    good: bool,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.good {
            self.child.kill();
        }
        if let Some(supervisor) = self.supervisor {
            supervisor.fleet().taster = None;
        }
    }
}

/// What is tasted.
pub struct Dish<'a> {
    /// The configuration.
    pub load: Load,
    /// Its package, for a load that needs one.
    pub package: Option<&'a File>,
    /// The other artefacts.
    pub artefacts: &'a [Given],
    /// Keys of session tickets.
    pub tickets: &'a [TicketKey],
}

/// Loads a generation and artefacts in a process of its own, has it do its deferred work and answer golden requests.
pub fn taste(
    launch: &Launch,
    limits: TasteLimits,
    dish: Dish<'_>,
    supervisor: Option<&Supervisor>,
) -> Result<Tasted, Vec<Diagnostic>> {
    let Dish { load, package, artefacts, tickets } = dish;
    let number = load.number;
    let child = start_edge(launch, tickets).map_err(|error| {
        let error = anyhow::anyhow!("the process that tries a new generation could not be started: {error}");
        vec![cannot_start(&error)]
    })?;
    if let Some(supervisor) = supervisor {
        supervisor.fleet().taster = Some(child.clone());
    }
    let mut trial = Trial { child, limits, number, supervisor, good: false };
    let (reply, descriptors) = trial.ask(Task::Load(load), package, "loading it")?;
    let (Reply::Loaded(loaded), Some(package)) = (reply, descriptors.into_iter().next()) else {
        return Err(vec![finding(
            "taster-confused",
            "the process that tried it answered something else".to_owned(),
        )]);
    };
    let feeds = super::artefacts::feeds(&loaded);
    for given in artefacts {
        // As the generation says that is tasted; one without this feed does not want it.
        let Some(feed) = feeds.iter().find(|feed| feed.name == given.feed.name) else { continue };
        let task = Task::Artefact { feed: feed.clone(), again: true, forced: false };
        trial.ask(task, Some(&given.package), &format!("loading the data of {}", feed.name))?;
    }
    if let Some(supervisor) = supervisor {
        supervisor.tell_restrictions(&trial.child);
    }
    #[cfg(feature = "faults")]
    if edge::fault::without("taster") {
        trial.good = true;
        return Ok(Tasted { child: trial.child.clone(), loaded: *loaded, package: package.into() });
    }
    trial.ask(Task::Rehearse, None, "its deferred work and golden requests")?;
    trial.good = true;
    Ok(Tasted { child: trial.child.clone(), loaded: *loaded, package: package.into() })
}

impl Trial<'_> {
    fn ask(
        &self,
        task: Task,
        package: Option<&File>,
        doing: &str,
    ) -> Result<(Reply, Vec<std::os::fd::OwnedFd>), Vec<Diagnostic>> {
        let descriptors: Vec<_> = package.iter().map(|package| package.as_fd()).collect();
        let began = (Instant::now(), self.child.processor_time());
        let watch = |child: &Child| {
            let resident = child.resident();
            if resident > self.limits.memory {
                return Err(format!(
                    "{doing} took more than {} MiB of memory (it had {} MiB when it was ended)",
                    self.limits.memory >> 20,
                    resident >> 20
                ));
            }
            let used = child.processor_time().saturating_sub(began.1);
            if used > self.limits.time {
                return Err(format!(
                    "{doing} took more than {} s of processor time",
                    self.limits.time.as_secs()
                ));
            }
            Ok(())
        };
        self.child
            .ask_watched(task, &descriptors, self.limits.time, watch)
            .map_err(|error| self.explain(error, doing))
    }

    fn explain(&self, error: AskError, doing: &str) -> Vec<Diagnostic> {
        let (code, message) = match error {
            AskError::Refused(diagnostics) => return diagnostics,
            AskError::Gone => {
                let ending = self.child.wait_for_end().unwrap_or(Ending::Unknown);
                (
                    "taster-died",
                    format!(
                        "generation {} ended the process that tried it, in {doing}: {ending}",
                        self.number
                    ),
                )
            }
            AskError::Late(limit) => (
                "taster-hung",
                format!("generation {}: {doing} took longer than {} s", self.number, limit.as_secs()),
            ),
            AskError::Stopped(reason) => ("taster-exceeded", format!("generation {}: {reason}", self.number)),
        };
        tracing::error!("{message}");
        let mut found = finding(code, message);
        found.hint = Some(
            "the generation in force is untouched; this is a defect of Rempart or a configuration beyond its bounds \
             (--taste-memory, --taste-time), please report it with the configuration"
                .to_owned(),
        );
        vec![found]
    }
}

impl Supervisor {
    /// Tastes with this supervisor's program and bounds, outside of any change.
    pub fn load_tasted(
        &self,
        load: Load,
        package: Option<&File>,
        tickets: &[TicketKey],
    ) -> Result<(Arc<Child>, Loaded), AskError> {
        let artefacts = self.fleet().artefacts.given().map_err(|_| AskError::Gone)?;
        let dish = Dish { load, package, artefacts: &artefacts, tickets };
        let tasted = taste(&self.launch(), self.taste, dish, None).map_err(AskError::Refused)?;
        Ok((tasted.child, tasted.loaded))
    }

    /// Tastes as part of a change; the process shows in `rempart status` meanwhile.
    pub fn taste(&self, load: Load, package: Option<&File>) -> Result<Tasted, Vec<Diagnostic>> {
        let (tickets, artefacts) = {
            let fleet = self.fleet();
            (fleet.tickets.clone(), fleet.artefacts.given())
        };
        let artefacts = artefacts.map_err(|error| vec![finding("no-package", error.to_string())])?;
        let dish = Dish { load, package, artefacts: &artefacts, tickets: &tickets };
        let tasted = taste(&self.launch(), self.taste, dish, Some(self));
        if tasted.is_err() {
            self.fleet().supervision.tastes_refused += 1;
        }
        tasted
    }
}
