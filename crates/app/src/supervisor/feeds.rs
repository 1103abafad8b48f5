//! What the supervisor tells of feeds, and passes on to the feeder.

use api::admin::{FeedRefusal, FeedStatus, ProcessRole};
use api::process::Task;
use feed::gate::Memory;
use feed::store::Store;

use super::Supervisor;
use super::artefacts::feeds;
use super::child::AskError;
use super::fleet::SMALL;

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
