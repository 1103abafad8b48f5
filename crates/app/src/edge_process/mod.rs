//! The edge process: does what the supervisor orders, one order after the other, and gives signs of life meanwhile.
//!
//! Taster, standby and edge are the same program in this order: `Load`, `Rehearse`, wait, `Activate`. When the supervisor
//! goes away, an edge that serves goes on serving and waits to be adopted; any other process ends.

mod artefacts;
mod describe;
mod difference;
mod expiry;
mod life;
mod modules;
mod orphan;
mod roles;
mod status;

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use api::admin::GenerationSource;
use api::diagnostic::{Diagnostic, Severity};
use api::process::{
    Activate, DrainLimits, ListenerOrder, Load, LoadFrom, Loaded, MetricsOrder, Order, Reply, Supervision,
    Switch, Task, TicketKey, Word,
};
use edge::generation::Generation;
use edge::telemetry::access_log::{AccessLog, LogCounts};
use edge::telemetry::events::Events;
use edge::telemetry::metrics::Metrics;
use edge::telemetry::ops::{self, Health, Ops};
use edge::{BoundListener, Edge, EdgeOptions, ListenerSet};
use snapshot::Mode;
use snapshot::generation::{AccessLogTarget, Drain};

use crate::builder::{Builder, Built, cannot_start, diagnose, now};
use crate::channel::Channel;
use crate::package::{self, Sources};
use crate::{EXIT_OK, sources, state};

/// Time for the last log lines to be written when the process ends.
const LOG_END: Duration = Duration::from_secs(5);
/// Time for the last events to be sent when the process ends: nobody waits long for analytics.
const EVENTS_END: Duration = Duration::from_secs(1);
/// Name of a configuration that came from options.
pub const COMMAND_LINE: &str = "command line";
/// Name of the configuration that is compiled in.
const DEFAULTS: &str = "built-in defaults";

/// What the edge process is started with.
pub struct Settings {
    /// The state folder: development authority, certificates, rendezvous.
    pub state: PathBuf,
}

/// Runs until ordered to end.
pub fn run(settings: &Settings, stream: UnixStream) -> anyhow::Result<u8> {
    let instance = format!("{:016x}", getrandom::u64().context("this machine has no randomness")?);
    edge::modules::diagnostics::install_panic_hook();
    let process = Arc::new(EdgeProcess::new(settings, instance)?);
    let channel = Arc::new(Channel::new(stream)?);
    channel.send(&process.hello(), &[])?;
    process.talk_to(channel.clone());
    life::give_signs(process.clone())?;
    life::end_on_signal(process.clone())?;
    expiry::watch(process.clone())?;
    modules::tell(process.clone())?;
    let mut channel = Some(channel);
    while let Some(current) = channel.take() {
        match process.obey(&current) {
            Ended::Done => return Ok(EXIT_OK),
            Ended::SupervisorGone => channel = orphan::wait_for_supervisor(&process)?,
        }
    }
    Ok(EXIT_OK)
}

/// Why orders are no longer taken.
enum Ended {
    /// Everything has been served.
    Done,
    /// The other side of the channel has closed.
    SupervisorGone,
}

/// A generation loaded by this process.
struct Ready {
    generation: Arc<Generation>,
    loaded: Loaded,
    source: GenerationSource,
    package: File,
    places: snapshot::Places,
}

/// This process.
struct EdgeProcess {
    instance: String,
    builder: Builder,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    certificates: PathBuf,
    rendezvous: PathBuf,
    event_socket: PathBuf,
    seed: u64,
    parts: Mutex<Parts>,
    /// What the supervisor has switched off.
    ordered: Mutex<Vec<Switch>>,
    /// What signs of life are made of; never locked for longer than it takes to copy them.
    living: Mutex<Living>,
}

/// What signs of life are about, and whom they are given to.
type Living = (Option<Arc<Edge>>, Option<Arc<Channel>>);

/// What changes. Locked for one order at a time.
#[derive(Default)]
struct Parts {
    access_log: Option<Arc<AccessLog>>,
    events: Option<Arc<Events>>,
    edge: Option<Arc<Edge>>,
    /// Loaded and not in force.
    pending: Option<Ready>,
    in_force: Option<Ready>,
    /// Copies of the sockets in force, for the next supervisor.
    listeners: Vec<(ListenerOrder, Vec<TcpListener>)>,
    metrics_socket: Option<TcpListener>,
    ops: Option<Ops>,
    tickets: Vec<TicketKey>,
    supervision: Supervision,
    /// The admin socket, while the supervisor becomes another binary.
    held: Option<OwnedFd>,
    waiting: Option<Arc<orphan::Rendezvous>>,
    drain: Option<Drain>,
}

