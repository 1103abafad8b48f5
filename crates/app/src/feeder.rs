//! The feeder process: looks at the sources of all feeds, and offers the supervisor what passed every check.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::diagnostic::Diagnostic;
use api::process::{Order, Task, Word};
use api::roles::{FeedSettings, FeederSettings, RoleSettings};
use base::random::Random;
use feed::gate::{Feed, Gate, InForce, Memory};
use feed::source::{Looked, Source};
use feed::store::Store;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::builder::now;
use crate::channel::Channel;
use crate::{EXIT_OK, package, role, state};

/// Orders waiting for the feeder, and for one feed.
const COMMANDS: usize = 64;
/// How often is looked whether something else is in force, and what has come to its end.
const TICK: Duration = Duration::from_secs(1);
/// Part of the time between two looks that is left to chance, so that many machines do not ask at once.
const SPREAD: u32 = 10;

type Answer = oneshot::Sender<Result<(), String>>;

enum Command {
    Settings(FeederSettings, Answer),
    Offered { serial: u64, findings: Vec<Diagnostic> },
    Feed { name: String, thaw: bool, force: bool, answer: Answer },
}

enum Said {
    Offered { serial: u64, findings: Vec<Diagnostic> },
    Now { thaw: bool, force: bool, answer: Answer },
}

/// Runs until the supervisor has nothing more to say.
pub fn run(state: &Path, stream: UnixStream) -> anyhow::Result<u8> {
    let (channel, seed) = role::begin(stream)?;
    let channel = Arc::new(channel);
    let folder = state::feeds(state);
    let (commands, received) = mpsc::channel(COMMANDS);
    let orders = channel.clone();
    std::thread::Builder::new().name("orders".to_owned()).spawn(move || obey(&orders, &commands))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let feeder = Feeder { channel, folder, random: Random::seeded(seed), feeds: BTreeMap::new() };
    tokio::task::LocalSet::new().block_on(&runtime, feeder.run(received));
    Ok(EXIT_OK)
}

/// Reads orders; ends, and the feeder with it, when there are no more.
fn obey(channel: &Arc<Channel>, commands: &mpsc::Sender<Command>) {
    loop {
        let order = match channel.receive::<Order>() {
            Ok(Some((order, _))) => order,
            Ok(None) => return,
            Err(error) => return tracing::warn!(%error, "an order could not be read"),
        };
        let (answer, answered) = oneshot::channel();
        let command = match order.task {
            Task::Settings { settings: RoleSettings::Feeder(settings) } => {
                Command::Settings(settings, answer)
            }
            Task::Feed { name, thaw, force } => Command::Feed { name, thaw, force, answer },
            Task::Offered { serial, findings } => {
                if commands.blocking_send(Command::Offered { serial, findings }).is_err() {
                    return;
                }
                continue;
            }
            // What is remembered is written down after every look.
            Task::End => {
                role::answer(channel, order.id, "feeds", Ok(()));
                continue;
            }
            _ => {
                role::answer(channel, order.id, "feeds", Err("the feeder does nothing of that".to_owned()));
                continue;
            }
        };
        if commands.blocking_send(command).is_err() {
            return;
        }
        let outcome = answered.blocking_recv().unwrap_or_else(|_| Err("it was given up".to_owned()));
        role::answer(channel, order.id, "feeds", outcome);
    }
}

struct Feeder {
    channel: Arc<Channel>,
    folder: PathBuf,
    random: Random,
    feeds: BTreeMap<String, Running>,
}

struct Running {
    settings: FeedSettings,
    say: mpsc::Sender<Said>,
    task: JoinHandle<()>,
}

impl Feeder {
    async fn run(mut self, mut received: mpsc::Receiver<Command>) {
        while let Some(command) = received.recv().await {
            match command {
                Command::Settings(settings, answer) => crate::ignore(answer.send(self.set(settings))),
                Command::Offered { serial, findings } => {
                    // A feed that is not wanted any more has nothing to learn, nor one whose offer had another number.
                    for running in self.feeds.values() {
                        let said = Said::Offered { serial, findings: findings.clone() };
                        crate::ignore(running.say.send(said).await);
                    }
                }
                Command::Feed { name, thaw, force, answer } => match self.feeds.get(&name) {
                    Some(running) => crate::ignore(running.say.send(Said::Now { thaw, force, answer }).await),
                    None => crate::ignore(answer.send(Err(format!("there is no feed {name}")))),
                },
            }
        }
    }

