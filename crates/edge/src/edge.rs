//! The edge as a whole: its threads, the sockets it was given, and how a new generation comes into force.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::generation::Generation;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::tls::LoadError;
use crate::worker::{self, Command, Shared};

/// Commands waiting for one edge thread; a reload sends a handful.
const COMMANDS: usize = 1024;
/// How long a removed listener may take to be closed by all threads.
const UNLISTEN_WAIT: Duration = Duration::from_secs(5);
/// How often a drain looks whether it is done, and how long idle connections alone can hold it up.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
const DRAIN_IDLE: Duration = Duration::from_secs(1);

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
}

/// A running edge.
pub struct Edge {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    bound: Mutex<Vec<BoundListener>>,
}

struct Thread {
    commands: mpsc::Sender<Command>,
    handle: JoinHandle<()>,
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
}

/// A listener to accept on, with its sockets when they are new to this process.
#[derive(Debug)]
pub struct ListenerSet {
    /// Which.
    pub listener: BoundListener,
    /// Listening, non-blocking sockets; ignored when a listener of this id is held already.
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
            active: 0.into(),
            lookups: Arc::default(),
        });
        let mut threads = Vec::with_capacity(options.threads);
        for index in 0..options.threads {
            let (commands, received) = mpsc::channel(COMMANDS);
            let (shared, log) = (shared.clone(), options.access_log.handle());
            let seed = options.seed.wrapping_add((index as u64) << 32);
            let handle = std::thread::Builder::new()
                .name(format!("edge-{index}"))
                .spawn(move || worker::run(index, shared, log, seed, received))
                .map_err(|error| thread_error(&error))?;
            threads.push(Thread { commands, handle });
        }
        Ok(Self { shared, threads, bound: Mutex::default() })
    }

    /// Puts a generation in force (`None` keeps the one that is) and accepts on these listeners and no others.
    ///
    /// Connections that are open stay open, on listeners that go as well. A listener that goes takes what is in its
    /// backlog before its sockets are closed here.
    pub fn activate(&self, generation: Option<Arc<Generation>>, listeners: Vec<ListenerSet>) {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(generation) = generation {
            self.shared.current.store(generation);
        }
        let mut next = Vec::with_capacity(listeners.len());
        for ListenerSet { listener, sockets } in listeners {
            match bound.iter().find(|held| held.id == listener.id) {
                None => self.hand_out(&listener, sockets, None),
                Some(held) if held.tls != listener.tls => {
                    self.tell(|| Command::SetTls { id: listener.id, tls: listener.tls });
                }
                Some(_) => {}
            }
            next.push(listener);
        }
        let gone: Vec<_> =
            bound.iter().filter(|held| !next.iter().any(|kept| kept.id == held.id)).cloned().collect();
        #[cfg(feature = "faults")]
        crate::fault::on_activate(next.len());
        *bound = next;
        self.unlisten(&gone);
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

    /// Closes listeners and waits until every thread has, so that nothing is left in a backlog.
    fn unlisten(&self, gone: &[BoundListener]) {
        let (done, finished) = std::sync::mpsc::channel();
        for listener in gone {
            self.tell(|| Command::Unlisten { id: listener.id, done: done.clone() });
        }
        drop(done);
        let deadline = Instant::now() + UNLISTEN_WAIT;
        // Ends by itself when the last thread has dropped its sender.
        while finished.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
    }

    /// Accepts on a private listener whose requests go to a golden origin; see `rehearsal`.
    pub(crate) fn open_private(&self, listener: &BoundListener, socket: TcpListener, golden: SocketAddr) {
        self.hand_out(listener, vec![socket], Some(golden));
    }

    /// Closes private listeners, and forgets what was counted about their connections: nothing else was open.
    pub(crate) fn close_private(&self, listeners: &[BoundListener]) {
        self.unlisten(listeners);
        let deadline = Instant::now() + UNLISTEN_WAIT;
        while self.connections() > 0 && Instant::now() < deadline {
            std::thread::sleep(DRAIN_LOOK);
        }
        self.shared.metrics.forget_connections();
    }

    /// Stops accepting on every listener and keeps every connection, so that a successor gets the new ones.
    pub fn pause(&self) {
        self.activate(None, Vec::new());
    }

    fn tell(&self, command: impl Fn() -> Command) {
        self.threads.iter().for_each(|thread| send(thread, command()));
    }

    /// The generation in force.
    pub fn current(&self) -> Arc<Generation> {
        self.shared.current.load_full()
    }

    /// The listeners in force.
    pub fn listeners(&self) -> Vec<BoundListener> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Client connections open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Stops accepting, lets requests finish, and ends the threads; after `limit` at the latest.
    /// Answers whether everything had finished.
    pub fn drain(self, limit: Duration) -> bool {
        self.tell(|| Command::Drain);
        let (started, mut quiet) = (Instant::now(), Instant::now());
        let finished = loop {
            if self.connections() == 0 {
                break true;
            }
            let now = Instant::now();
            if self.shared.active.load(Ordering::Relaxed) > 0 {
                quiet = now;
            }
            if now.duration_since(quiet) >= DRAIN_IDLE {
                break true;
            }
            if now.duration_since(started) >= limit {
                break false;
            }
            std::thread::sleep(DRAIN_LOOK);
        };
        for Thread { commands, handle } in self.threads {
            drop(commands);
            if handle.join().is_err() {
                tracing::error!("an edge thread had panicked");
            }
        }
        finished
    }
}

/// Hands a command over. The queue is longer than any reload; a thread that does not read it is gone.
fn send(thread: &Thread, command: Command) {
    if thread.commands.blocking_send(command).is_err() {
        tracing::error!(thread = thread.handle.thread().name(), "an edge thread is gone");
    }
}

fn listen(listener: &BoundListener, socket: TcpListener, rehearsal: Option<SocketAddr>) -> Command {
    let BoundListener { id, configured, tls, .. } = *listener;
    Command::Listen { id, configured, socket, tls, rehearsal }
}

fn thread_error(error: &io::Error) -> LoadError {
    LoadError {
        place: "limits.threads".to_owned(),
        code: "no-thread",
        message: format!("an edge thread could not be started: {error}"),
        hint: "allow more processes for this user (`ulimit -u`) or configure fewer threads".to_owned(),
    }
}
