//! Artefacts other than the configuration: tried, put in force, watched for a while, taken back.
//!
//! They take the path of a configuration: a taster loads what is in force and the new one, and rehearses; the edge loads it;
//! the taster becomes the standby. What serves for its whole bake is the one to go back to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use api::admin::ArtefactStatus;
use api::diagnostic::Diagnostic;
use api::process::{LoadFrom, Loaded, Task};
use api::roles::{FeedSettings, RoleSettings};
use base::happening::{Component, Happening, Severity, What};
use base::time::Timestamp;
use feed::store::Store;
use snapshot::package::START_BYTES;

use super::child::{AskError, Child, ChildWord};
use super::control::CONFIRM;
use super::fleet::Standby;
use super::taste::{Dish, Tasted, taste};
use super::{LOAD, Supervisor, finding};
use crate::builder::{now, rfc3339};
use crate::package;

/// How often is looked whether a bake is over.
const LOOK: Duration = Duration::from_millis(100);
/// Generations of a feed that are remembered as given up.
const MAX_GIVEN_UP: usize = 64;

/// An artefact in force.
pub struct Artefact {
    /// Its feed, as it was configured when it came.
    pub feed: FeedSettings,
    /// Its generation.
    pub generation: u64,
    /// The package it came in.
    pub package: File,
    /// Since when.
    pub since: Timestamp,
    /// Until when it is watched; `None` once it is the one to go back to.
    pub bake: Option<Instant>,
    /// Until when it must be confirmed, when it was forced.
    pub confirm: Option<Instant>,
    /// The one to go back to.
    good: Option<(u64, File)>,
}

/// All of them, by the names of their feeds.
#[derive(Default)]
pub struct Artefacts {
    pub(super) in_force: BTreeMap<String, Artefact>,
    /// Generations that are not tried again, newest last, and why.
    given_up: Vec<(String, u64, String)>,
}

/// Where the content of a package is from, where it says so.
fn source(package: &File) -> Option<String> {
    let mut start = vec![0; START_BYTES];
    let length = package.read_at(&mut start, 0).ok()?;
    let manifest = snapshot::package::peek_start(start.get(..length)?).ok()?;
    Some(manifest.source).filter(|source| !source.is_empty())
}

/// One to be given to a process that is made ready to serve.
pub struct Given {
    /// Its feed.
    pub feed: FeedSettings,
    /// The package.
    pub package: File,
}

impl Given {
    /// The order that has a process load it.
    pub fn order(&self) -> Task {
        Task::Artefact { feed: self.feed.clone(), again: true, forced: false }
    }
}

impl Artefacts {
    /// The one of this feed in force.
    pub fn get(&self, feed: &str) -> Option<&Artefact> {
        self.in_force.get(feed)
    }

    /// Those in force, for `rempart status`; `held` is what the edge says that it holds.
    pub fn status(&self, held: &[(String, String)]) -> Vec<ArtefactStatus> {
        let of = |(name, artefact): (&String, &Artefact)| ArtefactStatus {
            feed: name.clone(),
            kind: artefact.feed.kind.clone(),
            generation: artefact.generation,
            content: held.iter().find(|(feed, _)| feed == name).map(|(_, content)| content.clone()),
            since: rfc3339(artefact.since),
            baking: artefact.bake.is_some(),
            unconfirmed: artefact.confirm.is_some(),
            source: source(&artefact.package),
        };
        self.in_force.iter().map(of).collect()
    }

    /// What every process gets before it serves.
    pub fn given(&self) -> io::Result<Vec<Given>> {
        let give = |artefact: &Artefact| {
            Ok(Given { feed: artefact.feed.clone(), package: artefact.package.try_clone()? })
        };
        self.in_force.values().map(give).collect()
    }

    /// Their generations, to see whether anything has changed.
    pub fn generations(&self) -> Vec<(String, u64)> {
        self.in_force.iter().map(|(name, artefact)| (name.clone(), artefact.generation)).collect()
    }

    /// One that is still watched: when the edge crashes now, it is the first to be blamed.
    pub fn suspect(&self) -> Option<String> {
        let newest = self.in_force.iter().filter(|(_, artefact)| artefact.bake.is_some());
        newest.max_by_key(|(_, artefact)| artefact.since).map(|(name, _)| name.clone())
    }

    fn is_given_up(&self, name: &str, generation: u64) -> Option<&str> {
        let given_up = self.given_up.iter().find(|(feed, number, _)| feed == name && *number == generation);
        given_up.map(|(_, _, reason)| reason.as_str())
    }

