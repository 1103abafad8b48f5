//! One edge thread: its runtime, its share of every listener, its pools. Nothing here is shared with other threads
//! except counters and the generation in force.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use base::event::RequestEvent;
use base::id::RequestId;
use base::random::Random;
use base::time::Timestamp;
use snapshot::generation::Drain;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::connection::{Begins, Ending};
use crate::failure;
use crate::generation::Generation;
use crate::modules::Running;
use crate::seats::Seats;
use crate::sources::Sources;
use crate::telemetry::access_log::LogHandle;
use crate::telemetry::events::EventHandle;
use crate::telemetry::metrics::{Metrics, Shard, SiteMetrics};
use crate::upstream::pool::Pools;
use crate::upstream::resolve::{ResolveConfig, ResolveCounters, Resolver};

mod admission;
mod listeners;

pub use self::admission::Admission;

/// How often a thread shows that it comes round.
const TICK: Duration = Duration::from_millis(125);
/// After how many ticks buffered log lines and events are handed on when traffic is too thin to fill a buffer.
const LOG_FLUSH_TICKS: u64 = 2;
/// How often idle origin connections are looked through.
const POOL_SWEEP: Duration = Duration::from_secs(1);
/// Idle origin connections are closed after this at the latest, even those of origins no generation has any more.
const POOL_MAX_IDLE: Duration = Duration::from_secs(120);
/// What a connection that was cut off may still take: its client is given a moment to read (`io::Linger`).
pub const LAST_WORDS: Duration = Duration::from_secs(3);

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
        /// How connections begin.
        begins: Begins,
        /// For a private listener: where its requests go instead of to their origins.
        rehearsal: Option<SocketAddr>,
    },
    /// From the next connection on, connections of a listener begin in another way.
    Begin {
        /// The listener.
        id: u64,
        /// How.
        begins: Begins,
    },
    /// Stop accepting there and keep every connection; the listener may come back.
    Pause {
        /// The listener.
        id: u64,
        /// Told, or dropped, when done.
        done: Done,
    },
    /// The listener is removed: stop accepting there, and end its connections once they have nothing to do.
    Unlisten {
        /// The listener.
        id: u64,
        /// Told, or dropped, when done.
        done: Done,
    },
    /// Stop accepting anywhere, end every connection within these limits, then the thread.
    Drain {
        /// How long that may take.
        limits: Drain,
        /// Dropped when the thread has ended.
        done: Done,
    },
}

/// Tells whoever gave a command that it has been done, by being dropped.
pub type Done = std::sync::mpsc::Sender<()>;

/// What all edge threads share.
pub struct Shared {
    /// The generation in force.
    pub current: Arc<ArcSwap<Generation>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Client connections open now.
    pub connections: AtomicUsize,
    /// What each client network has open.
    pub sources: Arc<Sources>,
    /// Requests being served now.
    pub active: AtomicUsize,
    /// How often origin names were looked up, and with what success.
    pub lookups: Arc<ResolveCounters>,
    /// How often each thread has come round.
    pub ticks: Box<[AtomicU64]>,
    /// Exchanges cut off because the process ends.
    pub cut: AtomicUsize,
    /// Which module each thread is in.
    pub running: Running,
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
    events: RefCell<EventHandle>,
    connections: Cell<usize>,
    handshakes: Cell<usize>,
    next_connection: Cell<u64>,
    scratch: RefCell<Vec<u8>>,
    /// Both clocks, read together.
    clock: Cell<(std::time::Instant, Timestamp)>,
    seats: RefCell<Seats>,
    /// Set once the process ends; every `ListenerState` of this thread looks here.
    ending: Rc<Cell<Option<Ending>>>,
    /// Told when the last connection of an ending thread has gone.
    empty: Notify,
    /// An exchange is being dropped because its time is over.
    cutting: Cell<bool>,
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
    /// A thread that serves nothing yet. Inside a runtime, for what it counts with and looks names up by.
    pub fn new(shared: Arc<Shared>, reports: Reports, seed: u64) -> Self {
        let mut cache = Cache::new(shared.current.clone());
        let held = Rc::new(cache.load().clone());
        Self {
            shard: shared.metrics.register_shard(),
            resolver: Resolver::new(ResolveConfig::default(), shared.lookups.clone()),
            shared,
            pools: Rc::default(),
            current: RefCell::new(Current { cache, held }),
            random: RefCell::new(Random::seeded(seed)),
            log: RefCell::new(reports.log),
            events: RefCell::new(reports.events),
            connections: Cell::new(0),
            handshakes: Cell::new(0),
            next_connection: Cell::new(0),
            scratch: RefCell::default(),
            clock: Cell::new(read_clocks()),
            seats: RefCell::default(),
            ending: Rc::default(),
            empty: Notify::new(),
            cutting: Cell::new(false),
        }
    }

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