impl EdgeProcess {
    fn new(settings: &Settings, instance: String) -> anyhow::Result<Self> {
        let counts = Arc::new(LogCounts::default());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let metrics = Arc::new(Metrics::new(cores, counts));
        edge::trace::set_instance(instance.clone());
        Ok(Self {
            instance,
            builder: Builder::new(metrics.clone(), Some(state::authority(&settings.state)))?,
            metrics,
            health: Arc::default(),
            certificates: sources::certificates(&settings.state),
            rendezvous: state::edges(&settings.state),
            event_socket: state::events(&settings.state),
            seed: getrandom::u64().context("this machine has no randomness")?,
            parts: Mutex::default(),
            ordered: Mutex::default(),
            living: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hello(&self) -> Word {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Word::Hello { pid: std::process::id(), version, instance: self.instance.clone() }
    }

    fn talk_to(&self, channel: Arc<Channel>) {
        self.lock_living().1 = Some(channel);
    }

    fn lock_living(&self) -> MutexGuard<'_, Living> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes orders until there are no more.
    fn obey(self: &Arc<Self>, channel: &Channel) -> Ended {
        loop {
            let (order, descriptors) = match channel.receive::<Order>() {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "an order could not be read");
                    break;
                }
            };
            let is_drain = matches!(order.task, Task::Drain(_));
            let (reply, given) = self.carry_out(order.task, descriptors);
            let given: Vec<BorrowedFd<'_>> = given.iter().map(std::os::fd::AsFd::as_fd).collect();
            if let Err(error) = channel.send(&Word::Answer { id: order.id, reply }, &given) {
                tracing::warn!(%error, "an answer could not be given");
                break;
            }
            if is_drain {
                self.finish();
                return Ended::Done;
            }
        }
        Ended::SupervisorGone
    }

    fn carry_out(self: &Arc<Self>, task: Task, descriptors: Vec<OwnedFd>) -> (Reply, Vec<OwnedFd>) {
        let reply = match task {
            Task::Load(load) => return self.load(load, descriptors),
            Task::Rehearse => self.rehearse(),
            Task::Activate(activate) => self.activate(activate, descriptors),
            Task::Pause => self.pause(),
            Task::Drain(limits) => self.begin_drain(limits),
            Task::Probe { listeners, instance } => {
                let current = self.lock().in_force.as_ref().map(|ready| ready.generation.clone());
                let failures = current.map_or_else(
                    || vec!["nothing is loaded to probe for".to_owned()],
                    |generation| edge::probe::probe(&listeners, &generation, &instance),
                );
                Reply::Probed { failures }
            }
            Task::Status => Reply::Status(Box::new(self.status())),
            Task::Outline => self.outline(),
            Task::Rule { id, site } => self.find_rule(&id, site.as_deref()),
            Task::Tickets { keys } => match self.builder.loader.tickets().set(&keys) {
                Ok(()) => {
                    self.lock().tickets = keys;
                    Reply::Done
                }
                Err(error) => refused("ticket-keys", error.to_string()),
            },
            Task::Challenges { challenges } => self.set_challenges(&challenges),
            Task::Artefact { feed, again, forced } => self.load_artefact(&feed, again, forced, descriptors),
            Task::Bans { bans } => {
                let list: Vec<_> = bans.iter().map(|ban| (ban.network, ban.until)).collect();
                let beyond = self.builder.loader.bans().set(&list);
                if beyond > 0 {
                    tracing::warn!(beyond, "more networks are banned than there is room for");
                }
                Reply::Done
            }
            Task::Withdraw { name } => {
                self.builder.loader.artefacts().withdraw(&name);
                self.renew_switches();
                Reply::Done
            }
            Task::Hold => {
                self.lock().held = descriptors.into_iter().next();
                Reply::Done
            }
            Task::Supervision(supervision) => {
                self.tell_metrics(&supervision);
                Reply::Done
            }
            Task::Switches { switches } => {
                self.order_switches(switches);
                Reply::Done
            }
            Task::Keep { .. }
            | Task::Certificate { .. }
            | Task::Published { .. }
            | Task::Wanted { .. }
            | Task::Settings { .. }
            | Task::End
            | Task::Happened { .. }
            | Task::Offered { .. }
            | Task::Feed { .. } => {
                refused("not-this-role", "an edge process does nothing of that".to_owned())
            }
        };
        (reply, Vec::new())
    }

    fn set_challenges(&self, challenges: &[api::certificates::Challenge]) -> Reply {
        match self.builder.loader.challenges().set(challenges) {
            Ok(()) => Reply::Done,
            Err(error) => refused("challenge", error.to_string()),
        }
    }

    fn tell_metrics(&self, supervision: &Supervision) {
        self.metrics.reload_finished(!supervision.refused, now());
        self.lock().supervision = supervision.clone();
        self.metrics.set_supervision(supervision.clone());
    }

    /// Reads, compiles and loads.
    fn load(&self, load: Load, descriptors: Vec<OwnedFd>) -> (Reply, Vec<OwnedFd>) {
        match self.try_load(load, descriptors) {
            Ok((loaded, package)) => (Reply::Loaded(Box::new(loaded)), vec![package]),
            Err(diagnostics) => (Reply::Refused { diagnostics }, Vec::new()),
        }
    }

    fn try_load(&self, load: Load, descriptors: Vec<OwnedFd>) -> Result<(Loaded, OwnedFd), Vec<Diagnostic>> {
        let given = descriptors.into_iter().next().map(File::from);
        let (number, source) = (load.number, load.source);
        if let LoadFrom::Defaults { listeners } = &load.from {
            let wanted: Vec<_> = listeners.iter().map(|listener| (listener.address, listener.tls)).collect();
            let built = self.builder.load(Arc::new(snapshot::defaults(&wanted)), number)?;
            let sources =
                Sources { file: DEFAULTS.to_owned(), text: Arc::from(&b""[..]), tree: Default::default() };
            return self.get_ready(number, built, &sources, source, None);
        }
        let is_package = matches!(load.from, LoadFrom::Package { .. });
        let (sources, mode) = self.gather(load.from, given.as_ref())?;
        let built = self.builder.build(&sources, number, mode)?;
        // A package was judged when it was read from files.
        if !is_package {
            difference::preflight(&built.compiled)?;
        }
        if let Some(before) = given.as_ref().filter(|_| !is_package && !load.force) {
            difference::judge(before, &built.compiled)?;
        }
        self.get_ready(number, built, &sources, source, given.filter(|_| is_package))
    }

    fn gather(&self, from: LoadFrom, package: Option<&File>) -> Result<(Sources, Mode), Vec<Diagnostic>> {
        let problem = |error: anyhow::Error| vec![cannot_start(&error)];
        let open = || {
            let package = package.context("an order came without its package").map_err(problem)?;
            let (_, sources) =
                package::read(package).context("a stored generation cannot be used").map_err(problem)?;
            Ok::<_, Vec<Diagnostic>>(sources)
        };
        match from {
            LoadFrom::File { path } => {
                let sources = sources::read_file(&path, &self.certificates)?;
                Ok((sources, Mode::Fresh))
            }
            LoadFrom::Text { text } => {
                let text = Arc::from(text.into_bytes());
                let sources = sources::gather(COMMAND_LINE, text, &self.certificates);
                Ok((sources, Mode::Fresh))
            }
            LoadFrom::Package { served } => Ok((open()?, if served { Mode::Stored } else { Mode::Fresh })),
            LoadFrom::Reread => {
                let old = open()?;
                let sources = sources::gather(&old.file, old.text, &self.certificates);
                Ok((sources, Mode::Fresh))
            }
            LoadFrom::Defaults { .. } => Err(problem(anyhow::anyhow!("the defaults have no sources"))),
        }
    }

    /// Describes what was loaded, and keeps it, with a package of its sources, until it is put in force.
    fn get_ready(
        &self,
        number: u64,
        built: Built,
        sources: &Sources,
        source: GenerationSource,
        package: Option<File>,
    ) -> Result<(Loaded, OwnedFd), Vec<Diagnostic>> {
        let problem = |error: anyhow::Error| vec![cannot_start(&error)];
        let package = package.map_or_else(|| package::make(number, sources), Ok);
        let package = package.context("the generation could not be put into a package").map_err(problem)?;
        let copy = package.try_clone().map_err(|error| problem(error.into()))?;
        let watched = sources::watched(sources, &self.certificates);
        let Built { generation, warnings, compiled, places } = built;
        let loaded = describe::describe(number, &compiled, sources, &places, watched, warnings);
        let generation = Arc::new(generation);
        self.start_threads(&generation).map_err(problem)?;
        let ready = Ready { generation, loaded: loaded.clone(), source, package, places };
        self.lock().pending = Some(ready);
        Ok((loaded, copy.into()))
    }

    /// The first generation starts the edge's threads, so that taking over costs nothing later.
    fn start_threads(&self, generation: &Arc<Generation>) -> anyhow::Result<()> {
        let mut parts = self.lock();
        if parts.edge.is_some() {
            return Ok(());
        }
        let compiled = &generation.snapshot;
        // Nothing is written before this process serves: the log belongs to whoever does.
        let silent =
            snapshot::generation::AccessLog { to: AccessLogTarget::Off, ..compiled.access_log.clone() };
        let log = Arc::new(AccessLog::start(&silent, self.metrics.log_counts())?);
        let (threads, metrics) = (describe::threads(compiled), self.metrics.clone());
        // Nor is anybody told of golden requests.
        let events = Arc::new(Events::start(self.event_socket.clone(), self.metrics.event_counts())?);
        let access_log = log.clone();
        let options = EdgeOptions { threads, seed: self.seed, metrics, access_log, events: events.clone() };
        let edge = Edge::start(options, generation.clone()).map_err(|error| anyhow::anyhow!("{error}"))?;
        let edge = Arc::new(edge);
        parts.access_log = Some(log);
        parts.events = Some(events);
        parts.edge = Some(edge.clone());
        self.lock_living().0 = Some(edge);
        Ok(())
    }

    /// Deferred work to its end, then golden requests. Not while anything is served.
    fn rehearse(&self) -> Reply {
        let parts = self.lock();
        let (Some(edge), Some(ready)) = (parts.edge.clone(), parts.pending.as_ref()) else {
            return refused("nothing-loaded", "there is nothing to rehearse".to_owned());
        };
        let (generation, places) = (ready.generation.clone(), ready.places.clone());
        drop(parts);
        let before = self.builder.loader.modules().failures();
        let rehearsed = edge::deferred::run(&generation, &self.metrics)
            .and_then(|()| edge::rehearsal::rehearse(&edge, &generation).map(drop));
        match rehearsed {
            Ok(()) => match self.failed_since(&before) {
                found if found.is_empty() => Reply::Done,
                diagnostics => Reply::Refused { diagnostics },
            },
            Err(found) => Reply::Refused {
                diagnostics: found.iter().map(|error| diagnose(error, Severity::Error, &places)).collect(),
            },
        }
    }

    /// Puts what was loaded in force and accepts on the listeners given.
    fn activate(&self, order: Activate, descriptors: Vec<OwnedFd>) -> Reply {
        let mut parts = self.lock();
        let parts = &mut *parts;
        let Some(edge) = parts.edge.clone() else {
            return refused("nothing-loaded", "there is nothing to activate".to_owned());
        };
        let mut descriptors = descriptors.into_iter();
        let (mut sets, mut held) = (Vec::new(), Vec::new());
        for listener in order.listeners {
            let given: Vec<TcpListener> =
                descriptors.by_ref().take(listener.sockets).map(TcpListener::from).collect();
            let mut copies = Vec::new();
            if let Some(at) = parts.listeners.iter().position(|(old, _)| old.id == listener.id) {
                copies = parts.listeners.swap_remove(at).1;
            }
            if !given.is_empty() {
                copies = given.iter().filter_map(|socket| socket.try_clone().ok()).collect();
            }
            let bound = BoundListener {
                id: listener.id,
                configured: listener.configured,
                address: listener.address,
                tls: listener.tls,
                proxy_protocol: listener.proxy_protocol,
            };
            sets.push(ListenerSet { listener: bound, sockets: given });
            held.push((listener, copies));
        }
        // Copies of listeners that go are closed before the edge closes its own, which takes what is in the backlog.
        parts.listeners = held;
        self.builder.loader.import_set_aside(&order.set_aside);
        if let Reply::Refused { diagnostics } = self.set_challenges(&order.challenges) {
            tracing::warn!(?diagnostics, "pending challenges were not taken over");
        }
        self.suspect(&order.suspects);
        let fresh = parts.pending.take();
        edge.activate(fresh.as_ref().map(|ready| ready.generation.clone()), sets);
        if let Some(ready) = fresh {
            self.came_into_force(parts, ready);
        }
        if let Err(error) = self.serve_metrics(parts, order.metrics, descriptors.next()) {
            tracing::error!(%error, "metrics are not served");
        }
        if parts.waiting.is_none() {
            match orphan::Rendezvous::open(&self.rendezvous) {
                Ok(waiting) => parts.waiting = Some(Arc::new(waiting)),
                Err(error) => {
                    tracing::warn!(%error, "this edge could not be adopted if its supervisor ended")
                }
            }
        }
        Reply::Done
    }

    fn came_into_force(&self, parts: &mut Parts, ready: Ready) {
        let generation = &ready.generation;
        if let Some(log) = &parts.access_log {
            log.reconfigure(&generation.snapshot.access_log);
        }
        if let Some(events) = &parts.events {
            events.enable(generation.snapshot.analytics.is_some());
        }
        self.builder.loader.came_into_force(generation);
        self.health.activate(generation.number);
        self.metrics.set_generation(generation.number, generation.snapshot.id);
        self.metrics.reload_finished(true, now());
        let expiries = generation.sites.iter().filter_map(|site| {
            Some((site.site.name.clone(), generation.certificates.expiry(site.site.index)?))
        });
        self.metrics.set_certificates(expiries);
        if let Err(error) = edge::deferred::run_in_background(generation.clone(), self.metrics.clone()) {
            tracing::warn!(%error, "deferred work is left undone");
        }
        parts.in_force = Some(ready);
    }

    fn serve_metrics(
        &self,
        parts: &mut Parts,
        order: MetricsOrder,
        socket: Option<OwnedFd>,
    ) -> anyhow::Result<()> {
        match order {
            MetricsOrder::Keep => Ok(()),
            MetricsOrder::End => {
                (parts.ops, parts.metrics_socket) = (None, None);
                Ok(())
            }
            MetricsOrder::Serve => {
                parts.ops = None;
                let socket =
                    TcpListener::from(socket.context("the metrics socket did not come with the order")?);
                let copy = socket.try_clone()?;
                parts.ops = Some(ops::serve(socket, self.metrics.clone(), self.health.clone())?);
                parts.metrics_socket = Some(copy);
                Ok(())
            }
        }
    }

    /// Leaves all new connections, metrics included, to another process that has the same sockets.
    fn pause(&self) -> Reply {
        let mut parts = self.lock();
        let Some(edge) = parts.edge.clone() else { return Reply::Done };
        parts.listeners.clear();
        (parts.ops, parts.metrics_socket, parts.waiting) = (None, None, None);
        edge.pause();
        Reply::Done
    }

    fn begin_drain(&self, limits: DrainLimits) -> Reply {
        self.pause();
        self.health.drain();
        // Whoever drains is no longer watched for signs of life, only for its end.
        self.lock_living().1 = None;
        let milliseconds = Duration::from_millis;
        let limits = Drain {
            idle: milliseconds(limits.idle_ms),
            requests: milliseconds(limits.requests_ms),
            tunnels: milliseconds(limits.tunnels_ms),
        };
        self.lock().drain = Some(limits);
        Reply::Done
    }

    /// Serves what is left, then writes the last log lines.
    fn finish(&self) {
        let mut parts = self.lock();
        let (edge, log, limits) = (parts.edge.take(), parts.access_log.take(), parts.drain.take());
        let events = parts.events.take();
        drop(parts);
        if let Some(edge) = edge
            && !edge.drain(limits.unwrap_or_default())
        {
            tracing::warn!("some requests were still running at the end of the drain time");
        }
        if let Some(log) = log {
            log.shutdown(LOG_END);
        }
        if let Some(events) = events {
            events.shutdown(EVENTS_END);
        }
    }

    fn outline(&self) -> Reply {
        let parts = self.lock();
        match &parts.in_force {
            Some(ready) => Reply::Outline {
                generation: ready.generation.snapshot.id.to_string(),
                lines: snapshot::outline::outline(&ready.generation.snapshot),
            },
            None => refused("nothing-in-force", "this process serves nothing".to_owned()),
        }
    }
}

fn refused(code: &str, message: String) -> Reply {
    let (code, location, hint) = (code.to_owned(), None, None);
    Reply::Refused {
        diagnostics: vec![Diagnostic { severity: Severity::Error, code, message, location, hint }],
    }
}