    fn give_up(&mut self, name: &str, generation: u64, reason: &str) {
        if self.given_up.len() >= MAX_GIVEN_UP {
            self.given_up.remove(0);
        }
        self.given_up.push((name.to_owned(), generation, reason.to_owned()));
    }
}

/// A package as the feeder offers it.
pub(super) struct Offer {
    pub(super) name: String,
    pub(super) generation: u64,
    pub(super) forced: bool,
    pub(super) package: File,
}

/// The feeds of a generation.
pub fn feeds(loaded: &Loaded) -> Vec<FeedSettings> {
    let settings = loaded.roles.iter().find_map(|role| match role {
        RoleSettings::Feeder(feeder) => Some(feeder.feeds.clone()),
        _ => None,
    });
    settings.unwrap_or_default()
}

/// Takes what the feeder offers, and looks after what is baking, until the process ends. Runs on a thread of its own.
pub fn take_offers(supervisor: &Supervisor, offered: &Receiver<ChildWord>) {
    let mut followed = supervisor.fleet().force.loaded.number;
    loop {
        match offered.recv_timeout(LOOK) {
            Ok(ChildWord::Offer { serial, name, generation, forced, package }) => {
                let offer = Offer { name, generation, forced, package: package.into() };
                let findings = supervisor.take_offer(&offer).err().unwrap_or_default();
                supervisor.answer_feeder(serial, findings);
            }
            Ok(ChildWord::Challenges { .. }) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
        }
        if supervisor.fleet().ending {
            return;
        }
        supervisor.bake_configuration();
        supervisor.take_back_unconfirmed();
        supervisor.bake_artefacts();
        let number = supervisor.fleet().force.loaded.number;
        if number != followed {
            followed = number;
            supervisor.resume_with_feeds();
        }
    }
}

impl Supervisor {
    fn answer_feeder(&self, serial: u64, findings: Vec<Diagnostic>) {
        let feeder = {
            let fleet = self.fleet();
            fleet.role(api::admin::ProcessRole::Feeder)
        };
        if let Some(feeder) = feeder {
            feeder.tell(Task::Offered { serial, findings });
        }
    }

    /// The store of a feed in the state folder.
    pub(super) fn store(&self, name: &str) -> Result<Store, Vec<Diagnostic>> {
        Store::open(&self.state.feeds(), name).map_err(|error| vec![finding("feed-store", error.to_string())])
    }

