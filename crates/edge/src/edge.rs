//! The edge as a whole: its threads, the sockets it was given, and how a new generation comes into force.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use api::process::{Beat, Suspect};
use arc_swap::ArcSwap;
use base::time::Timestamp;
use snapshot::generation::Drain;
use tokio::sync::mpsc;

use crate::connection::Begins;
use crate::generation::Generation;
use crate::modules::{Lookout, Running};
use crate::pressure;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::{Metrics, Pulse};
use crate::tls::LoadError;
use crate::upstream::health::MAX_SET_ASIDE;
use crate::worker::{self, Command, Done, Reports, Shared};

/// Commands waiting for one edge thread; a reload sends a handful.
const COMMANDS: usize = 1024;
/// How often is looked whether the connections of private listeners have ended.
const PRIVATE_LOOK: Duration = Duration::from_millis(5);
/// How long a removed listener may take to be closed by all threads.
const UNLISTEN_WAIT: Duration = Duration::from_secs(5);
/// How much longer than its limits a drain waits for the threads; one that takes longer hangs.
const DRAIN_MARGIN: Duration = worker::LAST_WORDS.saturating_add(Duration::from_secs(2));

/// What an edge is started with.
pub struct EdgeOptions {
    /// Number of edge threads.
    pub threads: usize,
    /// Seed of ids and choices.
    pub seed: u64,
    /// Counters; the same that the loader uses.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub access_log: Arc<AccessLog>,
    /// The way to analytics.
    pub events: Arc<Events>,
}

/// A running edge.
pub struct Edge {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    bound: Mutex<Bound>,
    /// Looks for threads that hang in a module.
    lookout: Mutex<Lookout>,
}

struct Thread {
    commands: mpsc::Sender<Command>,
    /// Taken by the drain that has seen its end.
    handle: Mutex<Option<JoinHandle<()>>>,
}

/// The listeners the threads know.
#[derive(Default)]
struct Bound {
    accepting: Vec<BoundListener>,
    /// Those that nobody accepts on here, and whose connections go on.
    paused: Vec<BoundListener>,
}

/// A listener an edge accepts on. Its sockets were opened by the supervisor, which keeps them open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundListener {
    /// Names it towards the threads.
    pub id: u64,
    /// Address as configured; port 0 stays 0.
    pub configured: SocketAddr,
    /// Address as bound.
    pub address: SocketAddr,
    /// Whether connections begin with a TLS handshake.
    pub tls: bool,
    /// Whether connections of trusted proxies begin with a PROXY header.
    pub proxy_protocol: bool,
}

impl BoundListener {
    /// How its connections begin.
    fn begins(&self) -> Begins {
        Begins { tls: self.tls, proxy_protocol: self.proxy_protocol }
    }
}

/// A listener to accept on, with its sockets when they are new to this process.
#[derive(Debug)]
pub struct ListenerSet {
    /// Which.
    pub listener: BoundListener,
    /// Listening, non-blocking sockets; ignored when a listener of this id is accepted on already. One that was paused
    /// needs them again.
    pub sockets: Vec<TcpListener>,
}

impl Edge {
    /// Starts the threads with the first generation. It accepts nowhere until `activate`.
    pub fn start(options: EdgeOptions, first: impl Into<Arc<Generation>>) -> Result<Self, LoadError> {
        let first = first.into();
        let shared = Arc::new(Shared {
            current: Arc::new(ArcSwap::new(first)),
            metrics: options.metrics,
            connections: 0.into(),
            sources: Arc::default(),
            active: 0.into(),
            lookups: Arc::default(),
            ticks: (0..options.threads).map(|_| 0.into()).collect(),
            cut: 0.into(),
            running: Running::new(options.threads),
        });
        pressure::watch(&shared).map_err(|error| thread_error(&error))?;
        let mut threads = Vec::with_capacity(options.threads);
        for index in 0..options.threads {
            let (commands, received) = mpsc::channel(COMMANDS);
            let shared = shared.clone();
            let seed = options.seed.wrapping_add((index as u64) << 32);
            let reports = Reports {
                log: options.access_log.handle(),
                events: options.events.handle(seed.rotate_left(7)),
            };
            let handle = std::thread::Builder::new()
                .name(format!("edge-{index}"))
                .spawn(move || worker::run(index, shared, reports, seed, received))
                .map_err(|error| thread_error(&error))?;
            threads.push(Thread { commands, handle: Mutex::new(Some(handle)) });
        }
        Ok(Self { shared, threads, bound: Mutex::default(), lookout: Mutex::default() })
    }