    /// Feeds that stay as they are go on undisturbed. One that cannot be set up does not keep out the others.
    fn set(&mut self, settings: FeederSettings) -> Result<(), String> {
        let mut before = std::mem::take(&mut self.feeds);
        let mut failed = Vec::new();
        for settings in settings.feeds {
            let running = match before.remove(&settings.name) {
                Some(running) if running.settings == settings => Ok(running),
                other => {
                    other.iter().for_each(|running| running.task.abort());
                    self.begin(settings.clone())
                }
            };
            match running {
                Ok(running) => drop(self.feeds.insert(settings.name, running)),
                Err(error) => failed.push(format!("{}: {error:#}", settings.name)),
            }
        }
        before.values().for_each(|running| running.task.abort());
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    fn begin(&mut self, settings: FeedSettings) -> anyhow::Result<Running> {
        let feed = Feed::new(&judged_by(&settings)).map_err(anyhow::Error::msg)?;
        let source = Source::new(&settings.source, feed.limit())?;
        let store = Store::open(&self.folder, &settings.name)?;
        let marked = store.active();
        let in_force = in_force(&feed, &store);
        let memory = self.folder.join(&settings.name).join(Memory::FILE);
        let gate = Gate::new(feed, in_force, Memory::read(&memory), store.highest_ever());
        let (say, said) = mpsc::channel(COMMANDS);
        let every = Duration::from_secs(settings.every_seconds.max(1));
        let looker = Looker {
            name: settings.name.clone(),
            channel: self.channel.clone(),
            gate,
            source,
            store,
            marked,
            memory,
            written: Memory::default(),
            offered: None,
            look_again: false,
            every,
            random: Random::seeded(self.random.next_u64()),
        };
        let task = tokio::task::spawn_local(looker.run(said));
        Ok(Running { settings, say, task })
    }
}

/// The settings a feed is judged by: its own, but for the caps, which a drill can leave out to see what they are good for.
fn judged_by(settings: &FeedSettings) -> FeedSettings {
    #[cfg(feature = "faults")]
    if edge::fault::without("artefact-caps") {
        return FeedSettings { max_entries: None, max_bytes: None, ..settings.clone() };
    }
    settings.clone()
}

/// What the store says is in force, verified again.
fn in_force(feed: &Feed, store: &Store) -> Option<InForce> {
    let active = store.active()?;
    let (generation, bytes) = store.candidates().into_iter().next()?;
    match feed.stored(&bytes, now()) {
        Ok(in_force) if generation == active => Some(in_force),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(
                generation,
                error,
                "what is in force of a feed does not fit its settings any more"
            );
            None
        }
    }
}

/// Looks after one feed.
struct Looker {
    name: String,
    channel: Arc<Channel>,
    gate: Gate,
    source: Source,
    store: Store,
    /// What the store said was in force when last asked.
    marked: Option<u64>,
    memory: PathBuf,
    written: Memory,
    /// Number of the offer that is not answered yet.
    offered: Option<u64>,
    /// Somebody wanted a look while an offer was not answered, when nothing new is looked at.
    look_again: bool,
    every: Duration,
    random: Random,
}

impl Looker {
    async fn run(mut self, mut said: mpsc::Receiver<Said>) {
        let mut next = tokio::time::Instant::now();
        loop {
            tokio::select! {
                heard = said.recv() => match heard {
                    None => return,
                    Some(Said::Offered { serial, findings }) => {
                        self.answered(serial, &findings);
                        if !self.gate.is_waiting() && std::mem::take(&mut self.look_again) {
                            next = tokio::time::Instant::now();
                        }
                    }
                    Some(Said::Now { thaw, force, answer }) => {
                        let done = if thaw { self.gate.thaw(now()) } else { self.gate.take(force) };
                        if done.is_ok() {
                            next = tokio::time::Instant::now();
                            self.look_again = self.gate.is_waiting();
                        }
                        crate::ignore(answer.send(done));
                    }
                },
                () = tokio::time::sleep_until(next) => {
                    self.look().await;
                    let spread = self.random.below(u32::try_from(self.every.as_millis()).unwrap_or(u32::MAX) / SPREAD);
                    next = tokio::time::Instant::now() + self.every + Duration::from_millis(u64::from(spread));
                }
                () = tokio::time::sleep(TICK) => {}
            }
            self.notice();
            self.tell();
        }
    }

    async fn look(&mut self) {
        self.notice();
        let looked = self.source.look(self.gate.wants_all()).await;
        match looked {
            Ok(Looked::Unchanged) => self.gate.unchanged(now()),
            Err(error) => self.gate.missing(&error.to_string(), now()),
            Ok(Looked::Found(bytes)) => {
                if let Some(offer) = self.gate.look(&bytes, now()) {
                    self.offer(&bytes, offer.generation, offer.forced);
                }
            }
        }
        #[cfg(feature = "faults")]
        if edge::fault::without("flap-detector") && self.gate.memory().frozen.is_some() {
            crate::ignore(self.gate.thaw(now()));
        }
    }

    fn offer(&mut self, bytes: &[u8], generation: u64, forced: bool) {
        // Drawn at random, so that it is not one of another feed's.
        let serial = self.random.next_u64();
        let word = Word::Offer { serial, name: self.name.clone(), generation, forced };
        let sent = package::in_memory(bytes).and_then(|file| self.channel.send(&word, &[file.as_fd()]));
        self.offered = Some(serial);
        if let Err(error) = sent {
            tracing::warn!(feed = self.name, %error, "a package could not be offered");
        }
    }

    fn answered(&mut self, serial: u64, findings: &[Diagnostic]) {
        if self.offered.take_if(|offered| *offered == serial).is_some() {
            self.gate.offered(findings, now());
            self.marked = self.store.active();
        }
    }

    /// Whether the supervisor has gone back to another generation, and what time does.
    fn notice(&mut self) {
        let marked = self.store.active();
        if !self.gate.is_waiting() && marked != self.marked {
            self.marked = marked;
            let in_force = in_force(self.gate.feed(), &self.store);
            self.gate.changed(in_force, now());
        }
        self.gate.tick(now());
    }

    fn tell(&mut self) {
        for happening in self.gate.take_happenings() {
            tracing::info!(feed = self.name, "{}", happening.message);
            role::happened(&self.channel, happening);
        }
        if self.written != *self.gate.memory() {
            self.written = self.gate.memory().clone();
            if let Err(error) = self.written.write(&self.memory) {
                tracing::warn!(feed = self.name, %error, "what is known of a feed could not be kept");
            }
        }
    }
}