    /// Has it tried, then loaded by the edge. Whatever goes wrong, what was in force stays.
    fn take_offer(&self, offer: &Offer) -> Result<(), Vec<Diagnostic>> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let feed = self.admit(offer)?;
        let tasted = self.taste_artefact(offer, &feed)?;
        let task = Task::Artefact { feed: feed.clone(), again: false, forced: offer.forced };
        match self.activate_artefact(task, &offer.package) {
            Ok(edge) => self.commit_artefact(offer, feed, tasted, &edge),
            Err(error) => {
                tasted.child.kill();
                Err(match error {
                    AskError::Refused(findings) => findings,
                    other => {
                        let message = format!("the edge could not take {}: {other}", offer.name);
                        self.give_up(&offer.name, offer.generation, &message);
                        vec![finding("not-activated", message)]
                    }
                })
            }
        }
    }

    /// What can be told without trying it.
    fn admit(&self, offer: &Offer) -> Result<FeedSettings, Vec<Diagnostic>> {
        let fleet = self.fleet();
        let Some(feed) = feeds(&fleet.force.loaded).into_iter().find(|feed| feed.name == offer.name) else {
            return Err(vec![finding(
                "unknown-feed",
                format!("the configuration in force has no feed {}", offer.name),
            )]);
        };
        let in_force = fleet.artefacts.in_force.get(&offer.name).map(|artefact| artefact.generation);
        if in_force.is_some_and(|number| number >= offer.generation) {
            let message = format!(
                "generation {} of {} is not newer than the one in force",
                offer.generation, offer.name
            );
            return Err(vec![finding("not-newer", message)]);
        }
        let given_up = fleet.artefacts.is_given_up(&offer.name, offer.generation).map(str::to_owned);
        drop(fleet);
        let unreadable = |error: io::Error| vec![finding("feed-store", error.to_string())];
        let store = self.store(&offer.name)?;
        // Marks that cannot be read are written anew by what comes into force.
        let given_up = given_up.or_else(|| store.given_up(offer.generation).ok().flatten());
        if let Some(reason) = given_up {
            return Err(vec![finding("given-up", format!("it is not tried again: {reason}"))]);
        }
        if store.is_taken(&package::bytes(&offer.package).map_err(unreadable)?, offer.generation) {
            let message =
                format!("generation {} of {} is another package already", offer.generation, offer.name);
            return Err(vec![finding("number-taken", message)]);
        }
        Ok(feed)
    }

    /// Not tried again, by the next supervisor neither.
    fn give_up(&self, name: &str, generation: u64, reason: &str) {
        self.fleet().artefacts.give_up(name, generation, reason);
        let kept = self.store(name).map(|store| store.give_up(generation, reason));
        if !matches!(kept, Ok(Ok(()))) {
            tracing::warn!(feed = name, generation, "that it was given up could not be kept on disk");
        }
    }

    /// What is in force, and this one, in a process that may die over it.
    pub(super) fn taste_artefact(
        &self,
        offer: &Offer,
        feed: &FeedSettings,
    ) -> Result<Tasted, Vec<Diagnostic>> {
        let unreadable = |error: io::Error| vec![finding("no-package", error.to_string())];
        let (load, config, given, tickets) = {
            let fleet = self.fleet();
            let mut given = fleet.artefacts.given().map_err(unreadable)?;
            given.retain(|given| given.feed.name != offer.name);
            let package = offer.package.try_clone().map_err(unreadable)?;
            given.push(Given { feed: feed.clone(), package });
            let config = fleet.force.package.try_clone().map_err(unreadable)?;
            (fleet.load_in_force(), config, given, fleet.tickets.clone())
        };
        let config = (!matches!(load.from, LoadFrom::Defaults { .. })).then_some(&config);
        let dish = Dish { load, package: config, artefacts: &given, tickets: &tickets };
        let tasted = taste(&self.launch(), self.taste, dish, Some(self));
        if tasted.is_err() {
            self.fleet().supervision.tastes_refused += 1;
        }
        tasted
    }

    /// Has the edge that serves load it; answers which one that was.
    pub(super) fn activate_artefact(&self, task: Task, package: &File) -> Result<Arc<Child>, AskError> {
        let active = self.fleet().active.clone().ok_or(AskError::Gone)?;
        // If it dies over this, that is not the fault of the configuration.
        self.fleet().suspect = Some(active.clone());
        let done = active.ask(task, &[package.as_fd()], LOAD);
        self.fleet().suspect = None;
        done.map(|_| active)
    }

    /// An edge may have died right after it had loaded what is in force now; then another one serves, without it.
    pub(super) fn make_up_for(&self, edge: &Arc<Child>, name: &str) {
        let (active, given) = {
            let fleet = self.fleet();
            let given = fleet.artefacts.given().unwrap_or_default();
            (fleet.active.clone(), given.into_iter().find(|given| given.feed.name == name))
        };
        // Where there is none yet, the next one gets it before it serves.
        let (Some(active), Some(given)) = (active, given) else { return };
        if Arc::ptr_eq(&active, edge) {
            return;
        }
        if let Err(error) = active.ask(given.order(), &[given.package.as_fd()], LOAD) {
            tracing::error!(feed = name, %error, "the edge does not hold what is in force, and is replaced");
            active.kill();
        }
    }

    fn commit_artefact(
        &self,
        offer: &Offer,
        feed: FeedSettings,
        tasted: Tasted,
        edge: &Arc<Child>,
    ) -> Result<(), Vec<Diagnostic>> {
        let package = offer.package.try_clone();
        let package = package.map_err(|error| vec![finding("no-package", error.to_string())])?;
        let kept = self.store(&offer.name).and_then(|store| {
            let keep =
                || store.put_in_force(&package::bytes(&offer.package)?, offer.generation, offer.forced);
            keep().map_err(|error| vec![finding("feed-store", error.to_string())])
        });
        let mut fleet = self.fleet();
        let before = fleet.artefacts.in_force.remove(&offer.name);
        // One that was still watched is nothing to go back to; the one before it is.
        let good = before.and_then(|before| match before.bake {
            None => Some((before.generation, before.package)),
            Some(_) => before.good,
        });
        let at = Instant::now();
        let artefact = Artefact {
            feed,
            generation: offer.generation,
            package,
            since: now(),
            bake: Some(at + fleet.bake()),
            confirm: offer.forced.then(|| at + CONFIRM),
            good,
        };
        fleet.artefacts.in_force.insert(offer.name.clone(), artefact);
        let standby = Standby { child: tasted.child, held: fleet.held() };
        let old = if fleet.force.loaded.standby { fleet.standby.replace(standby) } else { Some(standby) };
        old.into_iter().for_each(|old| old.child.kill());
        drop(fleet);
        self.make_up_for(edge, &offer.name);
        let message = format!("generation {} of {} is in force", offer.generation, offer.name);
        self.tell_of(What::ArtefactActivated, Severity::Info, offer, "activated", message);
        match kept {
            Ok(()) => {}
            Err(findings) => {
                let reason = findings.first().map_or("", |found| &found.message);
                let message = format!("{} is in force and could not be kept on disk: {reason}", offer.name);
                tracing::error!("{message}");
                self.tell_of(What::ArtefactRefused, Severity::Warning, offer, "not-kept", message);
            }
        }
        Ok(())
    }

    fn tell_of(&self, what: What, severity: Severity, offer: &Offer, cause: &str, message: String) {
        tracing::info!(feed = offer.name, generation = offer.generation, "{message}");
        let happening = Happening::new(now(), what, severity, Component::Feeds, cause, message);
        self.journal.tell(happening.about(&*offer.name).with_generation(offer.generation));
    }

    /// The same for the configuration.
    fn bake_configuration(&self) {
        let number = {
            let mut fleet = self.fleet();
            if fleet.force.bake.is_none_or(|until| Instant::now() < until) {
                return;
            }
            fleet.force.bake = None;
            fleet.force.loaded.number
        };
        if let Err(error) = self.state.mark_good(number) {
            tracing::warn!(number, %error, "a generation could not be marked as good on disk");
        }
        let message = format!("generation {number} of the configuration has served for its whole bake");
        let happening = Happening::new(
            now(),
            What::GenerationBaked,
            Severity::Info,
            Component::Configuration,
            "baked",
            message,
        );
        self.journal.tell(happening.with_generation(number));
    }

    /// What has served for its whole bake becomes the one to go back to; what was forced and not confirmed is taken back.
    fn bake_artefacts(&self) {
        let at = Instant::now();
        let (mut baked, mut unconfirmed) = (Vec::new(), Vec::new());
        {
            let mut fleet = self.fleet();
            for (name, artefact) in &mut fleet.artefacts.in_force {
                if artefact.confirm.is_some_and(|deadline| at >= deadline) {
                    unconfirmed.push(name.clone());
                } else if artefact.confirm.is_none() && artefact.bake.is_some_and(|until| at >= until) {
                    (artefact.bake, artefact.good) = (None, None);
                    baked.push((name.clone(), artefact.generation));
                }
            }
        }
        for (name, generation) in baked {
            let marked = self.store(&name).map(|store| store.mark_good(generation));
            if !matches!(marked, Ok(Ok(()))) {
                tracing::warn!(feed = name, generation, "could not be marked as good on disk");
            }
            let message = format!("generation {generation} of {name} has served for its whole bake");
            let (what, severity) = (What::GenerationBaked, Severity::Info);
            let happening = Happening::new(now(), what, severity, Component::Feeds, "baked", message);
            self.journal.tell(happening.about(&*name).with_generation(generation));
        }
        for name in unconfirmed {
            self.take_back_artefact(&name, "it was forced and nobody confirmed it");
        }
    }

    /// Somebody says that a forced change is as wanted.
    pub fn confirm_artefact(&self, name: &str) -> Result<(), String> {
        let mut fleet = self.fleet();
        let Some(artefact) = fleet.artefacts.in_force.get_mut(name) else {
            return Err(format!("no generation of {name} is in force"));
        };
        let generation = artefact.generation;
        if artefact.confirm.is_none() {
            return Err(format!("generation {generation} of {name} needs no confirmation"));
        }
        // On disk first: who is told that it stays must find it after a crash.
        let store = Store::open(&self.state.feeds(), name);
        let kept = store.and_then(|store| store.mark_confirmed(generation));
        kept.map_err(|error| format!("the confirmation could not be kept on disk: {error}"))?;
        artefact.confirm = None;
        Ok(())
    }

    /// Puts the good generation in force again, or none when there is none. Answers whether there was something to take back.
    pub fn take_back_artefact(&self, name: &str, reason: &str) -> bool {
        let Some((bad, good)) = self.fleet().artefacts.in_force.remove(name).map(|bad| (bad.generation, bad))
        else {
            return false;
        };
        let message = match &good.good {
            Some((number, _)) => format!("generation {bad} of {name} was taken back for {number}: {reason}"),
            None => {
                format!("generation {bad} of {name} was taken back, and there is none before it: {reason}")
            }
        };
        tracing::error!("{message}");
        self.fleet().artefacts.give_up(name, bad, reason);
        // Before the edge is told: a crash after this finds it taken back.
        let instead = good.good.as_ref().map(|(number, _)| *number);
        let kept = self.store(name).map(|store| store.take_back(bad, instead, reason));
        if !matches!(kept, Ok(Ok(()))) {
            tracing::warn!(feed = name, generation = bad, "the way back could not be kept on disk");
        }
        if let Some((generation, package)) = good.good {
            self.return_to(good.feed, generation, package);
        } else if let Some(active) = self.fleet().active.clone() {
            active.tell(Task::Withdraw { name: name.to_owned() });
        }
        // It was made with the one that was taken back.
        if let Some(standby) = self.fleet().standby.take() {
            standby.child.kill();
        }
        let happening = Happening::new(
            now(),
            What::ArtefactReverted,
            Severity::Warning,
            Component::Feeds,
            "taken-back",
            message,
        );
        self.journal.tell(happening.about(name).with_generation(bad));
        true
    }

    fn return_to(&self, feed: FeedSettings, generation: u64, package: File) {
        let name = feed.name.clone();
        let task = Task::Artefact { feed: feed.clone(), again: true, forced: false };
        let edge = self.activate_artefact(task, &package);
        let artefact =
            Artefact { feed, generation, package, since: now(), bake: None, confirm: None, good: None };
        self.fleet().artefacts.in_force.insert(name.clone(), artefact);
        match edge {
            Ok(edge) => self.make_up_for(&edge, &name),
            // Who is started instead of it gets the right one.
            Err(error) => tracing::warn!(feed = name, %error, "the edge did not go back"),
        }
    }
}