    /// Puts a generation in force (`None` keeps the one that is) and accepts on these listeners and no others.
    ///
    /// Connections that are open stay open, on listeners that go as well. A listener that goes takes what is in its
    /// backlog before its sockets are closed here.
    /// Listeners that were paused come back with their connections, or go like the others.
    pub fn activate(&self, generation: Option<Arc<Generation>>, listeners: Vec<ListenerSet>) {
        let mut bound = lock(&self.bound);
        if let Some(generation) = generation {
            self.shared.current.store(generation);
        }
        let mut next = Vec::with_capacity(listeners.len());
        for ListenerSet { listener, sockets } in listeners {
            match bound.accepting.iter().find(|held| held.id == listener.id) {
                None => self.hand_out(&listener, sockets, None),
                Some(held) if held.begins() != listener.begins() => {
                    self.tell(|| Command::Begin { id: listener.id, begins: listener.begins() });
                }
                Some(_) => {}
            }
            next.push(listener);
        }
        #[cfg(feature = "faults")]
        crate::fault::on_activate(next.len());
        let Bound { accepting, paused } = std::mem::take(&mut *bound);
        let mut gone: Vec<_> = accepting.into_iter().chain(paused).collect();
        gone.retain(|held| !next.iter().any(|kept| kept.id == held.id));
        bound.accepting = next;
        self.tell_and_wait(&gone, |id, done| Command::Unlisten { id, done });
    }

    /// Gives each thread its share of a new listener's sockets: one each when there are as many, several where there
    /// are more, and a copy of the same one where there are fewer, so that every socket always has an acceptor.
    fn hand_out(&self, listener: &BoundListener, sockets: Vec<TcpListener>, rehearsal: Option<SocketAddr>) {
        let (threads, given) = (self.threads.len(), sockets.len());
        if given == 0 || threads == 0 {
            tracing::error!(address = %listener.address, "a listener came without sockets");
            return;
        }
        for extra in given..threads {
            let copy = sockets.get(extra % given).map(TcpListener::try_clone);
            let thread = self.threads.get(extra);
            match copy.zip(thread) {
                Some((Ok(socket), thread)) => send(thread, listen(listener, socket, rehearsal)),
                // The thread then has no share of this listener; the others accept for it.
                Some((Err(error), _)) => tracing::warn!(%error, "a listening socket could not be shared"),
                None => {}
            }
        }
        for (index, socket) in sockets.into_iter().enumerate() {
            if let Some(thread) = self.threads.get(index % threads) {
                send(thread, listen(listener, socket, rehearsal));
            }
        }
    }

    /// Gives a command about each of these listeners and waits until every thread has done it.
    fn tell_and_wait(&self, listeners: &[BoundListener], command: impl Fn(u64, Done) -> Command) {
        let (done, finished) = std::sync::mpsc::channel();
        for listener in listeners {
            self.tell(|| command(listener.id, done.clone()));
        }
        drop(done);
        // Ends when the last thread has dropped its sender; nobody ever sends.
        if finished.recv_timeout(UNLISTEN_WAIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("an edge thread takes long to let go of a listener");
        }
    }

    /// Accepts on a private listener whose requests go to a golden origin; see `rehearsal`.
    pub(crate) fn open_private(&self, listener: &BoundListener, socket: TcpListener, golden: SocketAddr) {
        self.hand_out(listener, vec![socket], Some(golden));
    }

    /// Closes private listeners, and forgets what was counted about their connections: nothing else was open.
    pub(crate) fn close_private(&self, listeners: &[BoundListener]) {
        self.tell_and_wait(listeners, |id, done| Command::Unlisten { id, done });
        let deadline = Instant::now() + UNLISTEN_WAIT;
        while self.connections() > 0 && Instant::now() < deadline {
            std::thread::sleep(PRIVATE_LOOK);
        }
        self.shared.metrics.forget_connections();
    }

    /// Stops accepting on every listener and keeps every connection as it is, so that a successor gets the new ones. When
    /// it does not come to that, `activate` takes listeners and connections up again.
    pub fn pause(&self) {
        let mut bound = lock(&self.bound);
        let stopped = std::mem::take(&mut bound.accepting);
        self.tell_and_wait(&stopped, |id, done| Command::Pause { id, done });
        bound.paused.extend(stopped);
    }

    fn tell(&self, command: impl Fn() -> Command) {
        self.threads.iter().for_each(|thread| send(thread, command()));
    }

    /// The generation in force.
    pub fn current(&self) -> Arc<Generation> {
        self.shared.current.load_full()
    }

    /// The listeners accepted on.
    pub fn listeners(&self) -> Vec<BoundListener> {
        lock(&self.bound).accepting.clone()
    }

    /// Client connections open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// A sign of life: how often each thread has come round, what was counted, and which origins of the generation in force are
    /// set aside. `failures` are answers for which `failure::speaks_against_us` holds; `wanted` is left empty.
    pub fn pulse(&self) -> Beat {
        let Pulse { requests, failures, accepted } = self.shared.metrics.pulse();
        let (current, now) = (self.current(), Instant::now());
        let aside = current.sites.iter().flat_map(|site| site.health.set_aside(&site.site.name, now));
        Beat {
            threads: self.shared.ticks.iter().map(|ticks| ticks.load(Ordering::Relaxed)).collect(),
            connections: self.connections() as u64,
            active: self.shared.active.load(Ordering::Relaxed) as u64,
            requests,
            failures,
            accepted,
            set_aside: aside.take(MAX_SET_ASIDE).collect(),
            wanted: Vec::new(),
            suspects: self.suspects(&current),
        }
    }

