//! The supervisor: owns the listening sockets and the state folder, starts the other processes, watches and replaces them.
//!
//! Threads and blocking calls, no runtime, no parser of configurations, nothing of the edge: as little as possible, because
//! it must not be what fails. What it is asked lies in `control.rs` (changes), `guard.rs` (replacement) and `upgrade.rs`.

mod artefacts;
mod certificates;
mod child;
mod control;
mod feeds;
mod fleet;
mod guard;
mod journal;
mod notify;
mod roles;
mod signals;
mod sockets;
mod start;
mod status;
mod switches;
mod taste;
mod tickets;
mod upgrade;

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use api::admin::{GenerationSource, ProcessRole, Status};
use api::diagnostic::{Diagnostic, Severity};
use api::process::{DrainLimits, LoadFrom, Task, TicketKey};
use api::seal::Keyring;
use api::signal::Meter;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

pub use child::{Launch, own_program};
pub use journal::Journal;
pub use start::StartError;

use crate::admin::Admin;
use crate::state::StateFolder;
use child::Child;
use fleet::{Fleet, Held};
use notify::Notify;
use sockets::Sockets;

/// Time for a process to load what was loaded by another one before.
const LOAD: Duration = Duration::from_secs(60);
/// Beyond the limits of a drain, before a process that has not ended is ended.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);
/// Idle connections are not waited for longer when somebody at a terminal does.
const IMPATIENT: Duration = Duration::from_secs(1);
/// Events waiting for the main thread.
const EVENTS: usize = 64;
/// Time for answers that are being given when this process becomes another binary.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// What the main thread reacts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Read the configuration again.
    Reload,
    /// Finish requests and end.
    Stop {
        /// Somebody waits for it.
        impatient: bool,
    },
    /// An upgrade has been done: become the new binary.
    BecomeNew,
}

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A file, read again on every reload.
    File(PathBuf),
    /// Text made from the command line or by the demo; it has no file to change.
    Text {
        /// The configuration.
        text: String,
        /// Which of the two.
        source: GenerationSource,
    },
}

impl Origin {
    fn source(&self) -> GenerationSource {
        match self {
            Self::File(_) => GenerationSource::Config,
            Self::Text { source, .. } => *source,
        }
    }

    fn load_from(&self) -> LoadFrom {
        match self {
            Self::File(path) => LoadFrom::File { path: path.clone() },
            Self::Text { text, .. } => LoadFrom::Text { text: text.clone() },
        }
    }
}

/// What the supervisor is started with.
pub struct Settings {
    /// Where the configuration comes from.
    pub origin: Origin,
    /// The state folder.
    pub state: PathBuf,
    /// The admin socket.
    pub socket: PathBuf,
    /// How children are started.
    pub launch: Launch,
    /// What a taster may use.
    pub taste: TasteLimits,
}

/// Bounds of a process that tries a generation.
#[derive(Clone, Copy, Debug)]
pub struct TasteLimits {
    /// Resident memory in bytes.
    pub memory: u64,
    /// Time, and processor time.
    pub time: Duration,
}

/// A running Rempart, as seen by whoever controls it.
pub struct Supervisor {
    origin: Origin,
    state: StateFolder,
    launch: Mutex<Launch>,
    /// What happened.
    journal: Arc<Journal>,
    /// Whose signals count.
    keys: Keyring,
    /// Which of them have come.
    meter: Mutex<Meter>,
    taste: TasteLimits,
    notify: Notify,
    started: Instant,
    /// One change at a time, reading included: what was read before another change must not undo it.
    changing: Mutex<()>,
    fleet: Mutex<Fleet>,
    events: mpsc::SyncSender<Event>,
}

