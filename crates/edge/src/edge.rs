//! The edge as a whole: its threads, its listening sockets, and how a new generation comes into force.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use snapshot::generation::{Listener, Snapshot};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

use crate::generation::Generation;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::tls::LoadError;
use crate::worker::{self, Command, Shared};

/// Connections the kernel holds for a socket until they are accepted.
const BACKLOG: i32 = 4096;
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
    next_listener: AtomicU64,
}

struct Thread {
    commands: mpsc::Sender<Command>,
    handle: JoinHandle<()>,
}

/// A listener in force.
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

/// What an activation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Listeners that came.
    pub added: usize,
    /// Listeners that went.
    pub removed: usize,
}

impl Edge {
    /// Starts the threads and puts the first generation in force. Fails, without leaving a socket open, when an address
    /// cannot be listened on or a thread not be started.
    pub fn start(options: EdgeOptions, first: Generation) -> Result<Self, Vec<LoadError>> {
        let first = Arc::new(first);
        let shared = Arc::new(Shared {
            current: Arc::new(ArcSwap::new(first.clone())),
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
                .map_err(|error| vec![thread_error(&error)])?;
            threads.push(Thread { commands, handle });
        }
        let edge = Self { shared, threads, bound: Mutex::default(), next_listener: 0.into() };
        edge.activate_shared(first)?;
        Ok(edge)
    }

    /// Puts a generation in force: new sockets are bound first, and when one cannot be, nothing has changed.
    ///
    /// Connections that are open stay open, on listeners that go as well.
    pub fn activate(&self, generation: Generation) -> Result<Activation, Vec<LoadError>> {
        self.activate_shared(Arc::new(generation))
    }

    fn activate_shared(&self, generation: Arc<Generation>) -> Result<Activation, Vec<LoadError>> {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let (plan, gone) = plan(&generation.snapshot.listeners, &bound);
        let fresh = self.bind_new(&generation.snapshot, &plan, &bound)?;
        self.shared.current.store(generation.clone());

        let (added, removed) = (fresh.len(), gone.len());
        let mut fresh = fresh.into_iter();
        let mut next = Vec::with_capacity(plan.len());
        for (listener, old) in generation.snapshot.listeners.iter().zip(plan) {
            match old {
                Some(mut old) => {
                    if old.tls != listener.tls {
                        old.tls = listener.tls;
                        self.tell(|| Command::SetTls { id: old.id, tls: listener.tls });
                    }
                    next.push(old);
                }
                None => next.extend(fresh.next().map(|fresh| self.hand_out(fresh))),
            }
        }
        *bound = next;
        self.unlisten(&gone);
        Ok(Activation { added, removed })
    }

    /// Gives each thread its socket of a new listener.
    fn hand_out(&self, fresh: Bound) -> BoundListener {
        let Bound { listener, sockets } = fresh;
        for (thread, socket) in self.threads.iter().zip(sockets) {
            let BoundListener { id, configured, tls, .. } = listener;
            send(thread, Command::Listen { id, configured, socket, tls });
        }
        listener
    }

    /// Closes listeners and waits until every thread has, so that the same address can be bound again at once.
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

    fn bind_new(
        &self,
        snapshot: &Snapshot,
        plan: &[Option<BoundListener>],
        bound: &[BoundListener],
    ) -> Result<Vec<Bound>, Vec<LoadError>> {
        let (mut fresh, mut errors) = (Vec::new(), Vec::new());
        for (listener, _) in snapshot.listeners.iter().zip(plan).filter(|(_, old)| old.is_none()) {
            let ours = bound.iter().any(|old| old.address.port() == listener.address.port());
            let id = self.next_listener.fetch_add(1, Ordering::Relaxed);
            match bind(id, listener, &snapshot.listeners, self.threads.len(), ours) {
                Ok(listener) => fresh.push(listener),
                Err(error) => errors.push(bind_error(listener, &error)),
            }
        }
        if errors.is_empty() { Ok(fresh) } else { Err(errors) }
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

/// For each listener wanted the one that is bound already, and those nobody wants any more. The same address can be
/// wanted several times when its port is 0.
fn plan(wanted: &[Listener], bound: &[BoundListener]) -> (Vec<Option<BoundListener>>, Vec<BoundListener>) {
    let mut left = bound.to_vec();
    let mut take = |listener: &Listener| {
        let same = |old: &BoundListener| old.configured == listener.address;
        let alike = left.iter().position(|old| same(old) && old.tls == listener.tls);
        let found = alike.or_else(|| left.iter().position(same))?;
        Some(left.remove(found))
    };
    let plan = wanted.iter().map(&mut take).collect();
    (plan, left)
}

/// A listener bound and not yet handed out.
struct Bound {
    listener: BoundListener,
    sockets: Vec<TcpListener>,
}

/// One socket per thread on the same address; the kernel spreads connections over them.
///
/// `ours`: this process has the port on another address already, and may be giving it up.
fn bind(id: u64, listener: &Listener, all: &[Listener], threads: usize, ours: bool) -> io::Result<Bound> {
    let configured = listener.address;
    // `[::]` takes IPv4 too, unless somebody else on the list wants that port on IPv4.
    let only_v6 =
        all.iter().any(|other| other.address.is_ipv4() && other.address.port() == configured.port());
    if configured.port() != 0 && !ours {
        // Sockets that share a port do not refuse each other: only a plain one finds out whether the port is taken.
        drop(open(configured, only_v6, false)?);
    }
    let first = open(configured, only_v6, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..threads {
        sockets.push(open(address, only_v6, true)?);
    }
    Ok(Bound { listener: BoundListener { id, configured, address, tls: listener.tls }, sockets })
}

fn open(address: SocketAddr, only_v6: bool, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(only_v6)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_error(listener: &Listener, error: &io::Error) -> LoadError {
    let address = listener.address;
    let (code, message, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            "port-in-use",
            format!("another program listens on {address} already"),
            format!("stop that program (`ss -ltnp` names it) or choose another port than {}", address.port()),
        ),
        io::ErrorKind::PermissionDenied => (
            "port-not-allowed",
            format!("this user may not listen on {address}"),
            "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; or choose a higher port"
                .to_owned(),
        ),
        io::ErrorKind::AddrNotAvailable => (
            "address-not-here",
            format!("no interface of this machine has the address {}", address.ip()),
            "write an address of this machine, or 0.0.0.0 or [::] for all of them".to_owned(),
        ),
        _ => (
            "cannot-listen",
            format!("cannot listen on {address}: {error}"),
            "see the system's log for the cause".to_owned(),
        ),
    };
    LoadError { place: listener.place.clone(), code, message, hint }
}

fn thread_error(error: &io::Error) -> LoadError {
    LoadError {
        place: "limits.threads".to_owned(),
        code: "no-thread",
        message: format!("an edge thread could not be started: {error}"),
        hint: "allow more processes for this user (`ulimit -u`) or configure fewer threads".to_owned(),
    }
}
