//! What the supervisor tells of feeds, and passes on to the feeder.

use std::sync::PoisonError;

use api::admin::{FeedRefusal, FeedStatus, ProcessRole};
use api::diagnostic::Diagnostic;
use api::process::Task;
use api::roles::FeedSettings;
use feed::gate::Memory;
use feed::store::Store;

use super::artefacts::{Offer, feeds, resumed};
use super::child::AskError;
use super::fleet::{SMALL, Standby};
use super::{Supervisor, finding};
use crate::package;

impl Supervisor {
    /// What is known of every feed of the generation in force.
    pub fn feeds(&self) -> Vec<FeedStatus> {
        let (wanted, folder) = (feeds(&self.fleet().force.loaded), self.state.feeds());
        let status = |feed: api::roles::FeedSettings| {
            let store = Store::open(&folder, &feed.name).ok();
            let memory = Memory::read(&folder.join(&feed.name).join(Memory::FILE));
            let fleet = self.fleet();
            let artefact = fleet.artefacts.get(&feed.name);
            FeedStatus {
                generation: artefact.map(|artefact| artefact.generation),
                since: artefact.map(|artefact| artefact.since),
                baking: artefact.is_some_and(|artefact| artefact.bake.is_some()),
                unconfirmed: artefact.is_some_and(|artefact| artefact.confirm.is_some()),
                good: store.and_then(|store| store.good()),
                frozen: memory.frozen.map(|frozen| frozen.since),
                refusals: memory.refusals.into_iter().map(refusal).collect(),
                name: feed.name,
                kind: feed.kind,
            }
        };
        wanted.into_iter().map(status).collect()
    }

    /// What feeds have brought goes with them when a configuration without them comes into force.
    pub(super) fn withdraw_with_feeds(&self) {
        let mut fleet = self.fleet();
        let wanted = feeds(&fleet.force.loaded);
        let names = fleet.artefacts.in_force.keys();
        let gone = names.filter(|name| wanted.iter().all(|feed| feed.name != **name)).cloned();
        for name in gone.collect::<Vec<_>>() {
            fleet.artefacts.in_force.remove(&name);
            let standby = fleet.standby.as_ref().map(|standby| &standby.child);
            for child in fleet.active.iter().chain(standby) {
                child.tell(Task::Withdraw { name: name.clone() });
            }
            tracing::info!(feed = name, "its data is withdrawn with the feed");
        }
    }

    /// What is stored of feeds that a configuration has brought back comes into force again, tried like anything else.
    pub(super) fn resume_with_feeds(&self) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<FeedSettings> = {
            let fleet = self.fleet();
            let wanted = feeds(&fleet.force.loaded).into_iter();
            wanted.filter(|feed| fleet.artefacts.get(&feed.name).is_none()).collect()
        };
        for feed in missing {
            let Ok(store) = self.store(&feed.name) else { continue };
            for (generation, bytes) in store.candidates() {
                let Err(findings) = self.resume(&feed, &store, generation, &bytes) else { break };
                let reason = findings.first().map_or("", |found| &found.message);
                tracing::error!(feed = feed.name, generation, "a stored generation is refused: {reason}");
            }
        }
    }

    fn resume(
        &self,
        feed: &FeedSettings,
        store: &Store,
        generation: u64,
        bytes: &[u8],
    ) -> Result<(), Vec<Diagnostic>> {
        let package =
            package::in_memory(bytes).map_err(|error| vec![finding("no-package", error.to_string())])?;
        let copy = package.try_clone().map_err(|error| vec![finding("no-package", error.to_string())])?;
        let offer = Offer { name: feed.name.clone(), generation, forced: false, package: copy };
        let tasted = self.taste_artefact(&offer, feed)?;
        let task = Task::Artefact { feed: feed.clone(), again: true, forced: false };
        let edge = match self.activate_artefact(task, &package) {
            Ok(edge) => edge,
            Err(error) => {
                tasted.child.kill();
                return Err(vec![finding("not-activated", error.to_string())]);
            }
        };
        if store.active() != Some(generation)
            && let Err(error) = store.mark_active(generation)
        {
            tracing::warn!(feed = feed.name, %error, "what is in force could not be marked on disk");
        }
        let artefact = resumed(self, store, feed.clone(), (generation, package));
        let mut fleet = self.fleet();
        fleet.artefacts.in_force.insert(feed.name.clone(), artefact);
        let standby = Standby { child: tasted.child, held: fleet.held() };
        let old = if fleet.force.loaded.standby { fleet.standby.replace(standby) } else { Some(standby) };
        old.into_iter().for_each(|old| old.child.kill());
        drop(fleet);
        self.make_up_for(&edge, &feed.name);
        tracing::info!(feed = feed.name, generation, "its data is in force again with the feed");
        Ok(())
    }

    /// Has the feeder look at a feed now, or lets a frozen one go on.
    pub fn order_feed(&self, name: String, thaw: bool, force: bool) -> Result<(), String> {
        let feeder = self.fleet().role(ProcessRole::Feeder);
        let feeder = feeder.ok_or("no feeder runs: the configuration in force has no [[feeds]]")?;
        match feeder.ask(Task::Feed { name, thaw, force }, &[], SMALL) {
            Ok(_) => Ok(()),
            Err(AskError::Refused(findings)) => {
                Err(findings.into_iter().map(|found| found.message).collect::<Vec<_>>().join("; "))
            }
            Err(error) => Err(format!("the feeder: {error}")),
        }
    }
}

fn refusal(refusal: feed::gate::Refusal) -> FeedRefusal {
    let feed::gate::Refusal { cause, message, generation, since, count, .. } = refusal;
    FeedRefusal { cause, message, generation, since, count }
}
