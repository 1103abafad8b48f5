//! The keeper of certificates: a process of its own, started when a generation asks an authority for certificates.
//!
//! What it gets it writes into the state folder; it comes into force like any changed file, through the taster. Here its
//! challenges are passed on to the edge, and what visitors ask for to it.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use api::certificates::{AcmeSettings, Challenge};
use api::process::Task;

use super::Supervisor;
use super::child::{AskError, Child, ChildWord, WORDS};
use super::fleet::SMALL;

/// How often is looked whether the keeper runs and knows what is wanted.
const LOOK: Duration = Duration::from_millis(500);
/// Wait before a keeper that has ended is started again; doubles from the first to the second.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// Time for a renewal or revocation to be begun.
const BEGIN: Duration = Duration::from_secs(10);

/// The keeper as it runs.
struct Running {
    child: Arc<Child>,
    told: AcmeSettings,
}

/// Looks after the keeper. Runs on a thread of its own.
pub fn keep(supervisor: &Supervisor) {
    let (words, said) = mpsc::sync_channel(WORDS);
    let mut running: Option<Running> = None;
    let (mut pause, mut next) = (PAUSE, Instant::now());
    loop {
        listen(supervisor, &said, running.as_ref());
        let (ending, wanted, names) = {
            let fleet = supervisor.fleet();
            let names = fleet.active.as_ref().map(|active| active.take_wanted()).unwrap_or_default();
            (fleet.ending, fleet.force.loaded.acme.clone(), names)
        };
        if ending {
            return;
        }
        if running.as_ref().is_some_and(|keeper| keeper.child.ended().is_some()) {
            tracing::error!("the keeper of certificates has ended; it is started again");
            running = None;
            next = Instant::now() + pause;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        let Some(wanted) = wanted else {
            dismiss(supervisor, running.take());
            continue;
        };
        match &mut running {
            Some(keeper) => {
                if keeper.told != wanted && tell(&keeper.child, &wanted).is_ok() {
                    keeper.told = wanted;
                }
                if !names.is_empty() {
                    keeper.child.tell(Task::Wanted { names });
                }
                if keeper.child.started.elapsed() > MAX_PAUSE {
                    pause = PAUSE;
                }
            }
            None if Instant::now() >= next => match begin(supervisor, &words, &wanted) {
                Ok(child) => running = Some(Running { child, told: wanted }),
                Err(error) => {
                    tracing::error!(%error, "the keeper of certificates could not be started");
                    next = Instant::now() + pause;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            },
            None => {}
        }
    }
}

fn begin(
    supervisor: &Supervisor,
    words: &SyncSender<ChildWord>,
    wanted: &AcmeSettings,
) -> anyhow::Result<Arc<Child>> {
    let child = Child::start(&supervisor.launch(), "keeper", Some(words.clone()))?;
    tell(&child, wanted)?;
    supervisor.fleet().keeper = Some(child.clone());
    Ok(child)
}

fn tell(child: &Child, wanted: &AcmeSettings) -> Result<(), AskError> {
    child.ask(Task::Keep { settings: wanted.clone() }, &[], SMALL).map(drop)
}

fn dismiss(supervisor: &Supervisor, running: Option<Running>) {
    if let Some(keeper) = running {
        keeper.child.kill();
        supervisor.fleet().keeper = None;
        pass_on(supervisor, Vec::new());
    }
}

/// Waits for a word of the keeper, and passes on what it says.
fn listen(supervisor: &Supervisor, said: &Receiver<ChildWord>, running: Option<&Running>) {
    match said.recv_timeout(LOOK) {
        Ok(ChildWord::Challenges { serial, challenges }) => {
            if pass_on(supervisor, challenges)
                && let Some(keeper) = running
            {
                keeper.child.tell(Task::Published { serial });
            }
        }
        Ok(ChildWord::Offer { .. }) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
    }
}

/// Gives pending challenges to the edge; the next edge gets them with the sockets. Answers whether one has them.
pub fn pass_on(supervisor: &Supervisor, challenges: Vec<Challenge>) -> bool {
    let (active, trial) = {
        let mut fleet = supervisor.fleet();
        fleet.challenges.clone_from(&challenges);
        (fleet.active.clone(), fleet.trial.clone())
    };
    let mut done = false;
    for edge in active.into_iter().chain(trial) {
        match edge.ask(Task::Challenges { challenges: challenges.clone() }, &[], SMALL) {
            Ok(_) => done = true,
            Err(error) => tracing::warn!(%error, "an edge did not take what an authority asks for"),
        }
    }
    done
}

impl Supervisor {
    /// Renews or revokes certificates now.
    pub fn change_certificates(&self, revoke: bool, names: Vec<String>) -> Result<(), String> {
        let keeper = self.fleet().keeper.clone();
        let Some(keeper) = keeper else {
            return Err("no site of the generation in force has `acme = true`".to_owned());
        };
        match keeper.ask(Task::Certificate { revoke, names }, &[], BEGIN) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("the keeper of certificates: {error}")),
        }
    }
}