/// One from the state folder. What had not served for its whole bake, or was forced and not confirmed, has that before it again.
pub(super) fn resumed(
    supervisor: &Supervisor,
    store: &Store,
    feed: FeedSettings,
    this: (u64, File),
) -> Artefact {
    let (generation, package) = this;
    let (at, marked) = (Instant::now(), store.good());
    let forced = store.unconfirmed() == Some(generation);
    let is_good = marked == Some(generation) && !forced;
    let good = marked.filter(|good| *good != generation).and_then(|good| {
        let bytes = store.candidates().into_iter().find(|(number, _)| *number == good)?.1;
        Some((good, package::in_memory(&bytes).ok()?))
    });
    Artefact {
        feed,
        generation,
        package,
        since: now(),
        bake: (!is_good).then(|| at + supervisor.fleet().bake()),
        confirm: forced.then(|| at + CONFIRM),
        good: if is_good { None } else { good },
    }
}

/// Gives a process that is about to serve for the first time what the state folder holds. One that cannot be loaded gives way
/// to the one before it. Answers the process, which is another one when the first died over it.
pub fn furnish_at_start(supervisor: &Supervisor, child: Arc<Child>) -> io::Result<Arc<Child>> {
    let mut child = child;
    let wanted = feeds(&supervisor.fleet().force.loaded);
    for feed in wanted {
        let store = match Store::open(&supervisor.state.feeds(), &feed.name) {
            Ok(store) => store,
            Err(error) => {
                tracing::error!(feed = feed.name, %error, "what is stored of a feed cannot be read");
                continue;
            }
        };
        let candidates = store.candidates();
        if candidates.is_empty() {
            // An adopted edge may hold one whose taking back it was never told of.
            child.tell(Task::Withdraw { name: feed.name.clone() });
        }
        for (generation, bytes) in candidates {
            let package = package::in_memory(&bytes)?;
            let task = Task::Artefact { feed: feed.clone(), again: true, forced: false };
            match child.ask(task, &[package.as_fd()], LOAD) {
                Ok(_) => {
                    // The feeder compares what comes next with what is marked, so a refused one must not stay it.
                    if store.active() != Some(generation)
                        && let Err(error) = store.mark_active(generation)
                    {
                        tracing::warn!(feed = feed.name, %error, "what is in force could not be marked on disk");
                    }
                    let name = feed.name.clone();
                    let artefact = resumed(supervisor, &store, feed, (generation, package));
                    supervisor.fleet().artefacts.in_force.insert(name, artefact);
                    break;
                }
                Err(AskError::Refused(findings)) => {
                    let reason = findings.first().map_or("", |found| &found.message);
                    tracing::error!(feed = feed.name, generation, "a stored generation is refused: {reason}");
                }
                Err(error) => {
                    tracing::error!(feed = feed.name, generation, %error, "a stored generation ended its process");
                    supervisor.fleet().artefacts.give_up(&feed.name, generation, &error.to_string());
                    child.kill();
                    child = supervisor.load_in_force_anew()?.0;
                }
            }
        }
    }
    Ok(child)
}