    /// Modules that threads hang in at the moment, and where. From now on no other thread asks them there.
    fn suspects(&self, current: &Generation) -> Vec<Suspect> {
        let found = lock(&self.lookout).look(&self.shared.running);
        let named = found.into_iter().filter_map(|(module, site)| {
            let site = current.modules.site_name(site)?.to_string();
            Some(Suspect { module: module.name().to_owned(), site, times: 1 })
        });
        let named: Vec<_> = named.collect();
        if !named.is_empty() {
            let at = Timestamp::from_unix(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default());
            current.modules.suspect(&named, at);
        }
        named
    }

    /// Stops accepting, ends every connection within these limits, and ends the threads; blocks until that is done. The edge
    /// cannot be used afterwards. Answers whether everything had ended by itself.
    ///
    /// Over HTTP/1.1 the next response of a connection is its last; over HTTP/2 every connection gets GOAWAY at once, in
    /// two steps (RFC 9113 section 6.8). A thread that hangs is given up on a few seconds after the longest limit.
    pub fn drain(&self, limits: Drain) -> bool {
        let (done, ended) = std::sync::mpsc::channel();
        for thread in &self.threads {
            // Never waits: a thread that has left its queue to fill up hangs.
            let command = Command::Drain { limits, done: done.clone() };
            if thread.commands.try_send(command).is_err() {
                tracing::error!("an edge thread does not take the order to end");
            }
        }
        drop(done);
        let longest = limits.idle.max(limits.requests).max(limits.tunnels);
        // Nobody ever sends: this ends when the last thread has dropped its sender.
        if ended.recv_timeout(longest.saturating_add(DRAIN_MARGIN)) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("an edge thread hangs and is left behind");
            return false;
        }
        for thread in &self.threads {
            let handle = lock(&thread.handle).take();
            if handle.is_some_and(|handle| handle.join().is_err()) {
                tracing::error!("an edge thread had panicked");
            }
        }
        self.shared.cut.load(Ordering::Relaxed) == 0 && self.connections() == 0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands a command over. The queue is longer than any reload; a thread that does not read it is gone.
fn send(thread: &Thread, command: Command) {
    if thread.commands.blocking_send(command).is_err() {
        tracing::error!("an edge thread is gone");
    }
}

fn listen(listener: &BoundListener, socket: TcpListener, rehearsal: Option<SocketAddr>) -> Command {
    let BoundListener { id, configured, .. } = *listener;
    Command::Listen { id, configured, socket, begins: listener.begins(), rehearsal }
}

fn thread_error(error: &io::Error) -> LoadError {
    LoadError {
        place: "limits.threads".to_owned(),
        code: "no-thread",
        message: format!("an edge thread could not be started: {error}"),
        hint: "allow more processes for this user (`ulimit -u`) or configure fewer threads".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use base::time::Timestamp;
    use snapshot::source::SourceTree;
    use snapshot::{Input, Mode};

    use super::*;
    use crate::generation::Loader;
    use crate::tls::certificates::Expired;

    #[test]
    fn a_thread_that_hangs_does_not_hold_up_the_end() {
        let text = b"[[site]]\nhosts = [\"*\"]\n[[site.origin]]\nurl = \"http://127.0.0.1:9\"\n[[listen]]\n\
            address = \"127.0.0.1:0\"\ntls = false\n";
        let input = Input { file: "test.toml", text, tree: &SourceTree::default() };
        let mut compiled = snapshot::compile(input, Timestamp(0), Mode::Fresh).snapshot.unwrap();
        compiled.access_log.to = snapshot::generation::AccessLogTarget::Off;
        let access_log = Arc::new(AccessLog::start(&compiled.access_log, Arc::default()).unwrap());
        let metrics = Arc::new(Metrics::new(2, access_log.counts().clone()));
        let loader = Loader::new(metrics.clone()).unwrap();
        let first = loader.load(Arc::new(compiled), 1, None, Timestamp(0), Expired::Refuse).unwrap();
        let events = Arc::new(Events::start("unused".into(), Arc::default()).unwrap());
        let options = EdgeOptions { threads: 2, seed: 1, metrics, access_log, events };
        let mut edge = Edge::start(options, first).unwrap();

        let (commands, unread) = mpsc::channel(COMMANDS);
        let (free, hanging) = std::sync::mpsc::channel::<()>();
        let handle = std::thread::spawn(move || {
            assert!(hanging.recv().is_err());
            drop(unread);
        });
        edge.threads[1] = Thread { commands, handle: Mutex::new(Some(handle)) };
        let limits = Drain { idle: Duration::ZERO, requests: Duration::ZERO, tunnels: Duration::ZERO };
        assert!(!edge.drain(limits));
        assert!(lock(&edge.threads[1].handle).is_some(), "left behind, not waited for");
        drop(free);
    }
}
