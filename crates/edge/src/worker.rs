//! One edge thread: its runtime, its share of every listener, its pools. Nothing here is shared with other threads
//! except counters and the generation in force.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use base::event::RequestEvent;
use base::id::RequestId;
use base::random::Random;
use base::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::accept;
use crate::connection::ListenerState;
use crate::generation::Generation;
use crate::telemetry::access_log::LogHandle;
use crate::telemetry::metrics::{Metrics, OpenConnection, Shard, SiteMetrics};
use crate::upstream::pool::Pools;
use crate::upstream::resolve::{ResolveConfig, ResolveCounters, Resolver};

/// How often buffered log lines are handed on when traffic is too thin to fill a buffer.
const LOG_FLUSH: Duration = Duration::from_millis(250);
/// How often idle origin connections are looked through.
const POOL_SWEEP: Duration = Duration::from_secs(1);
/// Idle origin connections are closed after this at the latest, even those of origins no generation has any more.
const POOL_MAX_IDLE: Duration = Duration::from_secs(120);

/// What the process tells an edge thread.
pub enum Command {
    /// Accept on this socket too.
    Listen {
        /// Names the listener.
        id: u64,
        /// Address as configured.
        configured: SocketAddr,
        /// This thread's own socket.
        socket: std::net::TcpListener,
        /// Whether connections begin with a TLS handshake.
        tls: bool,
        /// For a private listener: where its requests go instead of to their origins.
        rehearsal: Option<SocketAddr>,
    },
    /// From the next connection on, begin with a TLS handshake or do not.
    SetTls {
        /// The listener.
        id: u64,
        /// Which.
        tls: bool,
    },
    /// Stop accepting there, serve what has connected; answer once the socket is closed.
    Unlisten {
        /// The listener.
        id: u64,
        /// Told when done.
        done: std::sync::mpsc::Sender<()>,
    },
    /// Stop accepting anywhere, and end each connection after its next response.
    Drain,
}

/// What all edge threads share.
pub struct Shared {
    /// The generation in force.
    pub current: Arc<ArcSwap<Generation>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Client connections open now.
    pub connections: AtomicUsize,
    /// Requests being served now.
    pub active: AtomicUsize,
    /// How often origin names were looked up, and with what success.
    pub lookups: Arc<ResolveCounters>,
}

/// One edge thread.
pub struct Worker {
    /// This thread's counters.
    pub shard: Arc<Shard>,
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// Idle origin connections.
    pub pools: Rc<Pools>,
    /// Addresses of origin names, cached for this thread.
    pub resolver: Resolver,
    current: RefCell<Current>,
    random: RefCell<Random>,
    log: RefCell<LogHandle>,
    connections: Cell<usize>,
    next_connection: Cell<u64>,
    scratch: RefCell<Vec<u8>>,
}

/// The generation in force, cached: taking it costs no shared counter.
#[expect(
    clippy::redundant_allocation,
    reason = "the outer count is this thread's alone, the inner one is contended"
)]
struct Current {
    cache: Cache<Arc<ArcSwap<Generation>>, Arc<Generation>>,
    held: Rc<Arc<Generation>>,
}

/// A generation held by a request.
#[derive(Clone)]
#[expect(
    clippy::redundant_allocation,
    reason = "the outer count is this thread's alone, the inner one is contended"
)]
pub struct Held(Rc<Arc<Generation>>);

impl std::ops::Deref for Held {
    type Target = Generation;
    fn deref(&self) -> &Generation {
        &self.0
    }
}

impl Worker {
    /// The generation in force.
    pub fn generation(&self) -> Held {
        let mut current = self.current.borrow_mut();
        let Current { cache, held } = &mut *current;
        let latest = cache.load();
        if !Arc::ptr_eq(latest, held) {
            *held = Rc::new(latest.clone());
        }
        Held(held.clone())
    }

    /// A new request id.
    pub fn next_request_id(&self) -> RequestId {
        RequestId::new(&mut self.random.borrow_mut())
    }

    /// Random numbers for choices that need not be secret.
    pub fn with_random<T>(&self, choose: impl FnOnce(&mut Random) -> T) -> T {
        choose(&mut self.random.borrow_mut())
    }

    /// The wall clock.
    pub fn wall_clock(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Timestamp::from_unix(since.unwrap_or_default())
    }

    /// A buffer to compose a head in; give it back with `return_scratch`.
    pub fn take_scratch(&self) -> Vec<u8> {
        self.scratch.take()
    }

    /// Gives a buffer back.
    pub fn return_scratch(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.scratch.replace(buffer);
    }

    /// This thread's number, for counters.
    pub fn thread(&self) -> usize {
        self.shard.index()
    }