    /// The wall clock at a moment of the monotonic one: read several times a second, told on in between.
    pub fn wall_clock_at(&self, now: std::time::Instant) -> Timestamp {
        let (read, wall) = self.clock.get();
        Timestamp(wall.0.saturating_add(now.saturating_duration_since(read).as_micros() as u64))
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
        self.shard.request_finished(
            event
                .fault
                .is_some_and(|fault| failure::speaks_against_us(fault, event.reason.unwrap_or_default())),
        );
        site.unwrap_or(self.shared.metrics.unmatched()).finish(self.thread(), event);
        self.log.borrow_mut().record(event);
        self.events.borrow_mut().record(event);
    }

    /// A golden request has ended: nobody's request, so neither counted nor logged.
    pub fn rehearsal_ended(&self) {
        self.shared.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Drops an exchange whose time is over, so that it is logged as that and not as a client that left.
    pub fn cut<T>(&self, exchange: T) {
        self.count_cut();
        self.cutting.set(true);
        drop(exchange);
        self.cutting.set(false);
    }

    /// Counts an exchange that was cut off because the process ends.
    pub fn count_cut(&self) {
        self.shared.cut.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether what is being dropped at this moment was cut off.
    pub fn is_cutting(&self) -> bool {
        self.cutting.get()
    }

    /// Waits until no connection is left, or until `limit`; answers how many are.
    async fn empty_until(&self, limit: Instant) -> usize {
        while self.connections.get() > 0 {
            if tokio::time::timeout_at(limit, self.empty.notified()).await.is_err() {
                break;
            }
        }
        self.connections.get()
    }
}

/// Where a thread reports finished requests.
pub struct Reports {
    /// To the access log.
    pub log: LogHandle,
    /// To analytics.
    pub events: EventHandle,
}

/// The body of an edge thread: runs until it is drained, or until the command channel closes.
pub fn run(
    index: usize,
    shared: Arc<Shared>,
    reports: Reports,
    seed: u64,
    commands: mpsc::Receiver<Command>,
) {
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
    let done = runtime.block_on(async move {
        let worker = Rc::new(Worker::new(shared, reports, seed));
        let house = tokio::task::spawn_local(keep_house(worker.clone(), index));
        let done = listeners::obey(worker.clone(), commands).await;
        house.abort();
        worker.log.borrow_mut().flush();
        worker.events.borrow_mut().flush();
        done
    });
    // What is left of connections goes with the runtime, and only then has the thread ended.
    drop(runtime);
    drop(done);
}

/// The monotonic and the wall clock.
fn read_clocks() -> (std::time::Instant, Timestamp) {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (std::time::Instant::now(), Timestamp::from_unix(wall))
}

async fn keep_house(worker: Rc<Worker>, index: usize) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    for count in 1u64.. {
        let now = ticks.tick().await;
        worker.clock.set(read_clocks());
        crate::io::next_round();
        if let Some(ticks) = worker.shared.ticks.get(index) {
            ticks.store(count, Ordering::Relaxed);
        }
        if count % LOG_FLUSH_TICKS == 0 {
            worker.log.borrow_mut().flush();
            worker.events.borrow_mut().flush();
        }
        worker.relieve(now);
        if index == 0 {
            worker.generation().bans.expire(worker.wall_clock_at(now.into_std()));
        }
        if now.duration_since(swept) >= POOL_SWEEP {
            swept = now;
            worker.pools.sweep(POOL_MAX_IDLE, now);
        }
    }
}