impl Supervisor {
    fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self) -> Launch {
        self.launch.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Passes an event to the main thread; false when that has ended.
    pub fn post(&self, event: Event) -> bool {
        !matches!(self.events.try_send(event), Err(mpsc::TrySendError::Disconnected(_)))
    }

    /// Starts an edge process that knows the ticket keys and nothing else.
    fn start_child(&self, tickets: &[TicketKey]) -> io::Result<Arc<Child>> {
        start_edge(&self.launch(), tickets)
    }

    /// Starts an edge process that has loaded what is in force. The lock is not held meanwhile; what comes into force in
    /// between shows in what it is answered to hold.
    fn load_in_force_anew(&self) -> io::Result<(Arc<Child>, Held)> {
        let (load, package, artefacts, tickets, held) = {
            let fleet = self.fleet();
            let package = fleet.force.package.try_clone()?;
            let (load, held) = (fleet.load_in_force(), fleet.held());
            (load, package, fleet.artefacts.given()?, fleet.tickets.clone(), held)
        };
        let child = self.start_child(&tickets)?;
        self.tell_restrictions(&child);
        let loaded = child.ask(Task::Load(load), &[package.as_fd()], LOAD).and_then(|_| {
            let mut given = artefacts.iter();
            given.try_for_each(|given| child.ask(given.order(), &[given.package.as_fd()], LOAD).map(drop))
        });
        match loaded {
            Ok(()) => Ok((child, held)),
            Err(error) => {
                child.kill();
                Err(io::Error::other(error))
            }
        }
    }

    /// Lets requests finish and ends every process.
    fn end(&self, impatient: bool) {
        let mut fleet = self.fleet();
        fleet.ending = true;
        self.notify.stopping();
        fleet.sockets.close();
        let mut limits = fleet.force.loaded.drain;
        if impatient {
            limits.idle_ms =
                limits.idle_ms.min(u64::try_from(IMPATIENT.as_millis()).unwrap_or(limits.idle_ms));
        }
        let needless = fleet.standby.take().map(|standby| standby.child);
        for child in needless.into_iter().chain(fleet.taster.take()).chain(fleet.keeper.take()) {
            child.kill();
        }
        let roles = std::mem::take(&mut fleet.roles);
        let (watch, roles): (Vec<_>, Vec<_>) =
            roles.into_iter().partition(|(role, _)| *role == ProcessRole::Watch);
        let mut left: Vec<Arc<Child>> = fleet.active.take().into_iter().chain(fleet.trial.take()).collect();
        left.iter().for_each(|child| child.tell(Task::Drain(limits)));
        left.append(&mut fleet.draining);
        drop(fleet);
        // What is ended on purpose is no outage.
        watch.iter().for_each(|(_, child)| roles::end(child));
        // Last events come while the edge drains; roles are ended after it.
        let deadline = Instant::now() + longest(limits) + DRAIN_MARGIN;
        while left.iter().any(|child| child.ended().is_none()) {
            if Instant::now() >= deadline {
                tracing::warn!("a process did not end in its time and is ended");
                left.iter().for_each(|child| child.kill());
            }
            std::thread::sleep(LOOK);
        }
        roles.iter().for_each(|(_, child)| roles::end(child));
    }
}

fn start_edge(launch: &Launch, tickets: &[TicketKey]) -> io::Result<Arc<Child>> {
    let child = Child::start(launch, "edge", None)?;
    match child.ask(Task::Tickets { keys: tickets.to_vec() }, &[], fleet::SMALL) {
        Ok(_) => Ok(child),
        Err(error) => {
            child.kill();
            Err(io::Error::other(error))
        }
    }
}

/// The longest a drain within these limits takes.
fn longest(limits: DrainLimits) -> Duration {
    Duration::from_millis(limits.idle_ms.max(limits.requests_ms).max(limits.tunnels_ms))
}

/// An error without a place in a file.
fn finding(code: &str, message: String) -> Diagnostic {
    Diagnostic { severity: Severity::Error, code: code.to_owned(), message, location: None, hint: None }
}

/// How serving ended.
pub enum End {
    /// As asked.
    Done,
    /// For another binary, which goes on with what runs.
    Upgraded {
        /// The binary.
        program: PathBuf,
    },
}