    /// A request's head is complete.
    pub fn request_began(&self) {
        self.shared.active.fetch_add(1, Ordering::Relaxed);
    }

    /// A request has ended: count it and log it.
    pub fn request_ended(&self, site: Option<&SiteMetrics>, event: &RequestEvent) {
        self.shared.active.fetch_sub(1, Ordering::Relaxed);
        site.unwrap_or(self.shared.metrics.unmatched()).finish(self.thread(), event);
        self.log.borrow_mut().record(event);
    }

    /// A golden request has ended: nobody's request, so neither counted nor logged.
    pub fn rehearsal_ended(&self) {
        self.shared.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a connection in, unless this thread has its fill.
    pub fn admit(self: &Rc<Self>) -> Option<Admission> {
        let limit = self.generation().snapshot.limits.connections;
        if self.connections.get() >= limit {
            return None;
        }
        self.connections.set(self.connections.get() + 1);
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.next_connection.set(self.next_connection.get() + 1);
        Some(Admission {
            worker: self.clone(),
            id: self.next_connection.get(),
            _open: self.shard.connection_opened(),
        })
    }
}

/// One admitted connection; counted out when dropped.
pub struct Admission {
    worker: Rc<Worker>,
    /// Number of the connection on this thread.
    pub id: u64,
    _open: OpenConnection,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.worker.connections.set(self.worker.connections.get().saturating_sub(1));
        self.worker.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One listener of this thread.
struct Accepting {
    state: Rc<ListenerState>,
    /// Ends the accept loop; the loop answers when its socket is closed.
    stop: Option<oneshot::Sender<Option<std::sync::mpsc::Sender<()>>>>,
}

/// The body of an edge thread: runs until the command channel closes.
pub fn run(index: usize, shared: Arc<Shared>, log: LogHandle, seed: u64, commands: mpsc::Receiver<Command>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(index, %error, "an edge thread could not start its runtime");
            return;
        }
    };
    runtime.block_on(async move {
        let mut cache = Cache::new(shared.current.clone());
        let held = Rc::new(cache.load().clone());
        let worker = Rc::new(Worker {
            shard: shared.metrics.register_shard(),
            resolver: Resolver::new(ResolveConfig::default(), shared.lookups.clone()),
            shared,
            pools: Rc::default(),
            current: RefCell::new(Current { cache, held }),
            random: RefCell::new(Random::seeded(seed)),
            log: RefCell::new(log),
            connections: Cell::new(0),
            next_connection: Cell::new(0),
            scratch: RefCell::default(),
        });
        let house = tokio::task::spawn_local(keep_house(worker.clone()));
        obey(worker.clone(), commands).await;
        house.abort();
        worker.log.borrow_mut().flush();
    });
}

async fn keep_house(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(LOG_FLUSH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    loop {
        let now = ticks.tick().await;
        worker.log.borrow_mut().flush();
        if now.duration_since(swept) >= POOL_SWEEP {
            swept = now;
            worker.pools.sweep(POOL_MAX_IDLE, now);
        }
    }
}

async fn obey(worker: Rc<Worker>, mut commands: mpsc::Receiver<Command>) {
    // A thread may hold several sockets of one listener.
    let mut listeners: HashMap<u64, Vec<Accepting>> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen { id, configured, socket, tls, rehearsal } => {
                match tokio::net::TcpListener::from_std(socket) {
                    Ok(listener) => {
                        let state = Rc::new(ListenerState {
                            configured,
                            tls: Cell::new(tls),
                            draining: Cell::new(false),
                            rehearsal,
                        });
                        let (stop, stopped) = oneshot::channel();
                        tokio::task::spawn_local(accept::run(
                            listener,
                            state.clone(),
                            worker.clone(),
                            stopped,
                        ));
                        listeners.entry(id).or_default().push(Accepting { state, stop: Some(stop) });
                    }
                    Err(error) => tracing::error!(%configured, %error, "a listener could not be taken over"),
                }
            }
            Command::SetTls { id, tls } => {
                listeners.get(&id).into_iter().flatten().for_each(|listener| listener.state.tls.set(tls));
            }
            Command::Unlisten { id, done } => {
                for listener in listeners.remove(&id).into_iter().flatten() {
                    end(listener, Some(done.clone()));
                }
            }
            Command::Drain => {
                listeners.drain().flat_map(|(_, held)| held).for_each(|listener| end(listener, None))
            }
        }
    }
}

fn end(mut listener: Accepting, done: Option<std::sync::mpsc::Sender<()>>) {
    listener.state.draining.set(true);
    if let Some(stop) = listener.stop.take() {
        // The loop can only be gone when its socket is closed already.
        crate::ignore(stop.send(done).map_err(drop));
    }
}