/// Serves until a signal or the admin socket ends it. `announce` is called once everything runs.
pub fn run(
    settings: Settings,
    announce: impl FnOnce(&Status) -> anyhow::Result<()>,
) -> anyhow::Result<Result<End, StartError>> {
    raise_descriptor_limit();
    let state = StateFolder::claim(&settings.state)?;
    let (events, received) = mpsc::sync_channel(EVENTS);
    listen_to_signals(events.clone())?;
    let notify = Notify::from_environment();
    let sockets = Sockets::inherit();
    let socket = settings.socket.clone();
    let (supervisor, admin) = match start::start(settings, state, sockets, notify, events)? {
        Ok((supervisor, admin)) => (Arc::new(supervisor), admin),
        Err(error) => return Ok(Err(error)),
    };
    let spawn = |name: &str, work: fn(&Supervisor)| spawn_with(&supervisor, name, work);
    spawn("guard", guard::guard)?;
    spawn("standby", guard::keep_standby)?;
    spawn("files", control::watch_files)?;
    spawn("tickets", tickets::rotate)?;
    spawn("keeper", certificates::keep)?;
    let (offers, offered) = mpsc::sync_channel(child::WORDS);
    spawn_with(&supervisor, "roles", move |supervisor| roles::look_after(supervisor, &offers))?;
    spawn_with(&supervisor, "feeds", move |supervisor| artefacts::take_offers(supervisor, &offered))?;
    let admin = admin.map_or_else(|| crate::admin::open(&socket), Ok)?;
    let admin = crate::admin::serve(admin, supervisor.clone())?;
    supervisor.notify.ready();
    announce(&supervisor.status())?;
    let end = obey(&supervisor, &received, admin);
    if matches!(end, End::Done) {
        // Best effort: the next start replaces a socket that was left behind.
        if let Err(error) = std::fs::remove_file(&socket) {
            tracing::debug!(%error, "the admin socket could not be removed");
        }
    }
    Ok(Ok(end))
}

fn spawn_with(
    supervisor: &Arc<Supervisor>,
    name: &str,
    work: impl FnOnce(&Supervisor) + Send + 'static,
) -> io::Result<()> {
    let supervisor = supervisor.clone();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&supervisor)).map(drop)
}

fn obey(supervisor: &Supervisor, events: &mpsc::Receiver<Event>, admin: Admin) -> End {
    loop {
        match events.recv() {
            Ok(Event::Reload) => drop(supervisor.reload("SIGHUP", false)),
            Ok(Event::BecomeNew) => {
                hold(supervisor, &admin.rest(LAST_ANSWERS));
                return End::Upgraded { program: supervisor.launch().program };
            }
            Ok(Event::Stop { impatient }) => {
                tracing::info!("ending: requests in flight are finished first");
                supervisor.end(impatient);
                return End::Done;
            }
            Err(mpsc::RecvError) => {
                supervisor.end(false);
                return End::Done;
            }
        }
    }
}

/// From here on nothing is replaced: that is the new binary's. The edge keeps what must not be closed in between.
fn hold(supervisor: &Supervisor, admin: &UnixListener) {
    let mut fleet = supervisor.fleet();
    fleet.ending = true;
    let held = fleet.active.as_ref().map(|edge| edge.ask(Task::Hold, &[admin.as_fd()], fleet::SMALL));
    if let Some(Err(error)) = held {
        tracing::warn!(%error, "whoever asks during the change of binaries is refused");
    }
    if let Some(standby) = fleet.standby.take() {
        standby.child.kill();
    }
}

/// Sockets are shared with every edge; the usual limit of 1024 descriptors is meant for `select` and not for servers.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

fn listen_to_signals(events: mpsc::SyncSender<Event>) -> anyhow::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let watch = move || {
        let mut stopping = false;
        for signal in signals.forever() {
            let stop = Event::Stop { impatient: signal == SIGINT };
            let event = if signal == SIGHUP { Event::Reload } else { stop };
            if stopping && event != Event::Reload {
                tracing::warn!("asked to end a second time: ending at once");
                child::end_all();
                std::process::exit(crate::EXIT_OK.into());
            }
            stopping |= event != Event::Reload;
            if events.send(event).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)
        .context("cannot listen to signals")?;
    Ok(())
}
